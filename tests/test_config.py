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
        load_keys(path)


@pytest.mark.parametrize(
    ("type", "good", "bad"),
    [
        ("int >= 1", [1, 7], [0, -1, 1.0, "3", True, None]),
        ("int >= 0 or null", [0, None], [-1, "null"]),
        ("float > 0", [1, 0.5, "1e-3"], [0, -1.0, "x", float("nan"), float("inf"), True]),
        ("float in [0, 1]", [0, 1, 0.5], [-0.1, 1.1]),
        ("float in (0, 1]", [1, 0.5], [0]),
        ("bool", [True, False], [0, 1, "yes"]),
        ("str", ["a"], ["", 3, None]),
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
    arguments = config_parser("", without=["hidden_size"]).parse_args(
        ["--config", str(path), "--num_envs", "4", "--seed", "null", "--expert_hidden_sizes", "[0, 8]"]
    )
    config, given = parse_config(arguments, without=["hidden_size"])
    assert (config["lr"], config["num_envs"], config["seed"]) == (3e-4, 4, None)
    assert config["expert_hidden_sizes"] == [0, 8]
    assert sorted(given) == ["expert_hidden_sizes", "lr", "num_envs", "seed"]
    assert "hidden_size" not in config
    assert config.keys() | {"hidden_size"} == load_keys().keys()


def test_files_are_utf_8_whatever_the_locale(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("checkpoint_dir: läufe\n", encoding="utf-8")
    program = "import sys; from basics.config import *; print(ascii(read_config_file(sys.argv[1], load_keys())))"
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
        read_config_file(str(broken), keys)


def test_near_misses():
    tasks = ["BabyAI-GoTo-v0", "BabyAI-Open-v0"]
    assert did_you_mean("babyai-goto-v0", tasks).startswith(" Did you mean 'BabyAI-GoTo-v0'")
    assert did_you_mean("zzz", ["BabyAI-GoTo-v0"]) == ""


def test_old_configs_mean_what_the_program_did_then():
    config = legacy_config({"task_id": "t", "lang_dim": 16})
    assert config["obs_encoding"] == "raw" and config["lang_fusion"] == "concat" and config["seed"] is None
    assert config["lang_encoder"] == "distilbert-base-uncased" and config["lang_dim"] == 16
