"""A mission's own structure as numbers: `lang_encoder: parser`.

BabyAI writes its missions by a small grammar (Chevalier-Boisvert et al. 2019, arXiv 1810.08272, figure 2); here it is
read back, and every mission becomes MISSION_SIZE = 167 numbers, 0 or 1:

    4 actions, ACTION_SIZE = 41 each, in the order in which they are due: two places for what is to be done first, two
    for what comes then; two actions joined by "and" stand as they are mentioned, and a single one in the first place
        present              1
        kind                 4    KINDS, one-hot
        description          18   of what the action is about
        description          18   of what that is to be put next to
    connective               3    CONNECTIVES, one-hot; "B after you A" has its actions where "A, then B" has them

    a description, DESCRIPTION_SIZE = 18
        present              1
        type                 5    TYPES, one-hot
        color                7    COLORS, one-hot
        location             5    LOCATIONS, one-hot

What is not there is zeros throughout.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from basics.errors import UserError
from policy.missions import MissionEncoder

KINDS = ("go to", "open", "pick up", "put")
TYPES = ("object", "door", "key", "ball", "box")  # from door on in the order of minigrid's OBJECT_TO_IDX
COLORS = ("red", "green", "blue", "purple", "yellow", "grey", "any")  # in the order of minigrid's COLOR_TO_IDX
LOCATIONS = ("anywhere", "in front of you", "behind you", "on your left", "on your right")  # from where one starts
CONNECTIVES = ("none", "then", "after")

MISSION_ACTIONS = 4
ACTIONS_TOGETHER = 2  # places of what is to be done first, and of what comes then
ACTION_DESCRIPTIONS = 2

TYPE_START = 1  # within a description
COLOR_START = TYPE_START + len(TYPES)
LOCATION_START = COLOR_START + len(COLORS)
DESCRIPTION_SIZE = LOCATION_START + len(LOCATIONS)

KIND_START = 1  # within an action
DESCRIPTIONS_START = KIND_START + len(KINDS)
ACTION_SIZE = DESCRIPTIONS_START + ACTION_DESCRIPTIONS * DESCRIPTION_SIZE

CONNECTIVE_START = MISSION_ACTIONS * ACTION_SIZE  # within a mission
MISSION_SIZE = CONNECTIVE_START + len(CONNECTIVES)


class Description(NamedTuple):
    """What a mission says of an object: one of TYPES, of COLORS and of LOCATIONS."""

    type: str
    color: str = "any"
    location: str = "anywhere"


class Action(NamedTuple):
    """One of KINDS, and what it is about: one description, or two where something is put next to something."""

    kind: str
    descriptions: tuple[Description, ...]


class Mission(NamedTuple):
    """What is to be done first (one action or two), what comes then (none, one or two), and one of CONNECTIVES."""

    first: tuple[Action, ...]
    then: tuple[Action, ...]
    connective: str


_DESCRIPTION = re.compile(
    rf"(?:a|the) (?:({'|'.join(COLORS[:-1])}) )?({'|'.join(TYPES)})(?: ({'|'.join(LOCATIONS[1:])}))?"
)


def parse(mission: str) -> Mission:
    """Return the structure of a mission's text.

    Raises:
        UserError: it is no mission of BabyAI's grammar.
    """
    try:
        if ", then " in mission:
            first, then = mission.split(", then ")
            return Mission(_actions(first), _actions(then), "then")
        if " after you " in mission:
            then, first = mission.split(" after you ")
            return Mission(_actions(first), _actions(then), "after")
        return Mission(_actions(mission), (), "none")
    except ValueError:
        raise UserError(
            f"lang_encoder parser: the mission {mission!r} is not of BabyAI's grammar; `lang_encoder: words` or a"
            " sentence encoder may read it"
        ) from None


def _actions(text: str) -> tuple[Action, ...]:
    """Return one action, or two joined by "and".

    Raises:
        ValueError: it is anything else.
    """
    actions = text.split(" and ")
    if len(actions) > ACTIONS_TOGETHER:
        raise ValueError(f"{len(actions)} actions at once: {text}")
    return tuple(map(_action, actions))


def _action(text: str) -> Action:
    kind = next((kind for kind in KINDS if text.startswith(f"{kind} ")), None)
    if kind is None:
        raise ValueError(f"no action: {text}")
    objects = text.removeprefix(f"{kind} ").split(" next to ")
    if len(objects) != (2 if kind == "put" else 1):
        raise ValueError(f"{kind} with {len(objects)} objects: {text}")
    return Action(kind, tuple(map(_description, objects)))


def _description(text: str) -> Description:
    match = _DESCRIPTION.fullmatch(text)
    if match is None:
        raise ValueError(f"no description: {text}")
    color, type_, location = match.groups()
    return Description(type_, color or "any", location or "anywhere")


def mission_numbers(mission: str) -> np.ndarray:
    """Return a mission's structure as float32 [MISSION_SIZE] (see the module's docstring).

    Raises:
        UserError: it is no mission of BabyAI's grammar.
    """
    first, then, connective = parse(mission)
    numbers = np.zeros(MISSION_SIZE, np.float32)
    numbers[CONNECTIVE_START + CONNECTIVES.index(connective)] = 1
    slots = numbers[:CONNECTIVE_START].reshape(MISSION_ACTIONS, ACTION_SIZE)
    for place, actions in ((0, first), (ACTIONS_TOGETHER, then)):
        for slot, action in zip(slots[place:], actions, strict=False):
            slot[0] = 1
            slot[KIND_START + KINDS.index(action.kind)] = 1
            described = slot[DESCRIPTIONS_START:].reshape(ACTION_DESCRIPTIONS, DESCRIPTION_SIZE)
            for part, description in zip(described, action.descriptions, strict=False):
                part[0] = 1
                part[TYPE_START + TYPES.index(description.type)] = 1
                part[COLOR_START + COLORS.index(description.color)] = 1
                part[LOCATION_START + LOCATIONS.index(description.location)] = 1
    return numbers


class MissionParser(MissionEncoder):
    """`mission_numbers` as an encoder: it needs no model, no files and next to no time."""

    name, embed_dim = "parser", MISSION_SIZE

    def embed(self, missions: Iterable[str]) -> np.ndarray:
        return np.array([mission_numbers(mission) for mission in missions], np.float32).reshape(-1, MISSION_SIZE)
