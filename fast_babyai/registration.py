"""What gymnasium is told of this package when it is imported."""

import contextlib

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled

NAMESPACE = "rl_mop"


def register_tasks() -> None:
    """Register each of minigrid's BabyAI tasks as `rl_mop/<task_id>`, for `gymnasium.make` (`reference.BabyAIEnv`) and
    `gymnasium.make_vec` (`make_vector_env`)."""
    from fast_babyai.reference import babyai_tasks

    for task_id in babyai_tasks():
        gymnasium.register(
            f"{NAMESPACE}/{task_id}",
            entry_point="fast_babyai.reference:BabyAIEnv",
            vector_entry_point="fast_babyai.registration:make_vector_env",
            kwargs={"task_id": task_id},
        )


def make_vector_env(task_id: str, num_envs: int = 1, *, render_mode: str | None = None, **settings):
    """Return `factory.make_vec_env` of the arguments; it can always be rendered, as "rgb_array".

    Raises:
        gymnasium.error.Error: another `render_mode`.
        UserError: unknown task or backend.
    """
    from fast_babyai.factory import make_vec_env
    from fast_babyai.rules import check_render_mode

    check_render_mode(render_mode)
    return make_vec_env(task_id, num_envs, **settings)


def let_text_be_text() -> None:
    """Let gymnasium's wrappers for PyTorch and JAX (`NumpyToTorch`, ...) hand on arrays of objects as they are.

    Infos hold missions, and with SAME_STEP the last observations of ended episodes, which no tensor can: gymnasium ends
    in a BufferError. Without its optional dependency array-api-compat there are no such wrappers.
    """
    with contextlib.suppress(ImportError, DependencyNotInstalled):
        from gymnasium.wrappers.array_conversion import array_conversion

        convert = array_conversion.dispatch(np.ndarray)

        def convert_numbers(value: np.ndarray, xp, device=None):
            return value if value.dtype == object else convert(value, xp, device)

        array_conversion.register(np.ndarray, convert_numbers)
