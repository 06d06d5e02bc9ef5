"""One function that makes either form of the environment.

env = make_vec_env("BabyAI-GoToLocal-v0", num_envs=16)
observations, infos = env.reset(seed=0)
observations, rewards, terminated, truncated, infos = env.step(infos["bot_action"])
"""

from gymnasium.vector import VectorEnv

from basics.errors import UserError
from fast_babyai.reference import BabyAIVectorEnv, check_task
from fast_babyai.rules import BACKENDS


def make_vec_env(
    task_id: str,
    num_envs: int,
    *,
    backend: str = "fast",
    max_steps: int | None = None,
    expert: bool = True,
    autoreset: bool = True,
    train_levels: int | None = None,
) -> VectorEnv:
    """Return `num_envs` environments of one BabyAI task, compiled (`fast`) or as minigrid has them (`minigrid`).

    Raises:
        UserError: unknown task or backend.
    """
    check_task(task_id)
    if backend == "minigrid":
        vector_env = BabyAIVectorEnv
    elif backend == "fast":
        from fast_babyai.vector_env import FastBabyAIVectorEnv as vector_env  # its compiler takes a second to import
    else:
        raise UserError(f"unknown backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    return vector_env(
        task_id, num_envs, max_steps=max_steps, expert=expert, autoreset=autoreset, train_levels=train_levels
    )
