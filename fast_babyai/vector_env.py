"""The compiled environments as a gymnasium vector environment."""

import operator
from collections.abc import Sequence

import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT
from numba import njit

from fast_babyai.bot import BOT, replan, reset_bot
from fast_babyai.due_action import due_action
from fast_babyai.dynamics import start_level, step, take_in_hand
from fast_babyai.generator import LevelGenerator
from fast_babyai.reference import render_level, share_out, unsolvable_task
from fast_babyai.rules import (
    ACTION_SPACE,
    IMAGE_SHAPE,
    MAX_UNSOLVABLE_IN_A_ROW,
    NO_ACTION,
    NUM_ACTIONS,
    OBSERVATION_SPACE,
    RENDER_FPS,
    LevelVectorEnv,
    check_seeds,
    training_level_seed,
)
from fast_babyai.state import (
    AFTER,
    EMPTY,
    ENV,
    FIRST_INSTR,
    LEVEL,
    MAX_SIZE,
    PUT_NEXT,
    T_BALL,
    T_BOX,
    T_DOOR,
    T_KEY,
    WALL,
)
from fast_babyai.view import observe

ATTRIBUTES = ("mission", "agent_pos", "agent_dir", "step_count", "max_steps")  # minigrid's, of each environment
# One row per environment: what reset and step return, besides the missions.
OUTPUT = np.dtype(
    [
        ("image", np.uint8, IMAGE_SHAPE),
        ("direction", np.int64),
        ("carrying", np.int8),
        ("agent_pos", np.int64, 2),
        ("bot_action", np.int64),
        ("due_action", np.int64),
        ("reward", np.float64),
        ("terminated", np.bool_),
        ("truncated", np.bool_),
        ("planless", np.bool_),  # truncated because the bot has no plan
    ],
    align=True,
)


@njit(cache=True)
def describe(env, output):
    """Write what there is to see to `output`."""
    observe(env, output.image)
    output.direction = env.agent_dir
    output.carrying = env.carrying != EMPTY
    output.agent_pos[0] = env.agent_x
    output.agent_pos[1] = env.agent_y


@njit(cache=True)
def ask_bot(env, bot, action_taken, output, expert):
    """Write what the bot would do now, if it is asked at all."""
    output.bot_action = output.due_action = NO_ACTION
    if expert:
        output.bot_action = replan(env, bot, action_taken)
        if output.bot_action != NO_ACTION:
            output.due_action = due_action(env, bot)


@njit(cache=True)
def begin_episode(env, bot, level, output, expert):
    start_level(env, level)
    describe(env, output)
    take_in_hand(env, level)
    output.carrying = env.carrying != EMPTY
    output.reward = 0
    output.terminated = output.truncated = output.planless = False
    if expert:
        reset_bot(env, bot)
    ask_bot(env, bot, np.int64(NO_ACTION), output, expert)


@njit(cache=True, nogil=True)
def begin_episodes(envs, bots, levels, outputs, mask, expert):
    for i in range(envs.shape[0]):
        if mask[i]:
            begin_episode(envs[i], bots[i], levels[i], outputs[i], expert)


@njit(cache=True)
def act(env, bot, action, output, expert):
    output.reward, output.terminated, output.truncated = step(env, action)
    is_running = expert and not (output.terminated or output.truncated)
    ask_bot(env, bot, action, output, is_running)
    output.planless = is_running and output.bot_action == NO_ACTION
    output.truncated = output.truncated or output.planless


@njit(cache=True, nogil=True)
def step_envs(envs, bots, actions, history, outputs, just_begun, expert):
    """Step the environments that have not `just_begun` and note their actions; return how many of these episodes ended,
    and the steps of the longest one."""
    ended = longest = 0
    for i in range(envs.shape[0]):
        if just_begun[i]:
            continue
        env, output = envs[i], outputs[i]
        history[i, env.step_count] = actions[i]
        act(env, bots[i], actions[i], output, expert)
        describe(env, output)
        ended += output.terminated or output.truncated
        longest = max(longest, env.step_count)
    return ended, longest


@njit(cache=True, nogil=True)
def replay(envs, bots, history, outputs, expert):
    """Take the actions of `history` (up to the first NO_ACTION) in episodes that have just begun."""
    for i in range(envs.shape[0]):
        env, output = envs[i], outputs[i]
        for action in history[i]:
            if action == NO_ACTION:
                break
            act(env, bots[i], np.int64(action), output, expert)
        if env.step_count:
            describe(env, output)


def longer(history: np.ndarray) -> np.ndarray:
    """Return a history of actions [N, steps] with room for as many again."""
    return np.pad(history, ((0, 0), (0, history.shape[1])), constant_values=NO_ACTION)


class FastBabyAIVectorEnv(LevelVectorEnv):
    """N environments of one BabyAI task, or of several side by side, compiled.

    Observations (a Dict space): `image` uint8 [N, 7, 7, 3], `direction` int64 [N], `carrying` int8 [N]. Actions:
    minigrid's seven. Rewards are BabyAI's, and success is reward > 0: BabyAI also terminates failed missions.

    Infos of `reset` and `step`, about the state just returned: `mission` (object [N], text), `bot_action` and
    `due_action` (int64 [N], with `expert`: what the bot would do, and for which of the mission's actions, see
    `LevelVectorEnv`), `bot_steps` (int64 [N], length of the bot's own solution, -1 if it has none), `agent_pos` (int64
    [N, 2]), `level_seed` (int64 [N]), `bot_plan_failures` (int64 [N], levels passed over and episodes cut short for
    want of a plan, since the last seeded reset).

    `reset(seed=S)` starts the training levels of seed S (`rules.training_level_seed`), and episodes follow each other
    as `autoreset_mode` says (see `LevelVectorEnv`); levels that the bot cannot solve are passed over.
    `reset(seed=[...])` plays exactly the given level seeds, and `options={"reset_mask": bool [N]}` restarts some.

    Args:
        task_id: a registered BabyAI task, or several: `["BabyAI-GoToObj-v0", "BabyAI-Open-v0"]`. The attribute
            `task_of_env` says which of `tasks` each environment runs.
        max_steps: the step limit of an episode; None keeps the task's own.
        expert: whether infos carry what the bot would do. Without it no episode is cut short for want of a plan.
        autoreset_mode: gymnasium's, or its name: "SameStep", "NextStep" or "Disabled".
        train_levels: training levels of a task before they repeat, in a new order; None: never.
        task_weights: of several tasks, the share of environments that each has (`rules.deal_environments`); None: all
            alike.

    Raises:
        UserError: unknown task, more tasks than environments, or (on reset) a task of which the bot solves no level.
    """

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
        self.tasks, self._deal = share_out(task_id, num_envs, task_weights)
        self.task_of_env = self._deal.task
        self.num_envs, self.max_steps = num_envs, max_steps
        self.expert, self.train_levels = expert, train_levels
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": RENDER_FPS,
            "autoreset_mode": self.autoreset_mode,
        }
        self.render_mode = "rgb_array"
        self.single_observation_space = OBSERVATION_SPACE
        self.single_action_space = ACTION_SPACE
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self.generators: Sequence[LevelGenerator] = [LevelGenerator(task, max_steps) for task in self.tasks]
        self._envs = np.zeros(num_envs, ENV)
        self._bots = np.zeros(num_envs, BOT)
        self._levels = np.zeros(num_envs, LEVEL)
        self._outputs = np.zeros(num_envs, OUTPUT)
        self._history = np.full((num_envs, 64), NO_ACTION, np.int8)  # of the running episodes: their actions
        self._missions = np.empty(num_envs, object)
        self._bot_steps = np.zeros(num_envs, np.int64)
        self._level_seeds = np.zeros(num_envs, np.int64)
        self.next_episode = np.zeros(num_envs, np.int64)
        self._plan_failures = np.zeros(num_envs, np.int64)
        self._seed: int | None = None
        self._everywhere = np.ones(num_envs, bool)  # where infos tell something: gymnasium's masks
        self._everywhere.flags.writeable = False
        self._nowhere = self._autoreset_envs = ~self._everywhere

    def reset(self, *, seed: int | Sequence[int] | np.ndarray | None = None, options: dict | None = None):
        mask = np.ones(self.num_envs, bool)
        if options is not None and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"])
            if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
                raise ValueError(f"reset_mask must be bool [{self.num_envs}] with something in it, got {mask!r}")
        check_seeds(seed)
        if isinstance(seed, Sequence | np.ndarray):
            if len(seed) != self.num_envs:
                raise ValueError(f"{len(seed)} level seeds for {self.num_envs} environments")
            for index in np.flatnonzero(mask).tolist():
                self._take_level(index, int(seed[index]))
        else:
            if seed is not None or self._seed is None:
                self._seed = int(np.random.default_rng().integers(2**31)) if seed is None else operator.index(seed)
                self.next_episode[:] = 0
                self._plan_failures[:] = 0
            self._take_next_solvable_levels(mask)
        begin_episodes(self._envs, self._bots, self._levels, self._outputs, mask, self.expert)
        self._autoreset_envs = self._autoreset_envs & ~mask
        self._begun = True
        return self._observations(), self._infos()

    def step(self, actions: np.ndarray):
        self._check_episodes_run()
        just_begun = self._autoreset_envs  # with NEXT_STEP: episodes that begin in this step
        actions = np.array(actions, np.int64, order="C")  # a copy: others are read-only, which is compiled anew
        if just_begun.any() and actions.shape == just_begun.shape:
            actions = np.where(just_begun, 0, actions)  # ignored, so it may be anything
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() >= NUM_ACTIONS:
            raise ValueError(f"expected {self.num_envs} actions from 0 to {NUM_ACTIONS - 1}, got {actions!r}")
        outputs = self._outputs
        if just_begun.any():
            self._take_next_solvable_levels(just_begun)
            begin_episodes(self._envs, self._bots, self._levels, outputs, just_begun, self.expert)
        ended, longest = step_envs(self._envs, self._bots, actions, self._history, outputs, just_begun, self.expert)
        if longest == self._history.shape[1]:
            self._history = longer(self._history)
        rewards, terminated, truncated = (outputs[name].copy() for name in ("reward", "terminated", "truncated"))
        if not ended:
            self._autoreset_envs = self._nowhere
            return self._observations(), rewards, terminated, truncated, self._infos()

        self._plan_failures += outputs["planless"]
        done = terminated | truncated
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._autoreset_envs = done
            return self._observations(), rewards, terminated, truncated, self._infos()
        final = self._final_infos(done)
        self._take_next_solvable_levels(done)
        begin_episodes(self._envs, self._bots, self._levels, outputs, done, self.expert)
        return self._observations(), rewards, terminated, truncated, self._infos() | final

    def _observations(self) -> dict[str, np.ndarray]:
        return {name: self._outputs[name].copy() for name in ("image", "direction", "carrying")}

    def _infos(self) -> dict[str, np.ndarray]:
        infos = {
            "mission": self._missions.copy(),
            "bot_steps": self._bot_steps.copy(),
            "agent_pos": self._outputs["agent_pos"].copy(),
            "level_seed": self._level_seeds.copy(),
            "bot_plan_failures": self._plan_failures.copy(),
        }
        if self.expert:
            infos |= {name: self._outputs[name].copy() for name in ("bot_action", "due_action")}
        return infos | dict.fromkeys([f"_{name}" for name in infos], self._everywhere)

    def _final_infos(self, done: np.ndarray) -> dict:
        """Return the last observations and infos of the episodes that ended, as SyncVectorEnv does."""
        final_obs = np.full(self.num_envs, None, object)
        observations = self._observations()
        for index in np.flatnonzero(done):
            final_obs[index] = {name: values[index] for name, values in observations.items()}
        final_info = self._infos()
        final_info |= dict.fromkeys([name for name in final_info if name.startswith("_")], done)
        return {"final_obs": final_obs, "_final_obs": done, "final_info": final_info, "_final_info": done}

    def _take_level(self, index: int, level_seed: int) -> None:
        generator = self.generators[self.task_of_env[index]]
        generator.generate(self._levels, index, level_seed)
        self._missions[index] = generator.mission(self._levels[index])
        self._bot_steps[index] = self._levels["bot_steps"][index]
        self._level_seeds[index] = level_seed
        self._history[index] = NO_ACTION

    def _take_next_solvable_levels(self, mask: np.ndarray) -> None:
        for index in np.flatnonzero(mask).tolist():
            self._take_next_solvable_level(index)

    def _take_next_solvable_level(self, index: int) -> None:
        seed = 0 if self._seed is None else self._seed  # none yet where only certain levels were asked for
        place, count = int(self._deal.place[index]), int(self._deal.count[index])
        for _ in range(MAX_UNSOLVABLE_IN_A_ROW):
            episode = int(self.next_episode[index])
            level_seed = training_level_seed(seed, place, count, episode, self.train_levels)
            self.next_episode[index] += 1
            self._take_level(index, int(level_seed))
            if self._bot_steps[index] >= 0:
                return
            self._plan_failures[index] += 1
        raise unsolvable_task(self.tasks[self.task_of_env[index]])

    def get_state(self) -> dict[str, np.ndarray]:
        """Return all that `set_state` needs to go on from here, in an environment of the same arguments."""
        return {
            "seed": np.array([self._seed]),
            "next_episode": self.next_episode.copy(),
            "plan_failures": self._plan_failures.copy(),
            "level_seed": self._level_seeds.copy(),
            "actions_taken": self._history[:, : max(1, self._envs["step_count"].max())].copy(),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict]:
        """Go on from a state of `get_state`; return observations and infos, as `reset` does."""
        self._seed = int(state["seed"][0])
        self.reset(seed=state["level_seed"])
        self.next_episode[:] = state["next_episode"]
        self._plan_failures[:] = state["plan_failures"]
        self._history = longer(state["actions_taken"].astype(np.int8))
        replay(self._envs, self._bots, self._history, self._outputs, self.expert)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._autoreset_envs = self._outputs["terminated"] | self._outputs["truncated"]
        return self._observations(), self._infos()

    @property
    def env_contexts(self) -> Sequence[dict]:
        """What plots need to know of the running levels: per environment, the `env_context` of a routing cache."""
        return LevelContexts(self._levels.copy())

    @property
    def parts_done(self) -> np.ndarray:
        """Which parts of the running episodes' missions are done, int8 [N, 2] (`rules.LevelVectorEnv`)."""
        first, second = (self._envs[name][:, 0].astype(np.int8) for name in ("a_done", "b_done"))
        is_after = self._envs["node_kind"][:, 0] == AFTER  # the verifier calls the part that comes first in time a
        done = np.column_stack([np.where(is_after, second, first), np.where(is_after, first, second)])
        done[self._envs["root"] >= FIRST_INSTR] = -1
        return done

    def get_attr(self, name: str) -> tuple:
        """Return an attribute of each environment, by minigrid's name for it; there are those of ATTRIBUTES.

        Raises:
            AttributeError: another name.
        """
        if name not in ATTRIBUTES:
            raise AttributeError(f"compiled environments have no attribute {name!r}, but {', '.join(ATTRIBUTES)}")
        if name == "mission":
            return tuple(self._missions)
        if name == "agent_pos":
            return tuple((int(x), int(y)) for x, y in zip(self._envs["agent_x"], self._envs["agent_y"], strict=True))
        return tuple(self._envs[name].tolist())

    def call(self, name: str, *args, **kwargs) -> tuple:
        """Call a method of each environment: `render`, or an attribute (`get_attr`), as gymnasium has it."""
        return self.render() if name == "render" else self.get_attr(name)

    def set_attr(self, name: str, values) -> None:
        """Refuse: what a compiled environment is made of is set by its arguments.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(f"{name} of compiled environments cannot be set; make them anew with other arguments")

    def render(self) -> tuple[np.ndarray, ...]:
        """Return minigrid's picture of every environment, uint8 [height, width, 3] each."""
        episodes = zip(self.task_of_env, self._level_seeds, self._history, self._envs["step_count"], strict=True)
        return tuple(
            render_level(self.tasks[task], int(seed), history[:count], self.max_steps)
            for task, seed, history, count in episodes
        )


class LevelContexts(Sequence):
    """The `env_context` of each level, made when asked for: it takes as long as some hundred steps."""

    def __init__(self, levels: np.ndarray):
        self._levels = levels

    def __len__(self) -> int:
        return len(self._levels)

    def __getitem__(self, index: int) -> dict:
        return level_context(self._levels[index])


def level_context(level: np.void) -> dict:
    """Return the `env_context` of a LEVEL record, as `reference.env_context` does of minigrid's environment."""
    env = np.zeros(1, ENV)
    start_level(env[0], level)
    env = env[0]

    def cell(content: int, x: int, y: int) -> dict:
        kind = int(env["object_type"][content])
        entry = {
            "type": IDX_TO_OBJECT[kind],
            "color": IDX_TO_COLOR[int(env["object_color"][content])],
            "position": [x, y],
        }
        if kind == T_DOOR:
            entry["state"] = "open" if env["is_open"][content] else "locked" if env["is_locked"][content] else "closed"
        return entry

    carried = int(level["carrying"])
    grid = level["grid"][: level["width"], : level["height"]]
    by_type: dict[int, list] = {T_DOOR: [], T_KEY: [], T_BALL: [], T_BOX: []}
    for x, y in np.argwhere(grid > WALL).tolist():
        content = int(grid[x, y])
        if content != carried:
            by_type[int(env["object_type"][content])].append(cell(content, x, y))
    goals = {}
    for desc in _descriptions_as_named(level):
        for place in range(env["num_objs"][desc]):
            content = int(env["objs"][desc, place])
            x, y = divmod(int(env["poss"][desc, place]), MAX_SIZE)
            if content != WALL:
                goals[x, y] = cell(content, x, y)
    start = [int(level["agent_x"]), int(level["agent_y"])]
    return {
        "grid_size": [int(level["width"]), int(level["height"])],
        "agent_start_pos": start,
        "agent_start_room": [coordinate // (int(level["room_size"]) - 1) for coordinate in start],
        "room_grid_shape": [int(level["num_cols"]), int(level["num_rows"])],
        "room_size": int(level["room_size"]),
        "goals": list(goals.values()),
        "doors": by_type[T_DOOR],
        "keys": by_type[T_KEY],
        "balls": by_type[T_BALL],
        "boxes": by_type[T_BOX],
        "walls": np.argwhere(grid == WALL).tolist(),
    }


def _descriptions_as_named(level: np.void) -> list[int]:
    """Return a level's descriptions in the order in which the mission names its parts."""

    def of_part(part: int) -> list[int]:
        if part < FIRST_INSTR:
            return of_part(int(level["node_a"][part])) + of_part(int(level["node_b"][part]))
        instr = part - FIRST_INSTR
        count = 2 if level["instr_kind"][instr] == PUT_NEXT else 1
        return [int(desc) for desc in level["instr_desc"][instr, :count]]

    return of_part(int(level["root"]))
