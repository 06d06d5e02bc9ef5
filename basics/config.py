"""config.yaml is the one definition of every hyperparameter: name, default, type and meaning. This file reads it,
makes command-line flags of it, and checks every value that comes in, from whichever side.

In config.yaml a line reads `name: default  # type: meaning`, where type is one of
    int | float | str | bool, with an optional bound (`>= 0`, `> 0`, `in [0, 1]`, `in (0, 1]`) and `or null`,
    or the allowed words, `fast | minigrid`,
    or `lists of int >= 0`, such as [[0, 16], [0, 32]]; one list alone is allowed too.
"""

import argparse
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from basics.errors import UserError, did_you_mean

CONFIG_PATH = Path(__file__).parent.parent / "config.yaml"

# What a checkpoint's config means where it lacks a key: the program before that key existed did this.
LEGACY_DEFAULTS = {
    "seed": None,
    "backend": "minigrid",
    "max_steps": None,
    "bot_share": 0.0,
    "obs_encoding": "raw",
    "lang_fusion": "concat",
    "lang_encoder": "distilbert-base-uncased",
    "lang_dim": 32,
    "intermediate_dim": 64,
    "router_hidden_size": 64,
    "num_actions": 7,
}

_LINE = re.compile(r"^(?P<name>\w+):.*?\s#\s(?P<type>[^:]+):\s(?P<meaning>.+)$")
_BOUND = re.compile(r"^(?P<kind>int|float) (?P<rule>>= -?[\d.]+|> -?[\d.]+|in [\[(][\d.]+, [\d.]+\])$")


@dataclass(frozen=True)
class Key:
    """One line of config.yaml.

    Attributes:
        type: as written there, for people.
        default: its value there.
    """

    name: str
    default: Any
    type: str
    meaning: str

    def check(self, value: Any) -> Any:
        """Return `value` as this key's type.

        Raises:
            UserError: it names the key, the value and what is allowed.
        """
        kind = self.type.removesuffix(" or null")
        if value is None and kind != self.type:
            return None
        checked = _converted(kind, value)
        if checked is None:
            near = did_you_mean(str(value), kind.split(" | ")) if " | " in kind else ""
            raise UserError(f"{self.name} is {value!r}, expected {self.type}.{near} ({self.name}: {self.meaning})")
        return checked


def _converted(kind: str, value: Any) -> Any:
    """Return `value` as `kind` says, or None where it does not fit."""
    if " | " in kind:
        return value if isinstance(value, str) and value in kind.split(" | ") else None
    if kind == "str":
        return value if isinstance(value, str) and value else None
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind == "lists of int >= 0":
        return _sizes(value)
    bound = _BOUND.match(kind)
    if bound is None:
        raise ValueError(f"config.yaml: no such type: {kind!r}")
    number = _number(bound["kind"], value)
    return number if number is not None and _within(bound["rule"], number) else None


def _number(kind: str, value: Any) -> int | float | None:
    if isinstance(value, str) and kind == "float":  # YAML reads 1e-3, without a point, as text
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if kind == "float":
        return float(value)
    return value if isinstance(value, int) else None


def _within(rule: str, number: float) -> bool:
    if rule.startswith(">="):
        return number >= float(rule[2:])
    if rule.startswith(">"):
        return number > float(rule[1:])
    low, high = (float(part) for part in rule[4:-1].split(","))
    return (low < number if rule[3] == "(" else low <= number) and number <= high


def _sizes(value: Any) -> list | None:
    """Return lists of whole numbers >= 0, at least one in each, or None where `value` is nothing like that."""

    def is_layer(layer: Any) -> bool:
        return isinstance(layer, list) and bool(layer) and all(type(size) is int and size >= 0 for size in layer)

    if is_layer(value) or (isinstance(value, list) and value and all(is_layer(layer) for layer in value)):
        return value
    return None


def load_keys(path: Path = CONFIG_PATH) -> dict[str, Key]:
    """Return config.yaml's keys by name, in its order, defaults checked against their own types."""
    text = path.read_text(encoding="utf-8")
    keys = {}
    described = {match["name"]: match for match in map(_LINE.match, text.splitlines()) if match}
    for name, default in yaml.safe_load(text).items():
        if name not in described:
            raise UserError(f"{path}: {name} needs a comment `# type: meaning` on its line")
        key = Key(name, default, described[name]["type"].strip(), described[name]["meaning"].strip())
        keys[name] = Key(name, key.check(default), key.type, key.meaning)
    return keys


def check_config(values: Mapping[str, Any], keys: Mapping[str, Key], source: str) -> dict[str, Any]:
    """Return `values` checked against `keys`.

    Raises:
        UserError: an unknown key (with the near misses) or a value its key does not allow; it names `source`.
    """
    checked = {}
    for name, value in values.items():
        if name not in keys:
            known = f"{did_you_mean(str(name), keys)} All keys: {', '.join(keys)}"
            raise UserError(f"{source}: unknown key {name!r}.{known}")
        try:
            checked[name] = keys[name].check(value)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
    return checked


def read_config_file(path: str, keys: Mapping[str, Key]) -> dict[str, Any]:
    """Return the checked contents of a YAML file that sets some keys.

    Raises:
        UserError: it cannot be read, is no YAML mapping, or sets unknown keys or impossible values.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the config file {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"the config file {path} must hold lines like `lr: 3.0e-4`")
    return check_config(values, keys, path)


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are UserErrors, with near misses for unknown flags, and without abbreviated flags."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str):
        raise UserError(f"{message} (see --help)")

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].split("=")[0]
            if flag.removeprefix("--") in load_keys():
                raise UserError(f"{flag} does not concern this script but the other kind of policy (see --help)")
            flags = [flag for action in self._actions for flag in action.option_strings]
            raise UserError(f"unknown argument {flag!r}.{did_you_mean(flag, flags)} (see --help)")
        return parsed


def config_parser(description: str | None, without: Iterable[str] = ()) -> Parser:
    """Return a parser with `--config` and one flag per key of config.yaml, except those that this script leaves out."""
    parser = Parser(description=description)
    parser.add_argument("--config", metavar="PATH", help="a YAML file that sets some of the keys below")
    group = parser.add_argument_group("hyperparameters (defaults from config.yaml)")
    for key in load_keys().values():
        if key.name not in without:
            default = yaml.safe_dump(key.default, default_flow_style=True).removesuffix("...\n").strip()
            group.add_argument(
                f"--{key.name}",
                metavar="VALUE",
                default=argparse.SUPPRESS,
                help=f"{key.meaning} [{key.type}; default {default}]".replace("%", "%%"),
            )
    return parser


def parse_config(arguments: argparse.Namespace, without: Iterable[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Return the whole config (config.yaml's defaults, then the file of `--config`, then the flags), and the names of
    the keys that file and flags set.

    Keys in `without` belong to another script and are left out; a `--config` file may still set them.

    Raises:
        UserError: see `check_config`.
    """
    keys = load_keys()
    given = {} if arguments.config is None else read_config_file(arguments.config, keys)
    flags = {name: value for name, value in vars(arguments).items() if name in keys}
    given |= check_config({name: _flag_value(keys[name], text) for name, text in flags.items()}, keys, "command line")
    config = {name: key.default for name, key in keys.items()} | given
    return {name: config[name] for name in keys if name not in without}, [name for name in given if name not in without]


def _flag_value(key: Key, text: str) -> Any:
    if key.type.startswith("str") and text != "null":
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def legacy_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's config with every key that was invented after it was written (`LEGACY_DEFAULTS`)."""
    return LEGACY_DEFAULTS | dict(config)
