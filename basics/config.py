"""config.yaml is the one definition of every hyperparameter: name, default, type and meaning. This file reads it,
makes command-line flags of it, and checks every value that comes in, from whichever side.

In config.yaml a line reads `name: default  # type: meaning`, where type is one of
    int | float | bool, with an optional bound (`>= 0`, `> 0`, `in [0, 1]`, `in (0, 1]`) and `or null`,
    or str, a text of one line; or name, a text that can name a folder; or names, several, as a list or with commas,
    or weights, a list of numbers > 0, or names and numbers > 0,
    or the allowed words, `fast | minigrid`,
    or `lists of int in [0, 4096]`, such as [[0, 16], [0, 32]]; one list alone is allowed too.

Keys indented below `baseline:` or `mixture:` concern that policy alone, those below `ppo:` learning from reward. One
that stands further up as well has another default there: it needs no second description. Comments at the left margin
are headings, in `--help` too.
"""

import argparse
import functools
import json
import math
import os
import re
import reprlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from basics.errors import UserError, did_you_mean
from basics.plain_yaml import parse_yaml

CONFIG_PATH = Path(__file__).parent.parent / "config.yaml"
POLICIES = {"baseline": "train.py", "mixture": "train_mop.py"}  # whom a key may concern, and the script that trains it
OBJECTIVES = ("imitation", "ppo")  # what is learned from
SECTIONS = (*POLICIES, "ppo")
DERIVED_KEYS = ("input_dim", "num_actions")  # stand in a checkpoint's config, but follow from the others
OWN_ENCODERS = ("parser", "words")  # values of lang_encoder that are no sentence encoder: they need no files
LARGEST_INT = 2**63 - 1  # what files and arrays can hold
MOST_CHARACTERS = 1000  # of a text
MOST_EXPERTS = 1000  # of all layers together
MOST_NAMES = 1000  # in a list

# What a checkpoint's config means where it lacks a key: the program before that key existed did this.
LEGACY_DEFAULTS = {
    "tasks": None,
    "task_weights": None,
    "seed": None,
    "objective": "imitation",
    "init_from": None,
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
    "extensions": None,
    "expert_kind": "gru",
    "router_kind": "gru",
    "normalize_layers": False,
    "match_keys": False,
    "repetition_penalty": 0.0,
}

LEGACY_VALUES = {"normalize_lpc": {False: "off", True: "detached"}}  # how older configs and habits write today's values

_LINE = re.compile(r"^(?P<indent> *)(?P<name>\w+):.*?\s#\s(?P<type>[^:]+):\s(?P<meaning>.+)$")
_HEADING = re.compile(r"^# (?P<heading>[^:]+)")
_BOUND = re.compile(r"^(?P<kind>int|float)(?: (?P<rule>>= -?[\d.]+|> -?[\d.]+|in [\[(][\d.]+, [\d.]+\]))?$")


def shown(value: Any) -> str:
    """Return `value` for an error message: short, on one line, whatever it is."""
    writer = reprlib.Repr()
    writer.maxlevel, writer.maxstring, writer.maxother = 3, 100, 100
    try:
        return " ".join(writer.repr(value).split())
    except ValueError:  # Python writes no numbers of more than 4,300 digits
        return f"a {type(value).__name__} of thousands of digits"


@dataclass(frozen=True)
class Key:
    """One line of config.yaml.

    Attributes:
        default: its value there.
        type: as written there, for people.
        heading: the comment that it stands under.
        policy: `baseline` or `mixture` where it concerns only that one, else None.
        objective: `ppo` where it concerns only that one, else None.
    """

    name: str
    default: Any
    type: str
    meaning: str
    heading: str = ""
    policy: str | None = None
    objective: str | None = None

    def check(self, value: Any) -> Any:
        """Return `value` as this key's type.

        Raises:
            UserError: it names the key, the value and what is allowed.
        """
        kind = self.type.removesuffix(" or null")
        if value is None and kind != self.type:
            return None
        value = todays_value(self.name, value)
        checked = _converted(kind, value)
        if checked is None:
            near = did_you_mean(str(value), kind.split(" | ")) if " | " in kind and isinstance(value, str) else ""
            meaning = f" ({self.name}: {self.meaning})" if self.meaning else ""
            raise UserError(f"{self.name} is {shown(value)}, expected {self.type}.{near}{meaning}")
        return checked


def todays_value(name: str, value: Any) -> Any:
    """Return what a key's value is called today (`LEGACY_VALUES`)."""
    return LEGACY_VALUES.get(name, {}).get(value, value) if isinstance(value, bool) else value


def _converted(kind: str, value: Any) -> Any:
    """Return `value` as `kind` says, or None where it does not fit."""
    if " | " in kind:
        return value if isinstance(value, str) and value in kind.split(" | ") else None
    if kind == "str":
        return value if is_text(value) else None
    if kind == "name":
        return value if is_name(value) else None
    if kind == "names":
        return _names(value)
    if kind == "weights":
        return _weights(value)
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind.startswith("lists of "):
        return _lists(kind.removeprefix("lists of "), value)
    bound = _BOUND.match(kind)
    if bound is None:
        raise ValueError(f"config.yaml: no such type: {kind!r}")
    number = _number(bound["kind"], value)
    return number if number is not None and (not bound["rule"] or _within(bound["rule"], number)) else None


def is_text(value: Any) -> bool:
    """Tell whether `value` is text of one line that every file can hold."""
    if not isinstance(value, str) or not 0 < len(value) <= MOST_CHARACTERS:
        return False
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value)


def is_name(value: Any) -> bool:
    """Tell whether `value` can be the name of a folder, and of nothing outside of the folder that it is meant for."""
    return is_text(value) and len(os.fsencode(value)) < 256 and not ({"/", "\\"} & set(value) or value in (".", ".."))


def _names(value: Any) -> list[str] | None:
    """Return a list of names, also of a text that names them with commas; None where `value` is nothing like that."""
    listed = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_NAMES or not all(map(is_name, listed)):
        return None
    return listed


def _weights(value: Any) -> list[float] | dict[str, float] | None:
    """Return numbers > 0, listed or by name, or None where `value` is nothing like that."""
    numbers = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(numbers, list) or not 0 < len(numbers) <= MOST_NAMES:
        return None
    if any(_converted("float > 0", number) is None for number in numbers) or not all(map(is_name, _keys(value))):
        return None
    return value


def _keys(value: Any) -> list:
    return list(value) if isinstance(value, dict) else []


def _number(kind: str, value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        return None
    if kind == "float":
        return float(value) if math.isfinite(value) else None
    return value if isinstance(value, int) else None


def _within(rule: str, number: float) -> bool:
    if rule.startswith(">="):
        return number >= float(rule[2:])
    if rule.startswith(">"):
        return number > float(rule[1:])
    low, high = (float(part) for part in rule[4:-1].split(","))
    return (low < number if rule[3] == "(" else low <= number) and number <= high


def _lists(kind: str, value: Any) -> list | None:
    """Return lists of numbers of a kind, at least one in each, or None where `value` is nothing like that."""

    def is_list(layer: Any) -> bool:
        return isinstance(layer, list) and 0 < len(layer) <= MOST_EXPERTS

    if not is_list(value):
        return None
    layers = [value] if not isinstance(value[0], list) else value
    if not all(map(is_list, layers)) or sum(map(len, layers)) > MOST_EXPERTS:
        return None
    return value if all(_converted(kind, number) is not None for layer in layers for number in layer) else None


@functools.cache
def _read_keys(path: Path) -> tuple[list[str], dict[str, dict[str, Key]]]:
    """Return the names of config.yaml's keys in its order, and the keys: those of no section (""), and of each."""
    text = path.read_text(encoding="utf-8")
    described, heading = {}, ""
    for line in text.splitlines():
        if match := _HEADING.match(line):
            heading = match["heading"].strip()
        elif match := _LINE.match(line):
            described.setdefault(match["name"], (match["type"].strip(), match["meaning"].strip(), heading))

    def key(name: str, default: Any, **concerns: str) -> Key:
        if name not in described:
            raise UserError(f"{path}: {name} needs a comment `# type: meaning` on its line")
        key = Key(name, default, *described[name], **concerns)
        return replace(key, default=key.check(default))

    values = parse_yaml(text)
    sections = {section: values.pop(section, None) or {} for section in SECTIONS}
    keys = {"": {name: key(name, values[name]) for name in values}}
    for section, own in sections.items():
        keys[section] = {}
        for name, default in own.items():
            policies = [policy for policy in POLICIES if name not in values and name in sections[policy]]
            concerns = {"policy": policies[0]} if policies else {} if name in values else {"objective": section}
            keys[section][name] = key(name, default, **concerns)
    return [*described], keys


def load_keys(policy: str | None = None, objective: str = OBJECTIVES[0], path: Path = CONFIG_PATH) -> dict[str, Key]:
    """Return config.yaml's keys by name, in its order, defaults checked against their own types.

    Args:
        policy: `baseline` or `mixture`: the keys that concern it, with its defaults. None: all keys.
        objective: the one whose defaults are wanted; keys that concern only the other are there too.
    """
    order, keys = _read_keys(path)
    found: dict[str, Key] = {}
    for section in ("", *SECTIONS):
        for name, key in keys[section].items():
            is_wanted = section in ("", policy, objective, key.policy, key.objective)  # the last two: it is only there
            if is_wanted and (policy is None or key.policy in (None, policy)):
                found[name] = key
    return {name: found[name] for name in order if name in found}


def near_keys(name: str, keys: Mapping[str, Key]) -> str:
    """As `did_you_mean`, also for who knows a key by other words: learning_rate is in the description of lr."""
    words = {word for word in re.split(r"\W|_", name.lower()) if word}
    meant = [key.name for key in keys.values() if words and words <= set(re.findall(r"\w+", key.meaning.lower()))]
    return did_you_mean(name, keys) if len(meant) != 1 else f" Did you mean {meant[0]!r}?"


def check_config(values: Mapping[str, Any], keys: Mapping[str, Key], source: str) -> dict[str, Any]:
    """Return `values` checked against `keys`.

    Raises:
        UserError: an unknown key (with the near misses) or a value its key does not allow; it names `source`.
    """
    checked = {}
    for name, value in values.items():
        if name not in keys:
            known = f"{near_keys(str(name), keys)} All keys: {', '.join(keys)}"
            raise UserError(f"{source}: unknown key {shown(name)}.{known}")
        try:
            checked[name] = keys[name].check(value)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
    return checked


def read_config_file(path: str, policy: str, objective: str | None = None) -> dict[str, Any]:
    """Return the checked contents of a YAML file that sets some keys: those for every policy, and those of this one.

    It may be laid out as config.yaml, or be the config of a checkpoint.

    Args:
        objective: whose section is wanted; None: that of the objective that the file names.

    Raises:
        UserError: it cannot be read, is no YAML mapping, or sets unknown keys or impossible values.
    """
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config file {path}: {error.strerror}") from None
    except ValueError as error:  # not YAML, or not UTF-8
        raise UserError(f"the config file {path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"the config file {path} must hold lines like `lr: 3.0e-4`")
    keys = load_keys()
    sections = {name: values.pop(name) or {} for name in SECTIONS if isinstance(values.get(name, 0), dict | None)}
    own = {name: check_config(section, keys, f"{path}, {name}") for name, section in sections.items()}
    values = {name: value for name, value in values.items() if name not in DERIVED_KEYS}
    values = check_config(values, keys, path)
    objective = objective or str(values.get("objective", keys["objective"].default))
    return values | own.get(policy, {}) | own.get(objective, {})


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are UserErrors, with near misses for unknown flags, and without abbreviated flags."""

    policy: str | None = None  # of a training script

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str):
        raise UserError(f"{message} (see --help)")

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].split("=")[0]
            name = flag.removeprefix("--")
            if self.policy is not None and name in load_keys():
                raise UserError(f"{flag} does not concern this script but the other kind of policy (see --help)")
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = did_you_mean(flag, flags)
            if self.policy is not None and "--" + name not in flags:
                near = near_keys(name, load_keys(self.policy)).replace("'", "'--", 1) or near
            raise UserError(f"unknown argument {flag!r}.{near} (see --help)")
        return parsed


def config_parser(description: str | None, policy: str) -> Parser:
    """Return a parser with `--config` and one flag per key of config.yaml that concerns `policy`."""
    parser = Parser(description=description)
    parser.policy = policy
    parser.add_argument("--config", metavar="PATH", help="a YAML file that sets some of the keys below")
    groups: dict[str, argparse._ArgumentGroup] = {}
    under_ppo = load_keys(policy, "ppo")
    for key in load_keys(policy).values():
        default = yaml_text(key.default)
        if under_ppo[key.name].default != key.default:
            default += f", with objective ppo {yaml_text(under_ppo[key.name].default)}"
        if key.heading not in groups:
            groups[key.heading] = parser.add_argument_group(key.heading)
        groups[key.heading].add_argument(
            f"--{key.name}",
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"{key.meaning} [{key.type}; default {default}]".replace("%", "%%"),
        )
    return parser


def yaml_text(value: Any) -> str:
    """Return a config value as config.yaml and the flags have it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def parse_config(arguments: argparse.Namespace, policy: str) -> tuple[dict[str, Any], list[str]]:
    """Return the whole config of a policy (config.yaml's defaults, then the file of `--config`, then the flags), and
    the names of the keys that file and flags set.

    A `--config` file may also set keys of the other policy; they are checked and left out.

    Raises:
        UserError: see `check_config`; or a flag concerns another objective than the run's.
    """
    keys = load_keys(policy)
    texts = {name: value for name, value in vars(arguments).items() if name in keys}
    flags = check_config({name: _flag_value(keys[name], text) for name, text in texts.items()}, keys, "command line")
    given = {}
    if arguments.config is not None:
        given = read_config_file(arguments.config, policy, flags.get("objective"))
    given |= flags
    given = {name: value for name, value in given.items() if name in keys}
    keys = load_keys(policy, given.get("objective", keys["objective"].default))
    config = {name: given.get(name, key.default) for name, key in keys.items()}
    for name in flags:
        if keys[name].objective not in (None, config["objective"]):
            raise UserError(f"--{name} concerns only --objective {keys[name].objective}, not {config['objective']}")
    return config, list(given)


def _flag_value(key: Key, text: str) -> Any:
    """Return what a flag's text means to a key; text that is no such YAML stays text, for `Key.check` to refuse."""
    if key.type.startswith(("str", "name")) and not (key.type.startswith("names") and text.startswith("[")):
        return None if text == "null" and key.type.endswith("or null") else text
    try:
        value = parse_yaml(text)
    except ValueError:
        return text
    return text if value is None and text.strip() not in ("null", "~") else value


def tasks_of(config: Mapping[str, Any]) -> list[str]:
    """Return the tasks that a config's policy is trained on: those of its set, or its only one."""
    return config["tasks"] or [config["task_id"]]


def legacy_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's config with every key that was invented after it was written (`LEGACY_DEFAULTS`), and
    values as they are called today."""
    return LEGACY_DEFAULTS | {name: todays_value(name, value) for name, value in config.items()}
