"""What the readable environment and its compiled twin must agree on. Imports nothing of the project."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.error import Error, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv

BACKENDS = ("fast", "minigrid")  # compiled, or minigrid's own

VIEW = 7  # cells along a side of what the agent sees
IMAGE_SHAPE = (VIEW, VIEW, 3)  # of each cell: type, color, state
NUM_DIRECTIONS = 4
NUM_ACTIONS = 7
NO_ACTION = -1  # in place of the bot's action, where it has none

OBSERVATION_SPACE = spaces.Dict(
    {
        "image": spaces.Box(0, 255, IMAGE_SHAPE, np.uint8),
        "direction": spaces.Discrete(NUM_DIRECTIONS),
        "carrying": spaces.Box(0, 1, (), np.int8),  # 1 while something is carried
    }
)
RENDER_FPS = 10  # minigrid's
ACTION_SPACE = spaces.Discrete(NUM_ACTIONS)  # minigrid's: left, right, forward, pick up, drop, toggle, done

EVAL_SEED_OFFSET = 1_000_000_000  # evaluation levels count from here, training levels from 0: they never meet
MAX_UNSOLVABLE_IN_A_ROW = 100  # levels passed over before a task counts as unsolvable
# Tries in a row to place the agent. A room may be so full that no place in it will do, and minigrid tries forever. Here
# it ends like all that minigrid tries in vain: with a RecursionError, upon which minigrid begins the level anew.
MAX_AGENT_PLACEMENTS = 10_000
PLAN_LIMIT = 1000  # subgoals the bot may push in one replan; real plans need a few dozen, endless ones never stop
MAX_DEPTH = 256  # subgoals on the bot's stack at once


class Deal(NamedTuple):
    """Which environment runs which task, int64 [N] each.

    Attributes:
        task: the task of each environment, by its place among the tasks.
        place: the environment's place among those of its task.
        count: how many environments its task has.
    """

    task: np.ndarray
    place: np.ndarray
    count: np.ndarray


def deal_environments(num_envs: int, weights: Sequence[float]) -> Deal:
    """Deal environments out to tasks, one after the other: each to the task that has least of what is its due so far,
    environments / weight, and of several such tasks to the first.

    So every task has one of the first environments, and with equal weights they go round.

    Args:
        num_envs: at least as many as there are tasks.
        weights: of the tasks, each > 0.
    """
    task, place = np.zeros((2, num_envs), np.int64)
    dealt = np.zeros(len(weights), np.int64)
    for index in range(num_envs):
        task[index] = chosen = int(np.argmin(dealt / np.asarray(weights, np.float64)))
        place[index] = dealt[chosen]
        dealt[chosen] += 1
    return Deal(task, place, dealt[task])


@functools.lru_cache(maxsize=32)  # tasks side by side may be in passes of their own
def _shuffled_levels(seed: int, level_pass: int, train_levels: int) -> np.ndarray:
    return np.random.default_rng([seed, level_pass]).permutation(train_levels).astype(np.int32)


def training_level_seed(seed: int, env_index: int, num_envs: int, episode: int, train_levels: int | None) -> int:
    """Return the level seed of the given episode of one of `num_envs` environments in the run seeded with `seed`.

    The environments deal the levels out among themselves: episode j of environment i takes place j * num_envs + i.
    With `train_levels=None` levels never repeat: the places are the level seeds. With a number, the first pass goes
    through that many levels in order, and every later pass shuffles them anew.

    Where several tasks run side by side, this is said of the environments of each task alone (`Deal.place` of
    `Deal.count`): which levels a task has does not depend on what runs beside it.
    """
    place = episode * num_envs + env_index
    if train_levels is None:
        return place
    level_pass, place = divmod(place, train_levels)
    return place if level_pass == 0 else int(_shuffled_levels(seed, level_pass, train_levels)[place])


def check_seeds(seed: int | Sequence[int] | np.ndarray | None) -> None:
    """Raise gymnasium's error unless `seed`, or each one of several, is a whole number of at least 0, or None."""
    if seed is not None and np.min(seed, initial=0) < 0:
        raise Error(f"seeds are whole numbers >= 0, got {seed!r}")


def check_render_mode(render_mode: str | None) -> None:
    """Raise gymnasium's error unless `render_mode` is one of the environment's: "rgb_array", or None for the same."""
    if render_mode not in (None, "rgb_array"):
        raise Error(f"unknown render_mode {render_mode!r}: expected 'rgb_array'; gymnasium's HumanRendering shows it")


class LevelVectorEnv(VectorEnv):
    """The interface of both forms, beyond gymnasium's: what `factory.make_vec_env` returns.

    What happens after an episode's end is gymnasium's `AutoresetMode` (https://farama.org/Vector-Autoreset-Mode):
        SAME_STEP  the step returns the next episode's first state; `final_obs` and `final_info` tell the last one
        NEXT_STEP  the step returns the last state, without a `bot_action`; the next step ignores the action and
                   returns the next episode's first state, with reward 0
        DISABLED   the step returns the last state; the next one raises ResetNeeded unless `reset` came between

    `infos["due_action"]` (int64 [N], where the bot is asked) tells for which of the mission's actions the bot does what
    it is about to do: 0 and 1 are what is to be done first (one action, or two joined by "and", in the order in which
    the mission mentions them), 2 and 3 what comes then. "A, then B" and "B after you A" both have A in slot 0, and a
    single action is 0. An action that is done, by minigrid's verifier, is due no more: while the bot tidies up after it
    or repeats it, the next one is. NO_ACTION where there is no `bot_action`.

    Attributes:
        tasks: the tasks that run side by side.
        task_of_env: which of them each environment runs, int64 [N].
        next_episode: each environment's next episode, by number, int64 [N].
        env_contexts: of the running episodes, one per environment: the `env_context` of a routing cache.
        parts_done: of the running episodes, int8 [N, 2]: whether each part of a mission of two parts ("and", "then",
            "after"), in the order in which the mission names them, is done (1) or not (0); -1 of other missions. It is
            not told of a step that ends the episode.
    """

    tasks: tuple[str, ...]
    task_of_env: np.ndarray
    next_episode: np.ndarray
    env_contexts: Sequence[dict]
    parts_done: np.ndarray
    _begun = False  # there was a reset
    _autoreset_envs: np.ndarray  # bool [N]: the last step ended an episode (gymnasium's name for it)

    def reset(
        self, *, seed: int | Sequence[int] | np.ndarray | None = None, options: dict | None = None
    ) -> tuple[dict, dict]:
        """Begin the training levels of a seed, or play exactly the given level seeds; return observations and infos."""
        raise NotImplementedError

    def get_state(self) -> dict[str, np.ndarray]:
        """Return all that `set_state` needs to go on from here, in an environment of the same arguments."""
        raise NotImplementedError

    def set_state(self, state: dict[str, np.ndarray]) -> tuple[dict, dict]:
        """Go on from a state of `get_state`; return observations and infos, as `reset` does."""
        raise NotImplementedError

    def _check_episodes_run(self) -> None:
        """Raise ResetNeeded where there is nothing to step: before a reset and, without autoreset, after the end."""
        if not self._begun:
            raise ResetNeeded("reset the environment before its first step")
        if self.metadata["autoreset_mode"] is AutoresetMode.DISABLED and self._autoreset_envs.any():
            ended = np.flatnonzero(self._autoreset_envs).tolist()
            raise ResetNeeded(
                f"the episodes of environments {ended} have ended, and without autoreset they are yours to reset:"
                " reset(options={'reset_mask': terminated | truncated})"
            )
