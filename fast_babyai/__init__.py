"""BabyAI and its bot, compiled: minigrid's rules, view, verifier and `BabyAIBot`, bit for bit, for N environments.

    from fast_babyai import FastBabyAIVectorEnv

    env = FastBabyAIVectorEnv("BabyAI-GoToLocal-v0", num_envs=64)
    observations, infos = env.reset(seed=0)
    observations, rewards, terminated, truncated, infos = env.step(infos["bot_action"])

It is a `gymnasium.vector.VectorEnv` and takes the place of `gym.vector.SyncVectorEnv` over minigrid's environments.

    state.py       the arrays: a level, a running environment
    levels.py      minigrid's levels as such arrays
    level_bank.py  many levels, generated in the background and kept on disk
    dynamics.py    what an action does
    view.py        what the agent sees
    verifier.py    whether the mission has been accomplished
    bot_search.py  how the bot looks around and finds its way
    bot.py         what the bot would do
    vector_env.py  all of it as a gymnasium vector environment
"""

import hashlib
import os
import sys
from pathlib import Path

from artifacts import cache_folder


def _own_compiler_cache() -> None:
    """Let numba keep compiled code in a folder of its own for each state of these sources: its cache notices a change
    in the file of a function, but not in the files of the functions that it calls."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    folder = str(cache_folder() / "numba" / digest.hexdigest()[:16])
    os.environ["NUMBA_CACHE_DIR"] = folder
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = folder


_own_compiler_cache()


def __getattr__(name: str):
    if name == "FastBabyAIVectorEnv":  # the level generators import this package too, and need no compiler
        from fast_babyai.vector_env import FastBabyAIVectorEnv

        return FastBabyAIVectorEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
