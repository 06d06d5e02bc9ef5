"""BabyAI and its bot, compiled: minigrid's levels, rules, view and `BabyAIBot`, bit for bit, for N environments.

    from fast_babyai import FastBabyAIVectorEnv

    env = FastBabyAIVectorEnv("BabyAI-GoToLocal-v0", num_envs=64)
    observations, infos = env.reset(seed=0)
    observations, rewards, terminated, truncated, infos = env.step(infos["bot_action"])

It is a `gymnasium.vector.VectorEnv` and takes the place of `gym.vector.SyncVectorEnv` over minigrid's environments.
Importing this package also registers each task with gymnasium, as `rl_mop/<task_id>`:

    import fast_babyai
    env = gymnasium.make_vec("rl_mop/BabyAI-GoToLocal-v0", num_envs=64, autoreset_mode="NextStep")  # compiled
    env = gymnasium.make("rl_mop/BabyAI-GoToLocal-v0")  # a single one: minigrid's own, labelled by the bot

Keyword arguments are those of `make_vec_env` (for a single one, of `BabyAIEnv`). Gymnasium's and minigrid's wrappers
work around them; gymnasium's for observations want "NextStep", training here uses "SameStep", which is the default.

    rules.py          what both forms of the environment agree on
    reference.py      the readable form: minigrid itself
    vector_env.py     the compiled form, as a gymnasium vector environment
    factory.py        make_vec_env, which makes either
    registration.py   what gymnasium is told of this package

Of the compiled form, from what it stands on to what it adds up to:

    state.py          the arrays: a level, a running environment
    view.py           what the agent sees
    verifier.py       whether the mission has been accomplished
    dynamics.py       what an action does
    bot_search.py     how the bot looks around and finds its way
    bot.py            what the bot would do
    due_action.py     for which of the mission's actions
    random_stream.py  numpy's random numbers
    draft.py          the arrays that a level is generated in
    rooms.py          rooms, doors, and what lies in them
    instructions.py   what a level asks for
    tasks.py          what each task puts into its rooms and asks for
    levels.py         minigrid's levels as such arrays, and a mission as text
    generator.py      levels by level seed
"""

from basics import compiler_cache  # noqa: F401  (before numba)
from fast_babyai.registration import let_text_be_text, register_tasks

register_tasks()
let_text_be_text()


def __getattr__(name: str):
    if name == "FastBabyAIVectorEnv":  # on demand: some modules of this package need no compiler, which takes a second
        from fast_babyai.vector_env import FastBabyAIVectorEnv

        return FastBabyAIVectorEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
