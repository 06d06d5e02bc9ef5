"""The readable reference (`backend="minigrid"`): minigrid and its `BabyAIBot`, one environment after the other, as a
gymnasium vector environment whose infos say what the bot would do. `vector_env.py` (`backend="fast"`) is its compiled
twin behind the same interface.

Observations: `image` uint8 [N, 7, 7, 3], `direction` int64 [N], `carrying` int8 [N] (1 while something is carried).

Infos of `reset` and `step`, always about the state just returned (after an autoreset: the new episode's):
    mission            object [N]    the running episode's mission, as text
    bot_action         int64 [N]     what the bot would do now (only with `expert=True`)
    due_action         int64 [N]     for which of the mission's actions (`rules.LevelVectorEnv`; with `expert=True`)
    bot_steps          int64 [N]     length of the bot's own solution of this level, -1 if it cannot solve it
    agent_pos          int64 [N, 2]
    level_seed         int64 [N]
    bot_plan_failures  int64 [N]     since the last seeded reset: levels passed over because the bot cannot solve them,
                                     plus episodes cut short because the student went where the bot had no plan

Success means reward > 0: BabyAI also terminates failed missions.
"""

import contextlib
import copy
import fnmatch
import functools
import io
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, cast

import gymnasium as gym
import minigrid  # noqa: F401  (registers the BabyAI tasks)
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.babyai.core.verifier import ActionInstr, AndInstr, BeforeInstr, SeqInstr
from minigrid.utils.baby_ai_bot import BabyAIBot

from basics.errors import UserError, did_you_mean
from fast_babyai.rules import (
    ACTION_SPACE,
    EVAL_SEED_OFFSET,
    MAX_AGENT_PLACEMENTS,
    MAX_DEPTH,
    MAX_UNSOLVABLE_IN_A_ROW,
    NO_ACTION,
    OBSERVATION_SPACE,
    PLAN_LIMIT,
    RENDER_FPS,
    Deal,
    LevelVectorEnv,
    check_render_mode,
    check_seeds,
    deal_environments,
    training_level_seed,
)


def babyai_tasks() -> list[str]:
    """Return the ids of all registered BabyAI tasks."""
    return [task_id for task_id in gym.registry if task_id.startswith("BabyAI-")]


def check_task(task_id: str) -> None:
    """Raise a UserError that names the closest tasks unless `task_id` is a registered BabyAI task."""
    if task_id not in babyai_tasks():
        raise UserError(
            f"unknown task {task_id!r}.{did_you_mean(task_id, babyai_tasks())}"
            " A task_id looks like 'BabyAI-GoToLocal-v0'; minigrid's documentation lists them all."
        )


def matching_tasks(patterns: Iterable[str]) -> list[str]:
    """Return the tasks that names, or patterns such as `BabyAI-GoTo*`, stand for: in this order, those of a pattern by
    name, each once.

    Raises:
        UserError: there is no such task; it names the closest.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = sorted(task for task in babyai_tasks() if fnmatch.fnmatchcase(task, pattern))
        if not matches:
            is_pattern = bool(set(pattern) & set("*?["))
            if not is_pattern:
                check_task(pattern)
            near = did_you_mean(pattern.strip("*"), babyai_tasks())
            raise UserError(f"no BabyAI task matches {pattern!r}.{near} Tasks look like 'BabyAI-GoToLocal-v0'")
        found |= dict.fromkeys(matches)
    return list(found)


def named_tasks(text: str) -> list[str]:
    """Return the tasks of a flag: names or patterns, comma-separated; see `matching_tasks`."""
    return matching_tasks(part.strip() for part in text.split(","))


def share_out(
    task_id: str | Sequence[str], num_envs: int, task_weights: Sequence[float] | None = None
) -> tuple[tuple[str, ...], Deal]:
    """Return the tasks that `task_id` names, one or several, and which of `num_envs` environments runs which.

    Args:
        task_weights: of the tasks, in their order; None: all alike (`rules.deal_environments`).

    Raises:
        UserError: unknown task, one named twice, none at all, fewer environments than tasks, or impossible weights.
    """
    tasks = (task_id,) if isinstance(task_id, str) else tuple(task_id)
    if not tasks:
        raise UserError("there is no task to run: name at least one")
    for task in tasks:
        check_task(task)
        if tasks.count(task) > 1:
            raise UserError(f"{task} stands among the tasks twice: give it a larger one of task_weights instead")
    weights = [1.0] * len(tasks) if task_weights is None else [float(weight) for weight in task_weights]
    if len(weights) != len(tasks) or not all(0 < weight < float("inf") for weight in weights):
        raise UserError(f"task_weights are {weights}: expected {len(tasks)} numbers > 0, one for each of the tasks")
    if num_envs < len(tasks):
        raise UserError(f"num_envs is {num_envs}, but each of {len(tasks)} tasks needs an environment at least")
    return tasks, deal_environments(num_envs, weights)


def check_assertions() -> None:
    """Raise a UserError where assertions are off: by them minigrid's bot says that it cannot go on (see `ask_bot`).

    Without them it looks for ever for what it cannot reach (BabyAI-KeyInBox-v0, BabyAI-PutNextS5N2Carrying-v0). The
    compiled bot needs none.
    """
    if not __debug__:
        raise UserError(
            "minigrid's bot needs Python's assertions, and this Python runs without them: leave out -O, unset"
            " PYTHONOPTIMIZE, or use the compiled environment (backend fast)"
        )


class BotHasNoPlan(Exception):
    """The bot keeps changing its plan without ever choosing an action."""


class _PlanStack(list):
    """The bot's stack of subgoals, which notices a plan that never settles, and which of the mission's actions each
    subgoal serves: that of the subgoal that pushed it, which is the one that the bot looked at last."""

    pushes = 0
    looked_at = None

    def __getitem__(self, place):
        self.looked_at = super().__getitem__(place)
        return self.looked_at

    def append(self, subgoal):
        subgoal.instruction = getattr(self.looked_at, "instruction", None)
        super().append(subgoal)
        self.pushes += 1
        if self.pushes > PLAN_LIMIT or len(self) > MAX_DEPTH:
            raise BotHasNoPlan


class BoundedBot(BabyAIBot):
    """minigrid's bot, except that a plan that does not settle raises `BotHasNoPlan` instead of hanging, and that its
    subgoals have an `instruction`: the action of the mission that they serve."""

    def __init__(self, mission):
        super().__init__(mission)
        self.stack = _PlanStack(self.stack)

    def _process_instr(self, instr):
        depth = len(self.stack)
        super()._process_instr(instr)
        for subgoal in self.stack[depth:]:
            if not isinstance(instr, SeqInstr):
                subgoal.instruction = instr

    def replan(self, action_taken=None):
        self.stack.pushes = 0
        return super().replan(action_taken)


def ask_bot(bot: BabyAIBot, action_taken: int | None = None) -> int | None:
    """Return the bot's action after `action_taken` (None at the start), or None when it has no plan.

    The bot signals "I cannot go on" by whatever exception its plan ran into: failed assertions, missing cells, opened
    boxes. All of them mean the same to us.
    """
    try:
        action = bot.replan(action_taken)
    except Exception:
        return None
    return None if action is None else int(action)


def due_action(bot: BoundedBot) -> int:
    """Return the slot (`rules.LevelVectorEnv`) of the mission's action that the bot is about to do, after it was asked.

    It is that of the bot's topmost subgoal or, where the verifier has seen this one done, the next one in the bot's
    order that is not: the bot then only tidies up (drops what it picked up, or a key), or repeats what chance has done.
    """
    actions = _actions_in_turn(bot.mission.instrs)
    instructions = [instruction for _, instruction, _ in actions]
    turn = instructions.index(bot.stack[-1].instruction) if bot.stack else 0
    return next((slot for slot, _, is_done in actions[turn:] + actions[:turn] if not is_done), NO_ACTION)


def _actions_in_turn(instruction) -> list[tuple[int, ActionInstr, bool]]:
    """Return a mission's actions in the order in which the bot does them: slot, instruction, whether it is done."""
    if isinstance(instruction, ActionInstr):
        return [(0, instruction, False)]
    a, b = (
        (instruction.instr_a, instruction.a_done == "success"),
        (instruction.instr_b, instruction.b_done == "success"),
    )
    if isinstance(instruction, AndInstr):
        return [(slot, action, is_done) for slot, (action, is_done) in enumerate((a, b))]
    (first, first_done), (second, _) = (a, b) if isinstance(instruction, BeforeInstr) else (b, a)
    now = [(slot, action, is_done or first_done) for slot, action, is_done in _actions_in_turn(first)]
    return now + [(2 + slot, action, is_done) for slot, action, is_done in _actions_in_turn(second)]


def make_level_env(task_id: str, max_steps: int | None = None, render_mode: str | None = None) -> RoomGridLevel:
    """Return minigrid's own environment for a task, with `max_steps` overridden unless it is None.

    Raises:
        UserError: unknown task.
    """
    check_task(task_id)
    env = cast(RoomGridLevel, gym.make(task_id, disable_env_checker=True, render_mode=render_mode).unwrapped)
    _limit_agent_placements(env)
    if max_steps is not None:
        env.max_steps = max_steps
        env.fixed_max_steps = True  # else a BabyAI reset computes its own limit from the instruction
    return env


def _limit_agent_placements(env: RoomGridLevel) -> None:
    """Let minigrid's `env` give up where it would try forever to place the agent (see MAX_AGENT_PLACEMENTS)."""
    place_obj = env.place_obj
    placements = vars(env)  # of the agent in a row, kept beside minigrid's own attributes for `reset_level` to see

    def limited_place_obj(obj, *args, **kwargs):
        placements["agent_placements"] = placements["agent_placements"] + 1 if obj is None else 0
        if placements["agent_placements"] > MAX_AGENT_PLACEMENTS:
            placements["agent_placements"] = 0
            raise RecursionError("rejection sampling failed in place_agent")
        return place_obj(obj, *args, **kwargs)

    env.place_obj = limited_place_obj


def reset_level(env: RoomGridLevel, level_seed: int) -> dict:
    """Reset minigrid's environment to a level and return its observation, without what minigrid prints on the way."""
    vars(env)["agent_placements"] = 0
    with contextlib.redirect_stdout(io.StringIO()):
        observation, _ = env.reset(seed=level_seed)
    return observation


def bot_solution_steps(env: RoomGridLevel) -> int:
    """Play the level `env` was just reset to with the bot alone; return the number of steps, -1 without success."""
    bot = BoundedBot(env)
    action = ask_bot(bot)
    while action is not None:
        _, reward, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return env.step_count if float(reward) > 0 else -1
        action = ask_bot(bot, action)
    return -1


def _instruction_descriptions(instruction) -> list:
    """Return the object descriptions of an instruction, in the order in which the mission names its parts."""
    if hasattr(instruction, "instr_a"):
        return _instruction_descriptions(instruction.instr_a) + _instruction_descriptions(instruction.instr_b)
    return [getattr(instruction, name) for name in ("desc", "desc_move", "desc_fixed") if hasattr(instruction, name)]


def _describe(cell, position) -> dict:
    entry = {"type": cell.type, "color": cell.color, "position": [int(position[0]), int(position[1])]}
    if cell.type == "door":
        entry["state"] = "open" if cell.is_open else "locked" if cell.is_locked else "closed"
    return entry


def env_context(env: RoomGridLevel) -> dict:
    """Return what plots need to know of the level that minigrid's `env` was just reset to: the `env_context` of a
    routing cache."""
    cells = [(env.grid.get(x, y), (x, y)) for x in range(env.width) for y in range(env.height)]
    by_type = {kind: [] for kind in ("door", "key", "ball", "box")}
    for cell, position in cells:
        if cell is not None and cell.type in by_type:
            by_type[cell.type].append(_describe(cell, position))
    goals = {}
    instruction = env.instrs  # pyright: ignore[reportAttributeAccessIssue]  (every level has one)
    for description in _instruction_descriptions(instruction):
        for cell, position in zip(description.obj_set, description.obj_poss, strict=True):
            if cell.type != "wall":
                goals[tuple(position)] = _describe(cell, position)
    start = [int(env.agent_pos[0]), int(env.agent_pos[1])]
    return {
        "grid_size": [env.width, env.height],
        "agent_start_pos": start,
        "agent_start_room": [coordinate // (env.room_size - 1) for coordinate in start],
        "room_grid_shape": [env.num_cols, env.num_rows],
        "room_size": env.room_size,
        "goals": list(goals.values()),
        "doors": by_type["door"],
        "keys": by_type["key"],
        "balls": by_type["ball"],
        "boxes": by_type["box"],
        "walls": [list(position) for cell, position in cells if cell is not None and cell.type == "wall"],
    }


def parts_done(env: RoomGridLevel) -> tuple[int, int]:
    """Return whether each part of the mission of minigrid's `env` is done, as minigrid's verifier keeps it; -1 where
    the mission has no parts."""
    instruction = env.instrs  # pyright: ignore[reportAttributeAccessIssue]  (every level has one)
    if not hasattr(instruction, "instr_a"):
        return -1, -1
    return int(instruction.a_done == "success"), int(instruction.b_done == "success")


def render_level(
    task_id: str, level_seed: int, actions: Iterable[int] = (), max_steps: int | None = None
) -> np.ndarray:
    """Return minigrid's picture (uint8 [height, width, 3]) of a level after the given actions."""
    env = make_level_env(task_id, max_steps, render_mode="rgb_array")
    reset_level(env, level_seed)
    for action in actions:
        env.step(int(action))
    return cast(np.ndarray, env.render())


class BabyAIEnv(gym.Env):
    """One environment of one BabyAI task, labelled by the bot; the module's docstring tells its observations and infos.

    `reset(seed=s)` plays exactly the level that minigrid generates from seed `s`. `reset()` takes the next level that
    the bot can solve, in the order of `level_of_episode` (at random where that is None).

    What minigrid's environment has (`grid`, `agent_pos`, `mission`, ...), this one has, so that minigrid's wrappers
    work around it, except those that look for the mission in observations: it is in infos. It can always be rendered,
    as "rgb_array".

    Args:
        task_id: a registered BabyAI task.
        max_steps: the step limit of an episode; None keeps the task's own.
        expert: whether infos carry what the bot would do. Without it no episode is cut short for want of a plan.
        render_mode: None or "rgb_array", which are alike.

    Raises:
        UserError: unknown task, or Python runs without assertions (`python -O`).
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": RENDER_FPS}
    observation_space = OBSERVATION_SPACE
    action_space = ACTION_SPACE

    def __init__(self, task_id: str, max_steps: int | None = None, expert: bool = True, render_mode: str | None = None):
        check_assertions()
        check_render_mode(render_mode)
        self.env = make_level_env(task_id, max_steps, render_mode="rgb_array")
        self.render_mode = "rgb_array"
        self.task_id = task_id
        self.expert = expert
        self.level_of_episode: Callable[[int], int] | None = None
        self.next_episode = 0
        self.plan_failures = 0

    def __getattr__(self, name: str):
        if name.startswith("_") or "env" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.env, name)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self._load_level(seed)
        else:
            self._load_next_solvable_level()
        self._observation = reset_level(self.env, self.level_seed)
        self.env_context = env_context(self.env)
        self.actions_taken: list[int] = []
        self._bot_action = self._due_action = NO_ACTION
        if self.expert:
            self._bot = BoundedBot(self.env)
            self._ask_bot()
        return self._observe(), self._info()

    def _load_level(self, level_seed: int) -> None:
        self.level_seed = level_seed
        reset_level(self.env, level_seed)
        self.bot_steps = bot_solution_steps(self.env)

    def _load_next_solvable_level(self) -> None:
        for _ in range(MAX_UNSOLVABLE_IN_A_ROW):
            self._load_level(self._next_level_seed())
            if self.bot_steps >= 0:
                return
            self.plan_failures += 1
        raise unsolvable_task(self.task_id)

    def _next_level_seed(self) -> int:
        if self.level_of_episode is None:  # nobody asked for certain levels
            return int(self.np_random.integers(EVAL_SEED_OFFSET))
        self.next_episode += 1
        return self.level_of_episode(self.next_episode - 1)

    def step(self, action):
        self._observation, reward, terminated, truncated, _ = self.env.step(int(action))
        self.actions_taken.append(int(action))
        self._bot_action = self._due_action = NO_ACTION
        if self.expert and not (terminated or truncated) and not self._ask_bot(int(action)):
            truncated = True
            self.plan_failures += 1
        return self._observe(), float(reward), terminated, truncated, self._info()

    def _ask_bot(self, action_taken: int | None = None) -> bool:
        """Note what the bot would do after `action_taken`; return whether it has a plan."""
        action = ask_bot(self._bot, action_taken)
        if action is None:
            return False
        self._bot_action, self._due_action = action, due_action(self._bot)
        return True

    def _observe(self) -> dict:
        return {
            "image": self._observation["image"],
            "direction": np.int64(self._observation["direction"]),
            "carrying": np.array(self.env.carrying is not None, np.int8),
        }

    def _info(self) -> dict:
        info = {
            "mission": self.env.mission,
            "bot_steps": self.bot_steps,
            "agent_pos": np.array(self.env.agent_pos, np.int64),
            "level_seed": self.level_seed,
            "bot_plan_failures": self.plan_failures,
        }
        if self.expert:
            info |= {"bot_action": self._bot_action, "due_action": self._due_action}
        return info

    def render(self) -> np.ndarray:
        return cast(np.ndarray, self.env.render())


def unsolvable_task(task_id: str) -> UserError:
    """Return the error for a task of which the bot cannot solve level after level."""
    return UserError(
        f"the BabyAI bot solved none of {MAX_UNSOLVABLE_IN_A_ROW} levels in a row of {task_id}, so there is nothing to"
        " imitate: choose another task, or a larger max_steps if you have lowered it"
    )


class BabyAIVectorEnv(SyncVectorEnv, LevelVectorEnv):
    """`num_envs` environments of one task or several, stepped one after the other (see the module's docstring).

    `reset(seed=S)` starts the training levels of seed S; `reset(seed=[...])` plays exactly the given levels, and
    `options={"reset_mask": bool [N]}` restarts some of the environments.
    """

    envs: list[BabyAIEnv]
    _env_obs: list[dict]

    def __init__(
        self,
        task_id: str | Sequence[str],
        num_envs: int,
        max_steps: int | None = None,
        expert: bool = True,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        train_levels: int | None = None,
        task_weights: Sequence[float] | None = None,
    ):
        self.train_levels = train_levels
        self.tasks, self._deal = share_out(task_id, num_envs, task_weights)
        self.task_of_env = self._deal.task
        super().__init__(
            [functools.partial(BabyAIEnv, self.tasks[task], max_steps, expert) for task in self.task_of_env],
            autoreset_mode=AutoresetMode(autoreset_mode),
        )

    def reset(self, *, seed: int | Sequence[int] | np.ndarray | None = None, options: dict | None = None):
        check_seeds(seed)
        level_seeds: list[int | None] | None = None
        if isinstance(seed, (Sequence, np.ndarray)):
            level_seeds = [int(level_seed) for level_seed in seed]
        elif seed is not None:
            self._start_levels(operator.index(seed))
        self._begun = True
        return super().reset(seed=level_seeds, options=options)

    def step(self, actions):
        self._check_episodes_run()
        return super().step(actions)

    def _start_levels(self, seed: int) -> None:
        self._seed = seed
        for env, place, count in zip(self.envs, self._deal.place.tolist(), self._deal.count.tolist(), strict=True):
            env.level_of_episode = functools.partial(
                training_level_seed, seed, place, count, train_levels=self.train_levels
            )
            env.next_episode = 0
            env.plan_failures = 0

    def get_state(self) -> dict[str, np.ndarray]:
        """Return all that `set_state` needs to go on from here, in an environment of the same arguments."""
        longest = max(len(env.actions_taken) for env in self.envs)
        return {
            "seed": np.array([self._seed]),
            "next_episode": self.next_episode,
            "plan_failures": np.array([env.plan_failures for env in self.envs]),
            "level_seed": np.array([env.level_seed for env in self.envs]),
            "actions_taken": np.array(
                [env.actions_taken + [NO_ACTION] * (longest - len(env.actions_taken)) for env in self.envs], np.int8
            ),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict]:
        """Go on from a state of `get_state`; return observations and infos, as `reset` does."""
        self._start_levels(int(state["seed"][0]))
        self.reset(seed=state["level_seed"])
        infos: dict = {}
        for index, env in enumerate(self.envs):
            for action in state["actions_taken"][index]:
                if action != NO_ACTION:
                    self._env_obs[index], _, terminated, truncated, _ = env.step(action)
                    self._autoreset_envs[index] = terminated or truncated
            env.next_episode = int(state["next_episode"][index])
            env.plan_failures = int(state["plan_failures"][index])
            infos = self._add_info(infos, env._info(), index)
        observations = concatenate(self.single_observation_space, self._env_obs, self._observations)
        return cast(dict[str, np.ndarray], copy.deepcopy(observations)), infos

    @property
    def next_episode(self) -> np.ndarray:
        """Each environment's next episode, by number, int64 [N]."""
        return np.array([env.next_episode for env in self.envs])

    @property
    def env_contexts(self) -> list[dict]:
        """The running episodes' `env_context` dicts, one per environment."""
        return [env.env_context for env in self.envs]

    @property
    def parts_done(self) -> np.ndarray:
        """Which parts of the running episodes' missions are done, int8 [N, 2] (`rules.LevelVectorEnv`)."""
        return np.array([parts_done(env.env) for env in self.envs], np.int8)
