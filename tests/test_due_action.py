"""`due_action`, beside what the mission says and what the bot and the verifier do."""

import re

import numpy as np
import pytest
from minigrid.core.constants import COLOR_NAMES
from minigrid.envs.babyai.core.verifier import AfterInstr, BeforeInstr

from fast_babyai import FastBabyAIVectorEnv
from fast_babyai.factory import make_vec_env
from fast_babyai.reference import BoundedBot, ask_bot, due_action, make_level_env, reset_level
from fast_babyai.rules import NO_ACTION

TASKS = ["BabyAI-MiniBossLevel-v0", "BabyAI-GoToSeqS5R2-v0", "BabyAI-UnlockPickup-v0"]


def actions_by_slot(mission: str) -> dict[int, str]:
    """The texts of a mission's actions, read from the mission alone."""
    if " after you " in mission:
        then, first = mission.split(" after you ")
    else:
        first, _, then = mission.partition(", then ")
    texts = dict(enumerate(first.split(" and ")))
    return texts | {2 + place: text for place, text in enumerate(then.split(" and ")) if text}


def is_fulfilled(text: str, level_env, carried_before) -> bool:
    """Whether a step just did what an action's text says ("put": whether the right thing was put)."""
    verb, color, kind = re.match(
        rf"(go to|open|pick up|put) (?:a|the) (?:({'|'.join(COLOR_NAMES)}) )?(\w+)", text
    ).groups()
    front = level_env.grid.get(*level_env.front_pos)
    thing = level_env.carrying if verb == "pick up" else carried_before if verb == "put" else front
    right = thing is not None and color in (None, thing.color) and kind in ("object", thing.type)
    return right and (verb != "open" or thing.is_open)


@pytest.mark.parametrize("task", TASKS)
def test_along_the_bots_walk_what_is_due_is_what_gets_done(task):
    level_env = make_level_env(task)
    done_when_due = seen = 0
    for level_seed in range(25):
        reset_level(level_env, level_seed)
        texts = actions_by_slot(level_env.mission)
        bot, order = BoundedBot(level_env), []
        action = ask_bot(bot)
        while action is not None:
            due, carried = due_action(bot), level_env.carrying
            assert due in texts
            order += [due] if due not in order[-1:] else []
            _, reward, terminated, truncated, _ = level_env.step(action)
            action = None if terminated or truncated else ask_bot(bot, action)
            if reward > 0 or (action is not None and due_action(bot) != due):
                seen += 1
                done_when_due += is_fulfilled(texts[due], level_env, carried)
        assert order == sorted(order) and order[0] == 0, (level_env.mission, order)
    assert seen > 20 and done_when_due == seen


def open_slots(instruction) -> set[int]:
    """The slots of the actions that the verifier waits for now."""
    if not hasattr(instruction, "instr_a"):
        return {0}
    parts = [(instruction.instr_a, instruction.a_done), (instruction.instr_b, instruction.b_done)]
    if not isinstance(instruction, BeforeInstr | AfterInstr):
        return {slot for slot, (_, status) in enumerate(parts) if status != "success"}
    (first, status), (then, _) = parts if isinstance(instruction, BeforeInstr) else parts[::-1]
    return {2 + slot for slot in open_slots(then)} if status == "success" else open_slots(first)


def test_a_student_is_told_what_the_verifier_waits_for():
    """And of two joined by "and" of the first, because the bot does them in their order."""
    task, chooser = "BabyAI-MiniBossLevel-v0", np.random.default_rng(0)
    pair = [make_vec_env(task, 8, backend=backend) for backend in ("minigrid", "fast")]
    infos = [env.reset(seed=0)[1] for env in pair]
    told, skipped = set(), 0
    for _ in range(150):
        assert np.array_equal(infos[0]["due_action"], infos[1]["due_action"])
        due = infos[1]["due_action"]
        assert due.dtype == np.int64 and due.shape == (8,)
        for env, slot in zip(pair[0].envs, due.tolist(), strict=True):
            slots = open_slots(env.env.instrs)
            told.add(slot)
            skipped += slot != min(slots)
        walks = np.where(chooser.random(8) < 0.8, infos[0]["bot_action"], chooser.integers(0, 6, 8))
        infos = [env.step(walks)[-1] for env in pair]
    assert told == {0, 1, 2, 3}
    assert skipped == 0


def test_without_a_bot_or_an_action_of_its_nothing_is_due():
    env = FastBabyAIVectorEnv("BabyAI-GoToLocal-v0", 2, expert=False)
    assert "due_action" not in env.reset(seed=0)[1]
    for backend in ("minigrid", "fast"):
        env = make_vec_env("BabyAI-KeyInBox-v0", 2, backend=backend)
        _, infos = env.reset(seed=[0, 1])
        assert infos["due_action"].tolist() == [0, NO_ACTION]
        assert (infos["bot_action"] == NO_ACTION).tolist() == [False, True]
        env = make_vec_env("BabyAI-GoToObj-v0", 1, backend=backend, autoreset_mode="NextStep")
        _, infos = env.reset(seed=0)
        terminated = [False]
        while not terminated[0]:
            assert infos["due_action"].tolist() == [0]
            _, _, terminated, _, infos = env.step(infos["bot_action"])
        assert infos["due_action"].tolist() == [NO_ACTION]
