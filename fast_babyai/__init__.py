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

from basics import compiler_cache  # noqa: F401  (before numba)


def __getattr__(name: str):
    if name == "FastBabyAIVectorEnv":  # the level generators import this package too, and need no compiler
        from fast_babyai.vector_env import FastBabyAIVectorEnv

        return FastBabyAIVectorEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
