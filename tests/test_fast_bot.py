"""The compiled bot against `BabyAIBot`: every task, and levels made up to lead both into their rarest corners."""

import numpy as np
import pytest
from differential import STUDENTS, choose_action
from minigrid.core.world_object import Ball, Box, Door, Key
from minigrid.envs.babyai.core import verifier
from numba import njit

from fast_babyai import bot as fast_bot
from fast_babyai import due_action as fast_due_action
from fast_babyai import dynamics
from fast_babyai.bot import BOT
from fast_babyai.levels import level_of
from fast_babyai.reference import (
    BoundedBot,
    ask_bot,
    babyai_tasks,
    bot_solution_steps,
    due_action,
    make_level_env,
    reset_level,
)
from fast_babyai.rules import NO_ACTION
from fast_babyai.state import ENV

LARGE_TASKS = ["BabyAI-GoTo-v0", "BabyAI-BossLevel-v0", "BabyAI-SynthSeq-v0", "BabyAI-KeyCorridor-v0"]
SMALL_TASKS = [
    "BabyAI-MiniBossLevel-v0",
    "BabyAI-SynthS5R2-v0",
    "BabyAI-KeyCorridorS3R3-v0",
    "BabyAI-UnlockPickup-v0",
    "BabyAI-GoToObjMazeS4-v0",
    "BabyAI-MoveTwoAcrossS5N2-v0",
    "BabyAI-PutNextLocal-v0",
]
UNSOLVABLE_TASKS = ["BabyAI-KeyInBox-v0", "BabyAI-PutNextS5N2Carrying-v0"]  # a plan that never settles, a failed one
OBJECT_TYPES = {"key": Key, "ball": Ball, "box": Box}


@njit
def begin(env, bot, level):
    dynamics.start_level(env, level)
    dynamics.take_in_hand(env, level)
    fast_bot.reset_bot(env, bot)


@njit
def solution_steps(env, bot, level):
    begin(env, bot, level)
    return fast_bot.bot_solution_steps(env, bot)


@pytest.fixture(scope="module")
def fast():
    """An ENV and a BOT record."""
    return np.zeros(1, ENV)[0], np.zeros(1, BOT)[0]


def walk(level_env, fast, student: str, seed: int, max_episode_steps: int) -> str:
    """Let a student walk in minigrid's `level_env` and its compiled twin; check every label and every step.

    Returns: "no plan" or "over" or "going on", which says how it went.
    """
    env, bot = fast
    begin(env, bot, np.array([level_of(level_env, seed)])[0])
    python_bot, chooser, action = BoundedBot(level_env), np.random.default_rng(seed), NO_ACTION
    for _ in range(max_episode_steps):
        label = ask_bot(python_bot, None if action == NO_ACTION else action)
        plan = f"{level_env.mission}, step {level_env.step_count}, {student} {seed}: {python_bot.stack}"
        assert fast_bot.replan(env, bot, action) == (NO_ACTION if label is None else label), plan
        if label is None:
            return "no plan"
        assert fast_due_action.due_action(env, bot) == due_action(python_bot), plan
        action = choose_action(student, chooser, level_env, label)
        _, *outcome, _ = level_env.step(action)
        assert dynamics.step(env, action) == tuple(outcome), plan
        if any(outcome[1:]):
            return "over"
    return "going on"


def make_up(level_env, chooser: np.random.Generator) -> None:
    """Fill the level that `level_env` was just reset to with a random crowd, random doors and a random mission."""
    colors = chooser.choice(["red", "green", "grey"], chooser.integers(1, 4), replace=False).tolist()
    density = chooser.choice([0, 0.05, 0.15, 0.4, 0.7])
    inside = [(x, y) for x in range(1, level_env.width - 1) for y in range(1, level_env.height - 1)]
    room = level_env.room_size - 1
    free, new_objects = [], 25
    for x, y in chooser.permutation(inside).tolist():
        cell, color, luck = level_env.grid.get(x, y), str(chooser.choice(colors)), chooser.random()
        if cell is None and luck < density and new_objects and (x, y) != tuple(level_env.agent_pos):
            level_env.put_obj(OBJECT_TYPES[str(chooser.choice(list(OBJECT_TYPES)))](color), x, y)
            new_objects -= 1
        elif cell is None:
            free.append((x, y))
        elif cell.type == "door" or (cell.type == "wall" and (x % room == 0) != (y % room == 0) and luck < 0.03):
            state = chooser.choice(["open", "closed", "closed", "locked"])
            level_env.put_obj(Door(color, is_open=state == "open", is_locked=state == "locked"), x, y)
            free += [(x, y)] * 3 if state == "open" else []
        elif cell.type == "box" and luck < 0.3:
            cell.contains = Key(color)
    level_env.agent_pos = free[chooser.integers(len(free))]
    level_env.agent_dir = int(chooser.integers(4))
    level_env.instrs = _random_instruction(level_env, chooser, colors)
    level_env.instrs.reset_verifier(level_env)
    level_env.mission = repr([vars(desc) for desc in _descriptions(level_env.instrs)])
    level_env.max_steps = 500


def _random_instruction(level_env, chooser, colors: list[str]):
    def description(*types):
        for _ in range(30):  # most often one that matches something
            desc = verifier.ObjDesc(
                types[chooser.integers(len(types))],
                chooser.choice([*colors, None]),
                chooser.choice(verifier.LOC_NAMES) if chooser.random() < 0.3 else None,
            )
            if desc.find_matching_objs(level_env)[0]:
                break
        return desc

    def action():
        kind, strict = chooser.integers(4), bool(chooser.random() < 0.15)
        anything, movable = (None, "box", "ball", "key", "door"), (None, "box", "ball", "key")
        if kind == 0:
            return verifier.GoToInstr(description(*anything))
        if kind == 1:
            return verifier.OpenInstr(description("door"), strict)
        if kind == 2:
            return verifier.PickupInstr(description(*movable), strict)
        return verifier.PutNextInstr(description(*movable), description(*anything), strict)

    def one_or_two_actions():
        return verifier.AndInstr(action(), action()) if chooser.random() < 0.3 else action()

    kind = chooser.integers(4)
    if kind < 2:
        return one_or_two_actions()
    sequence = verifier.BeforeInstr if kind == 2 else verifier.AfterInstr
    return sequence(one_or_two_actions(), one_or_two_actions(), strict=bool(chooser.random() < 0.1))


def _descriptions(instruction) -> list:
    if isinstance(instruction, verifier.SeqInstr):
        return _descriptions(instruction.instr_a) + _descriptions(instruction.instr_b)
    return [desc for desc in vars(instruction).values() if isinstance(desc, verifier.ObjDesc)]


@pytest.mark.parametrize("task", babyai_tasks())
def test_labels_equal_babyai_bots_on_every_task(task, fast):
    level_env = make_level_env(task)
    for level_seed, student in enumerate(("mischief", "mixture")):
        reset_level(level_env, level_seed)
        walk(level_env, fast, student, level_seed, max_episode_steps=40)


@pytest.mark.parametrize("task", [*SMALL_TASKS, "BabyAI-BossLevel-v0"])
def test_labels_equal_babyai_bots_on_levels_that_no_task_has(task, fast):
    level_env = make_level_env(task)
    ends = set()
    for level_seed in range(8):
        for student in STUDENTS:
            reset_level(level_env, level_seed)
            make_up(level_env, np.random.default_rng(level_seed))
            ends.add(walk(level_env, fast, student, level_seed, max_episode_steps=60))
    assert {"no plan", "over"} <= ends


@pytest.mark.parametrize("task", [*SMALL_TASKS, *LARGE_TASKS, *UNSOLVABLE_TASKS])
def test_lengths_of_solutions_equal_babyai_bots(task, fast):
    level_env = make_level_env(task)
    for level_seed in range(2):
        reset_level(level_env, level_seed)
        level = np.array([level_of(level_env, level_seed)])[0]
        steps = bot_solution_steps(level_env)
        assert solution_steps(*fast, level) == steps
        assert (steps == -1) == (task in UNSOLVABLE_TASKS)
