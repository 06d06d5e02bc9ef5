"""What a checkpoint file says is not believed: each of these is refused in one line, before anything is built of it."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch
from untrained import make_checkpoint

from basics.errors import UserError
from basics.files import ArtifactError
from eval_mop import evaluate
from policy.agent import build_policy, load_agent
from results import checkpoints

HUGE = torch.zeros(1).expand(4096, 4096)


def changed(**changes):
    """Return a sound checkpoint but for these entries; those of dicts are changed one by one."""
    checkpoint = make_checkpoint(obs_encoding="raw", lang_fusion="concat")
    for name, value in changes.items():
        checkpoint[name] = checkpoint[name] | value if isinstance(value, dict) else value
    return checkpoint


def nested(depth):
    value = [0, 0]
    for _ in range(depth):
        value = [value, value]
    return value


CONFIGS = [
    {"max_steps": "../../up"}, {"max_steps": 0}, {"max_steps": -5}, {"max_steps": True}, {"max_steps": 10**30},
    {"num_actions": "7"}, {"num_actions": 9}, {"intermediate_dim": 10**9}, {"intermediate_dim": 64.0},
    {"expert_hidden_sizes": [[10**9]]}, {"expert_hidden_sizes": nested(40)}, {"expert_hidden_sizes": [[]]},
    {"expert_hidden_sizes": [[0] * 5000]}, {"lr": float("nan")}, {"lang_encoder": "a\0b"},
    {"task_id": "../up"}, {"task_id": None}, {"trial": nested(40)}, {"seed": 2**70}, {"checkpoint_dir": "a\rb"},
    {"lang_encoder": "x" * 10**6}, {"a\nb": 2}, {"obs_encoding": None}, {"obs_encoding": "onehot2"}, {"lang_dim": [32]},
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(next(iter(config))))
def test_a_config_that_config_yaml_would_refuse(tmp_path, config):
    path = tmp_path / "checkpoint_final.pt"
    checkpoints.save_checkpoint(path, changed(config=config))
    with pytest.raises(
        ArtifactError, match=r"checkpoint_final.pt: not a checkpoint of this project: its config"
    ) as error:
        checkpoints.load_checkpoint(path)
    assert len(str(error.value)) < 700 and "\n" not in str(error.value) and "\0" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"policy_state_dict": []}, "not a dict but a list"),
        ({"policy_state_dict": {"head.bias": [1.0] * 7}}, "head.bias' is a list"),
        ({"policy_state_dict": {"head.bias": HUGE}}, "repeats its numbers"),
        ({"policy_state_dict": {"head.bias": torch.zeros(7).to_sparse()}}, "another kind"),
        ({"policy_state_dict": {"head.bias": torch.zeros(7, dtype=torch.complex64)}}, "another kind"),
        ({"lang_proj_state_dict": None}, "not a dict but a NoneType"),
        ({"lang_proj_state_dict": [1]}, "not a dict but a list"),
        ({"lang_proj_state_dict": {"weight": torch.zeros(32)}}, "expected weight"),
        ({"lang_proj_state_dict": {"bias": torch.zeros(31)}}, "expected weight"),
        ({"lang_proj_state_dict": {"more": torch.zeros(31)}}, "expected weight"),
        ({"config": None}, "config is not a dict"),
    ],
)
def test_what_should_be_tensors_and_is_not(tmp_path, changes, problem):
    path = tmp_path / "checkpoint_final.pt"
    checkpoints.save_checkpoint(path, changed(**changes))
    with pytest.raises(ArtifactError, match=problem):
        checkpoints.load_checkpoint(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"expert_hidden_sizes": [[4096] * 300] * 3}},  # 188 GB of weights, if they were made
        {"config": {"router_hidden_size": 32}},
        {"config": {"lang_dim": 16}},
        {"policy_state_dict": {"head.bias": torch.zeros(8)}},
        {"policy_state_dict": {"head.bias": torch.zeros(7, dtype=torch.int64)}},
        {"policy_state_dict": {"another.bias": torch.zeros(8)}},
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused_before_a_policy_is_built(tmp_path, changes):
    path = tmp_path / "checkpoint_final.pt"
    checkpoints.save_checkpoint(path, changed(**changes))
    with pytest.raises(UserError, match=r"do not fit|no floating-point"):
        load_agent(checkpoints.load_checkpoint(path))


def test_every_kind_of_policy_has_the_shapes_of_its_meta_twin():
    for settings in ({}, {"baseline": True}, {"obs_encoding": "onehot", "lang_fusion": "film"}):
        checkpoint = make_checkpoint(**settings)
        with torch.device("meta"):
            expected = build_policy({"num_actions": 7} | checkpoint["config"]).state_dict()
        checkpoints.check_shapes(checkpoint["policy_state_dict"], expected)


def test_weights_whose_products_are_no_numbers_have_no_success_rate():
    checkpoint = changed()
    weights = {name: tensor * 1e30 for name, tensor in checkpoint["policy_state_dict"].items()}
    for baseline in (False, True):
        if baseline:
            checkpoint = make_checkpoint(baseline=True)
            weights = {name: tensor * 1e30 for name, tensor in checkpoint["policy_state_dict"].items()}
        agent = load_agent(checkpoint | {"policy_state_dict": weights})
        with pytest.raises(UserError, match="no finite numbers"):
            evaluate(agent, "BabyAI-GoToObj-v0", 4, max_steps=4, backend="minigrid")


def test_an_archive_that_is_larger_inside_than_outside_is_not_unpacked(tmp_path):
    path = tmp_path / "checkpoint_final.pt"
    buffer = io.BytesIO()
    torch.save(changed(), buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, bytes(50_000_000) if "/data/" in member.filename else source.read(member))
    assert path.stat().st_size < 6_000_000
    with pytest.raises(ArtifactError, match="it is compressed as no weights"):
        checkpoints.load_checkpoint(path)


def test_a_file_larger_than_any_checkpoint_is_not_read(tmp_path):
    path = tmp_path / "checkpoint_final.pt"
    path.touch()
    os.truncate(path, checkpoints.LARGEST_CHECKPOINT + 1)  # takes no room on the disk
    with pytest.raises(ArtifactError, match="are more than"):
        checkpoints.load_checkpoint(path)


@pytest.mark.parametrize("number", [np.int64(7), np.int32(7), np.uint8(7), np.dtype(">i8").type(7)])
def test_plain_numbers_of_numpy_are_numbers(tmp_path, number):
    path = tmp_path / "checkpoint_final.pt"
    torch.save(changed(config={"num_actions": number, "lr": np.float64(0.125), "normalize_lpc": np.True_}), path)
    config = checkpoints.load_checkpoint(path)["config"]
    assert type(config["num_actions"]) is int and config["num_actions"] == 7
    assert config["lr"] == 0.125 and config["normalize_lpc"] is True


class Malicious:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_other_things_of_numpy_are_refused(tmp_path):
    path = tmp_path / "checkpoint_final.pt"
    for thing in (
        np.zeros(3),
        np.array([Malicious(tmp_path / "executed")], object),
        np.datetime64(3, "s"),
        np.str_("a"),
    ):
        torch.save(changed(config={"note": thing}), path)
        with pytest.raises(ArtifactError, match=r"refused|damaged"):
            checkpoints.load_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_an_older_trainer_sees_the_pixels_that_it_was_trained_on(tmp_path, capsys):
    """Such a trainer fed `image.permute(2, 0, 1).flatten()`, and its config has no obs_encoding."""
    checkpoint = changed(config={"num_actions": np.int64(7), "num_envs": 16, "hidden_size": 128})
    del checkpoint["config"]["obs_encoding"], checkpoint["config"]["lang_fusion"]
    path = tmp_path / "checkpoint_final.pt"
    torch.save(checkpoint | {"optimizer_state_dict": {}, "update": 5000}, path)
    checkpoints._say_how_older_checkpoints_are_read.cache_clear()
    loaded = checkpoints.load_checkpoint(path)
    assert "channels first" in capsys.readouterr().err
    image = np.random.default_rng(0).integers(0, 9, (7, 7, 3))
    rest = np.random.default_rng(1).normal(size=37)
    before = checkpoint["policy_state_dict"]["input_projection.weight"].double().numpy()
    after = loaded["policy_state_dict"]["input_projection.weight"].double().numpy()
    expected = before @ np.concatenate([image.transpose(2, 0, 1).ravel(), rest])
    np.testing.assert_allclose(after @ np.concatenate([image.ravel(), rest]), expected, rtol=1e-12)
    load_agent(loaded)
    checkpoints.save_checkpoint(path, loaded)  # once read, it is one of today's
    again = checkpoints.load_checkpoint(path)["policy_state_dict"]["input_projection.weight"]
    assert torch.equal(again.double(), torch.from_numpy(after))


def test_a_checkpoint_insists_on_the_encoder_it_was_trained_with():
    """By what it says of a few missions, not by its name."""
    checkpoint = changed()
    probes = torch.from_numpy(load_agent(checkpoint).missions.encoder.probes)
    load_agent(checkpoint | {"lang_probes": probes})
    for others in (probes.flip(0), probes * 1.1, probes[:1], torch.zeros_like(probes)):
        with pytest.raises(UserError, match="other embeddings"):
            load_agent(checkpoint | {"lang_probes": others})
    with pytest.raises(UserError, match="lang_probes"):
        load_agent(checkpoint | {"lang_probes": "x"})
