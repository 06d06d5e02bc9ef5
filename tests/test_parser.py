"""The parsed mission against minigrid's own instructions, which the missions were written from."""

import numpy as np
import pytest
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.envs.babyai.core import verifier

from basics.errors import UserError
from fast_babyai.reference import babyai_tasks, make_level_env, reset_level
from fast_babyai.rules import EVAL_SEED_OFFSET
from policy import parser
from policy.parser import mission_numbers

KINDS = {
    verifier.GoToInstr: "go to",
    verifier.OpenInstr: "open",
    verifier.PickupInstr: "pick up",
    verifier.PutNextInstr: "put",
}
LOCATIONS = {
    None: "anywhere",
    "front": "in front of you",
    "behind": "behind you",
    "left": "on your left",
    "right": "on your right",
}
ORDERS = {verifier.BeforeInstr: ("then", "instr_a", "instr_b"), verifier.AfterInstr: ("after", "instr_b", "instr_a")}


def structure(instruction):
    """The connective of minigrid's instruction, its actions that are due first, and those that come then."""

    def at_once(part):
        return [part.instr_a, part.instr_b] if isinstance(part, verifier.AndInstr) else [part]

    if type(instruction) not in ORDERS:
        return "none", at_once(instruction), []
    connective, first, then = ORDERS[type(instruction)]
    return connective, at_once(getattr(instruction, first)), at_once(getattr(instruction, then))


def descriptions(action):
    return [getattr(action, name) for name in ("desc", "desc_move", "desc_fixed") if hasattr(action, name)]


def numbers_of(instruction):
    """The layout written out place by place, from minigrid's objects."""
    connective, first, then = structure(instruction)
    numbers = []
    for action in [*[*first, None][:2], *[*then, None, None][:2]]:
        kind = KINDS.get(type(action))
        numbers += [action is not None, kind == "go to", kind == "open", kind == "pick up", kind == "put"]
        for description in [*descriptions(action), None, None][:2]:
            if description is None:
                numbers += [0] * 18
                continue
            kind, color, location = description.type or "object", description.color or "any", description.loc
            numbers += [1, *(kind == each for each in ("object", "door", "key", "ball", "box"))]
            numbers += [color == each for each in ("red", "green", "blue", "purple", "yellow", "grey", "any")]
            numbers += [LOCATIONS[location] == each for each in parser.LOCATIONS]
    return np.array([*numbers, *(connective == each for each in ("none", "then", "after"))], np.float32)


@pytest.mark.parametrize("task", babyai_tasks())
def test_every_tasks_missions_are_read_as_minigrid_means_them(task):
    env = make_level_env(task)
    for level_seed in [*range(12), *range(EVAL_SEED_OFFSET, EVAL_SEED_OFFSET + 8)]:
        reset_level(env, level_seed)
        numbers = mission_numbers(env.mission)
        assert numbers.dtype == np.float32 and numbers.shape == (167,)
        np.testing.assert_array_equal(numbers, numbers_of(env.instrs), err_msg=env.mission)


def test_all_forms_of_missions_are_read_as_minigrid_means_them():
    env, sequences, locations = make_level_env("BabyAI-BossLevel-v0"), set(), set()
    for level_seed in range(300):
        reset_level(env, level_seed)
        np.testing.assert_array_equal(mission_numbers(env.mission), numbers_of(env.instrs), err_msg=env.mission)
        connective, first, then = structure(env.instrs)
        sequences.add((connective, len(first), len(then)))
        locations |= {description.loc for action in [*first, *then] for description in descriptions(action)}
    ordered = {(connective, a, b) for connective in ("then", "after") for a in (1, 2) for b in (1, 2)}
    assert sequences == ordered | {("none", 1, 0), ("none", 2, 0)} and locations == LOCATIONS.keys()


def test_a_mission_worked_by_hand():
    numbers = mission_numbers(
        "put a grey key next to the ball on your left after you open the door and go to a red object"
    )
    assert np.flatnonzero(numbers).tolist() == [
        0, 2, 5, 7, 17, 18,  # open the door, of any color, anywhere
        41 + 0, 41 + 1, 41 + 5, 41 + 6, 41 + 11, 41 + 18,  # go to a red object
        82 + 0, 82 + 4, 82 + 5, 82 + 8, 82 + 16, 82 + 18, 82 + 23, 82 + 27, 82 + 35, 82 + 39,  # put ... next to ...
        164 + 2,
    ]  # fmt: skip


def test_types_and_colors_are_in_minigrids_order():
    assert {color: parser.COLORS.index(color) for color in COLOR_TO_IDX} == COLOR_TO_IDX
    first = OBJECT_TO_IDX["door"] - parser.TYPES.index("door")
    assert [OBJECT_TO_IDX[name] for name in parser.TYPES[1:]] == list(range(first + 1, first + len(parser.TYPES)))
    assert (parser.MISSION_SIZE, parser.ACTION_SIZE, parser.DESCRIPTION_SIZE) == (167, 41, 18)


@pytest.mark.parametrize(
    "mission",
    [
        "",
        "go to the red bal",
        "go to the pink ball",
        "go to red ball",
        "go  to the red ball",
        "go to the red ball ",
        "dance",
        "put the red ball",
        "go to the red ball next to the key",
        "put the red ball next to the key next to the box",
        "go to the red ball and go to the key and go to the box",
        "go to the red ball, then go to the key, then go to the box",
        "go to the ball after you go to the key after you go to the box",
        "go to the ball, then go to the key after you go to the box",
        "go to the red ball\n",
        "go to the ball on your left on your right",
    ],
)
def test_what_is_no_mission_is_refused_by_name(mission):
    with pytest.raises(UserError, match="BabyAI's grammar") as error:
        mission_numbers(mission)
    assert repr(mission) in str(error.value)
