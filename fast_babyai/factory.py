"""What does not depend on the form of the environment: here either is made.

env = make_vec_env("BabyAI-GoToLocal-v0", num_envs=16)
observations, infos = env.reset(seed=0)
observations, rewards, terminated, truncated, infos = env.step(infos["bot_action"])
"""

from collections.abc import Sequence

from gymnasium.vector import AutoresetMode

from basics.errors import UserError
from fast_babyai.reference import BabyAIVectorEnv, make_level_env, reset_level
from fast_babyai.rules import BACKENDS, LevelVectorEnv


def check_backend(backend: str) -> None:
    """Raise a UserError unless `backend` is one of BACKENDS."""
    if backend not in BACKENDS:
        raise UserError(f"unknown backend {backend!r}: expected one of {', '.join(BACKENDS)}")


def make_vec_env(
    task_id: str | Sequence[str],
    num_envs: int,
    *,
    backend: str = "fast",
    max_steps: int | None = None,
    expert: bool = True,
    autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    train_levels: int | None = None,
    task_weights: Sequence[float] | None = None,
) -> LevelVectorEnv:
    """Return `num_envs` environments of a BabyAI task, or of several side by side, compiled (`fast`) or as minigrid has
    them (`minigrid`).

    Args:
        task_id, max_steps, expert, autoreset_mode, train_levels, task_weights: see `FastBabyAIVectorEnv`.

    Raises:
        UserError: unknown task or backend, or more tasks than environments.
    """
    check_backend(backend)
    if backend == "minigrid":
        vector_env = BabyAIVectorEnv
    else:
        from fast_babyai.vector_env import FastBabyAIVectorEnv as vector_env  # its compiler takes a second to import
    return vector_env(
        task_id,
        num_envs,
        max_steps=max_steps,
        expert=expert,
        autoreset_mode=autoreset_mode,
        train_levels=train_levels,
        task_weights=task_weights,
    )


def sample_missions(task_id: str | Sequence[str], count: int = 128, *, backend: str = "fast") -> list[str]:
    """Return the missions of a task's first training levels; of several tasks, equally many of each, `count` in all or
    a few more.

    Raises:
        UserError: unknown task or backend.
    """
    check_backend(backend)
    tasks = [task_id] if isinstance(task_id, str) else list(task_id)
    missions = []
    for task in tasks:
        level_seeds = range(-(-count // len(tasks)))
        if backend == "fast":
            from fast_babyai.generator import LevelGenerator

            missions += LevelGenerator(task).missions(level_seeds)
            continue
        env = make_level_env(task)
        for level_seed in level_seeds:
            reset_level(env, level_seed)
            missions.append(env.mission)
    return missions
