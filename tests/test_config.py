"""config.yaml as the one definition: every key documented, every wrong value named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from basics.config import Key, check_config, config_parser, legacy_config, load_keys, parse_config, read_config_file
from basics.errors import UserError, did_you_mean

ROOT = Path(__file__).parent.parent


def test_every_key_has_a_type_and_a_meaning_and_a_default_that_fits():
    keys = load_keys()
    assert len(keys) > 30
    for key in keys.values():
        assert key.meaning and key.check(key.default) == key.default


def test_a_key_without_its_comment_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("lr: 0.1\n")
    with pytest.raises(UserError, match="lr needs a comment"):
        load_keys(path=path)


@pytest.mark.parametrize(
    ("type", "good", "bad"),
    [
        ("int >= 1", [1, 7], [0, -1, 1.0, "3", True, None]),
        ("int >= 0 or null", [0, None, 2**63 - 1], [-1, "null", 2**63, 10**5000]),
        ("float > 0", [1, 0.5], [0, -1.0, "x", "1e-3", 10**400, float("nan"), float("inf"), True]),
        ("float in [0, 1]", [0, 1, 0.5], [-0.1, 1.1]),
        ("float in (0, 1]", [1, 0.5], [0]),
        ("bool", [True, False], [0, 1, "yes"]),
        ("str", ["a", "ä b"], ["", 3, None, "a\0", "a\r", "a\nb", "\udcff", "a" * 1001, "\u2028"]),
        ("name", ["BabyAI-GoTo-v0", "a..b"], ["", "..", ".", "../a", "a/b", "a\\b", "a\0", "ä" * 128]),
        ("str or null", ["a", None], [3]),
        ("fast | minigrid", ["fast"], ["slow", None, 1]),
        ("lists of int >= 0", [[0, 16], [[0], [16, 32]]], [[], [[]], [0, [16]], [[-1]], [[1.5]], 16, "[16]", [[True]]]),
    ],
)
def test_types(type, good, bad):
    key = Key("name", None, type, "meaning")
    for value in good:
        checked = key.check(value)
        assert checked == (float(value) if type.startswith("float") else value)
    for value in bad:
        with pytest.raises(UserError, match="name is"):
            key.check(value)


def test_flags_override_the_file_which_overrides_the_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 3e-4\nnum_envs: 8\nhidden_size: 32\n")
    arguments = config_parser("", "mixture").parse_args(
        ["--config", str(path), "--num_envs", "4", "--seed", "null", "--expert_hidden_sizes", "[0, 8]"]
    )
    config, given = parse_config(arguments, "mixture")
    assert (config["lr"], config["num_envs"], config["seed"]) == (3e-4, 4, None)
    assert config["expert_hidden_sizes"] == [0, 8]
    assert sorted(given) == ["expert_hidden_sizes", "lr", "num_envs", "seed"]
    assert "hidden_size" not in config
    assert config.keys() == load_keys("mixture").keys()


def test_files_are_utf_8_whatever_the_locale(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("checkpoint_dir: läufe\n", encoding="utf-8")
    program = "import sys; from basics.config import *; print(ascii(read_config_file(sys.argv[1], 'mixture')))"
    only_ascii = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    result = subprocess.run(
        [sys.executable, "-c", program, path], cwd=ROOT, env=os.environ | only_ascii, capture_output=True, text=True
    )
    assert result.stdout == "{'checkpoint_dir': 'l\\xe4ufe'}\n", result.stderr


def test_wrong_keys_and_files_are_named(tmp_path):
    keys = load_keys()
    with pytest.raises(UserError, match="unknown key 'lern_rate'"):
        check_config({"lern_rate": 1}, keys, "somewhere")
    with pytest.raises(UserError, match=r"'unroll_len'"):
        check_config({"unrol_len": 1}, keys, "somewhere")
    broken = tmp_path / "broken.yaml"
    broken.write_text("lr: [1")
    with pytest.raises(UserError, match="is not YAML"):
        read_config_file(str(broken), "mixture")


def test_near_misses():
    tasks = ["BabyAI-GoTo-v0", "BabyAI-Open-v0"]
    assert did_you_mean("babyai-goto-v0", tasks).startswith(" Did you mean 'BabyAI-GoTo-v0'")
    assert did_you_mean("zzz", ["BabyAI-GoTo-v0"]) == ""


def test_old_configs_mean_what_the_program_did_then():
    config = legacy_config({"task_id": "t", "lang_dim": 16})
    assert config["obs_encoding"] == "raw" and config["lang_fusion"] == "concat" and config["seed"] is None
    assert config["lang_encoder"] == "distilbert-base-uncased" and config["lang_dim"] == 16
    forms = [legacy_config({"normalize_lpc": value})["normalize_lpc"] for value in (False, True, "attached")]
    assert forms == ["off", "detached", "attached"]


def parsed(*flags, policy="mixture"):
    return parse_config(config_parser("", policy).parse_args(list(flags)), policy)[0]


def test_each_policy_has_its_own_defaults():
    assert parsed(policy="baseline")["lr"] == 3e-3 and parsed()["lr"] == 1e-2
    assert "hidden_size" in parsed(policy="baseline") and "hidden_size" not in parsed()
    assert {key.policy for key in load_keys("mixture").values()} == {None, "mixture"}
    assert next(iter(load_keys().values())).heading.startswith("What to train")


def test_a_config_file_may_be_laid_out_as_config_yaml_or_come_from_a_checkpoint(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 0.5\nbaseline:\n  lr: 0.25\n  hidden_size: 3\nmixture: null\ninput_dim: 152\nnum_actions: 7\n")
    baseline = parsed("--config", str(path), policy="baseline")
    assert (baseline["lr"], baseline["hidden_size"]) == (0.25, 3)
    assert parsed("--config", str(path))["lr"] == 0.5
    copied = Path(__file__).parent.parent / "config.yaml"
    assert parsed("--config", str(copied)) == parsed()


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("seed", "010", 10), ("seed", "null", None), ("lr", "1e-3", 1e-3), ("trial", "7", 7), ("lr", "3", 3.0),
        ("normalize_lpc", "true", "detached"), ("normalize_lpc", "attached", "attached"),
        ("expert_hidden_sizes", "[0, 8]", [0, 8]), ("wandb_project", "null", None),
    ],
)  # fmt: skip
def test_flags_mean_what_they_look_like(flag, text, value):
    assert parsed(f"--{flag}", text)[flag] == value


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("seed", "2024-13-45"), ("seed", "!!int abc"), ("seed", "9" * 5000), ("seed", "[" * 5000), ("seed", str(2**63)),
        ("seed", ""), ("seed", "# none"), ("seed", "1_000"), ("trial", str(10**30)), ("lr", "1:30.5"), ("lr", ".nan"),
        ("hidden_size", str(10**9)), ("expert_hidden_sizes", f"[{10**9}]"), ("normalize_lpc", "no"), ("lr", "&a 1"),
        ("expert_hidden_sizes", str([0] * 2000)), ("task_id", "../precious"), ("checkpoint_dir", "a\0b"),
    ],
)  # fmt: skip
def test_other_flags_are_refused_in_one_line(flag, text):
    with pytest.raises(UserError, match=flag) as refused:
        parsed(f"--{flag}", text, policy="baseline" if flag == "hidden_size" else "mixture")
    assert len(str(refused.value)) < 500 and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"lr: 1\nlr: 2\n", "lr stands there twice"),
        (b"lr: !!python/name:os.system\n", "tags"),
        (b"lr: &a 1\nseed: *a\n", "anchors"),
        (b"lr: " + b"[" * 9000, "nested too deeply"),
        (b"\xff\xfe", "is not YAML"),
        (b"? [1]\n: 2\n", "is not YAML"),
        (b"lr\n", "must hold lines like"),
        (b"mixture: 3\n", "unknown key 'mixture'"),
        (b"mixture:\n  hidden_sise: 3\n", "mixture: unknown key 'hidden_sise'"),
        (b"1: 2\n", "unknown key 1"),
    ],
)
def test_hostile_config_files_are_refused_in_one_line(tmp_path, content, expected):
    path = tmp_path / "hostile.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as refused:
        read_config_file(str(path), "mixture")
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_config_files_are_utf8_in_every_locale(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("checkpoint_dir: größe\n", encoding="utf-8")
    code = f"from basics.config import *; print(ascii(read_config_file({str(path)!r}, 'mixture')))"
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    root = Path(__file__).parent.parent
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=root)
    assert "gr\\xf6\\xdfe" in shown.stdout, shown.stderr


def test_a_key_is_found_by_what_it_means():
    with pytest.raises(UserError, match="Did you mean '--lr'"):
        config_parser("", "mixture").parse_args(["--learning_rate", "1"])
    with pytest.raises(UserError, match="Did you mean 'lr'"):
        check_config({"learning_rate": 1}, load_keys(), "somewhere")
    with pytest.raises(UserError, match="other kind of policy"):
        config_parser("", "mixture").parse_args(["--hidden_size", "1"])
