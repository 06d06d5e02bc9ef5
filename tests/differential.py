"""The compiled environment against minigrid and its bot: every step of every task, compared to the last bit.

    python tests/differential.py --levels 1000                        # all 96 tasks, hours
    python tests/differential.py --levels 20 --tasks BabyAI-GoTo-v0
    python tests/differential.py --levels 1000 --generation_only      # levels and missions as generated, minutes

Each level is walked by students of several kinds: `bot` does what the bot says, `random` anything, `mixture` a bit of
both, and `mischief` opens boxes, picks things up, drops them in doorways, shuts and opens doors. At every step the
observation, reward, end of episode, agent position, mission and bot label (or that it has none) must be equal, and at
the start the length of the bot's solution and the description of the level. The exit status is 1 if anything differed.

With `--generation_only` nobody walks: of every level, grid, objects, agent, instruction, step limit and mission are
compared, half of them training levels and half evaluation levels.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from fast_babyai.factory import make_vec_env
from fast_babyai.generator import LevelGenerator
from fast_babyai.levels import level_of
from fast_babyai.reference import babyai_tasks, make_level_env, reset_level
from fast_babyai.rules import EVAL_SEED_OFFSET
from fast_babyai.state import LEVEL

STUDENTS = ("bot", "random", "mixture", "mischief")
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)


def choose_action(student: str, chooser: np.random.Generator, level_env, bot_action: int) -> int:
    """Return what a student does in minigrid's `level_env`."""
    if student == "bot":
        return bot_action
    if student == "random" or (student == "mixture" and chooser.random() < 0.25):
        return int(chooser.integers(7))
    if student == "mixture":
        return bot_action
    front = level_env.grid.get(*level_env.front_pos)
    luck = chooser.random()
    if front is None:
        if level_env.carrying is not None and luck < 0.25:
            return DROP
    elif front.type == "door":
        if luck < 0.4:
            return TOGGLE
    elif front.type == "box" and luck < 0.1:
        return TOGGLE
    elif front.type != "wall" and level_env.carrying is None and luck < 0.5:
        return PICKUP
    return bot_action if chooser.random() < 0.75 else int(chooser.integers(3))


def differences(one: dict, other: dict) -> list[str]:
    """Return the names of observations or infos that differ."""
    return [name for name in one if not name.startswith("_") and not np.array_equal(one[name], other[name])]


def compare(task_id: str, level_seeds: Iterable[int], max_steps: int | None = None) -> tuple[Counter, list[str]]:
    """Walk every student through each level in both environments.

    Returns:
        how many episodes and steps were compared, how many ended in success and how many because the bot had no plan,
        and one line per difference.
    """
    count, found = Counter(), []
    settings = {"autoreset_mode": "Disabled", "max_steps": max_steps}
    pair = [make_vec_env(task_id, 1, backend=backend, **settings) for backend in ("minigrid", "fast")]
    for level_seed in level_seeds:
        for number, student in enumerate(STUDENTS):
            wrong = compare_episode(*pair, level_seed, student, np.random.default_rng([level_seed, number]), count)
            if wrong:
                found.append(f"{task_id} level {level_seed} student {student}: {wrong}")
    for env in pair:
        env.close()
    return count, found


def compare_episode(reference, compiled, level_seed: int, student: str, chooser, count: Counter) -> str:
    """Walk one student through one level; return what differed first, or an empty string."""
    (observations, infos), (compiled_observations, compiled_infos) = (
        env.reset(seed=[level_seed]) for env in (reference, compiled)
    )
    wrong = differences(observations, compiled_observations) + differences(infos, compiled_infos)
    if list(reference.env_contexts) != list(compiled.env_contexts):
        wrong.append("env_context")
    level_env = reference.envs[0].env
    count["episodes"] += 1
    while not wrong:
        bot_action = int(infos["bot_action"][0])
        action = choose_action(student, chooser, level_env, FORWARD if bot_action < 0 else bot_action)
        (observations, *outcome, infos), (compiled_observations, *compiled_outcome, compiled_infos) = (
            env.step(np.array([action])) for env in (reference, compiled)
        )
        count["steps"] += 1
        wrong = differences(observations, compiled_observations)
        wrong += differences(infos, compiled_infos)
        for name, one, other in zip(("reward", "terminated", "truncated"), outcome, compiled_outcome, strict=True):
            if one[0] != other[0]:
                wrong.append(name)
        if outcome[1][0] or outcome[2][0]:
            count["solved"] += bool(outcome[0][0] > 0)
            count["planless"] += bool(outcome[2][0]) and level_env.step_count < level_env.max_steps
            break
    return f"step {level_env.step_count}: {', '.join(wrong)}" if wrong else ""


def compare_generation(task_id: str, level_seeds: Iterable[int], max_steps: int | None = None) -> list[str]:
    """Generate levels with minigrid and compiled; return one line per level that differs."""
    env, generator = make_level_env(task_id, max_steps), LevelGenerator(task_id, max_steps)
    levels, found = np.zeros(1, LEVEL), []
    if generator.task is None:
        return [f"{task_id}: the compiled generator does not know it"]
    for level_seed in level_seeds:
        reset_level(env, level_seed)
        expected = level_of(env, level_seed)
        generator.generate(levels, 0, level_seed)
        names = [name for name in LEVEL.names if name != "bot_steps"]
        wrong = [name for name in names if not np.array_equal(levels[name][0], expected[name])]
        if generator.mission(levels[0]) != env.mission:
            wrong.append("mission")
        if wrong:
            found.append(f"{task_id} level {level_seed}: {', '.join(wrong)}")
    return found


def report_generation(tasks: list[str], first: int, count: int) -> int:
    """Compare the generation of tasks' levels; return how many differ."""
    differing = 0
    for task_id in tasks:
        began = time.perf_counter()
        half = range(first, first + count // 2)
        seeds = [*range(first, first + count - len(half)), *(EVAL_SEED_OFFSET + seed for seed in half)]
        found = compare_generation(task_id, seeds)
        differing += len(found)
        seconds = time.perf_counter() - began
        print(f"{task_id:34s} {len(seeds):6d} levels {len(found):3d} differences {seconds:6.1f} s", flush=True)
        for line in found[:5]:
            print("   ", line, flush=True)
    print(f"total: {len(tasks)} tasks, {len(tasks) * count} levels, {differing} differences")
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--levels", type=int, default=10, help="levels per task [%(default)s]")
    parser.add_argument("--first", type=int, default=0, help="first level seed [%(default)s]")
    parser.add_argument("--tasks", nargs="+", default=babyai_tasks())
    parser.add_argument("--generation_only", action="store_true", help="compare levels as generated, without walking")
    arguments = parser.parse_args()
    if arguments.generation_only:
        return 1 if report_generation(arguments.tasks, arguments.first, arguments.levels) else 0
    total, differing = Counter(), 0
    for task_id in arguments.tasks:
        began = time.perf_counter()
        count, found = compare(task_id, range(arguments.first, arguments.first + arguments.levels))
        total += count
        differing += len(found)
        print(
            f"{task_id:34s} {count['episodes']:6d} episodes {count['steps']:8d} steps {count['solved']:6d} solved"
            f" {count['planless']:5d} planless {len(found):3d} differences {time.perf_counter() - began:6.1f} s",
            flush=True,
        )
        for line in found[:5]:
            print("   ", line, flush=True)
    print(f"total: {len(arguments.tasks)} tasks, {dict(total)}, {differing} differences")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
