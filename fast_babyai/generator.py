"""Levels by level seed: compiled, and where the compiled generator does not know a task, by minigrid itself.

Both make the level that minigrid's `env.reset(seed=...)` makes, bit for bit, as a LEVEL record.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.envs import babyai
from minigrid.envs.babyai.core.levelgen import LevelGen
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from numba import int64, njit, void

from basics.errors import UserError, warn
from fast_babyai import tasks
from fast_babyai.bot import BOT, bot_solution_steps
from fast_babyai.draft import DRAFT, ENV_TYPE, LEVEL_TYPE, MAX_ROOMS, TASK, TASK_TYPE, compiled, stay_out_of_line
from fast_babyai.dynamics import copy_instruction, start_level, take_in_hand
from fast_babyai.instructions import arrange_instruction, validate_instrs
from fast_babyai.levels import INSTR_KINDS_BY_NAME, level_of, mission_text
from fast_babyai.random_stream import seed_stream
from fast_babyai.reference import make_level_env, reset_level
from fast_babyai.rooms import build_rooms
from fast_babyai.rules import VIEW
from fast_babyai.state import ANY, EMPTY, ENV, FIRST_OBJECT, LEVEL, MAX_OBJECTS, MAX_SIZE, NO_NODE, PUT_NEXT, WALL
from fast_babyai.tasks import ANYHOW, BY_COLOR, BY_LOCATION, ONE_ACTION, SEQUENCE, TWO_ACTIONS, gen_mission

MAX_ATTEMPTS = 100_000  # at one level; the tasks that reject most need some hundred


class Family(NamedTuple):
    """What the compiled generator knows of one of minigrid's level classes.

    Attributes:
        number: of its function, in `tasks.gen_mission`.
        columns, rows: of rooms, that it needs at least.
    """

    number: int
    columns: int = 1
    rows: int = 1


FAMILIES = {
    babyai.GoToRedBallGrey: Family(tasks.GO_TO_RED_BALL_GREY),
    babyai.GoToRedBall: Family(tasks.GO_TO_RED_BALL),
    babyai.GoToRedBallNoDists: Family(tasks.GO_TO_RED_BALL),
    babyai.GoToObj: Family(tasks.GO_TO_OBJ),
    babyai.GoToLocal: Family(tasks.GO_TO_LOCAL),
    babyai.GoTo: Family(tasks.GO_TO_ANY),
    babyai.GoToImpUnlock: Family(tasks.GO_TO_IMP_UNLOCK, 2, 2),
    babyai.GoToRedBlueBall: Family(tasks.GO_TO_RED_BLUE_BALL),
    babyai.GoToDoor: Family(tasks.GO_TO_DOOR, 3, 3),
    babyai.GoToObjDoor: Family(tasks.GO_TO_OBJ_DOOR, 3, 3),
    babyai.Open: Family(tasks.OPEN_ANY, 2, 2),
    babyai.OpenRedDoor: Family(tasks.OPEN_RED_DOOR, 2, 1),
    babyai.OpenDoor: Family(tasks.OPEN_DOOR, 3, 3),
    babyai.OpenTwoDoors: Family(tasks.OPEN_TWO_DOORS, 3, 2),
    babyai.OpenDoorsOrder: Family(tasks.OPEN_DOORS_ORDER, 3, 3),
    babyai.ActionObjDoor: Family(tasks.ACTION_OBJ_DOOR, 3, 3),
    babyai.FindObjS5: Family(tasks.FIND_OBJ, 2, 2),
    babyai.KeyCorridor: Family(tasks.KEY_CORRIDOR, 3, 1),
    babyai.OneRoomS8: Family(tasks.ONE_ROOM),
    babyai.MoveTwoAcross: Family(tasks.MOVE_TWO_ACROSS, 2, 1),
    babyai.Pickup: Family(tasks.PICKUP_ANY),
    babyai.UnblockPickup: Family(tasks.UNBLOCK_PICKUP),
    babyai.PickupDist: Family(tasks.PICKUP_DIST),
    babyai.PickupAbove: Family(tasks.PICKUP_ABOVE, 2, 2),
    babyai.PutNextLocal: Family(tasks.PUT_NEXT_LOCAL),
    babyai.PutNext: Family(tasks.PUT_NEXT_ACROSS, 2, 1),
    babyai.Unlock: Family(tasks.UNLOCK, 2, 2),
    babyai.UnlockLocal: Family(tasks.UNLOCK_LOCAL, 2, 2),
    babyai.KeyInBox: Family(tasks.KEY_IN_BOX, 2, 2),
    babyai.UnlockPickup: Family(tasks.UNLOCK_PICKUP, 2, 1),
    babyai.BlockedUnlockPickup: Family(tasks.BLOCKED_UNLOCK_PICKUP, 2, 1),
    babyai.UnlockToUnlock: Family(tasks.UNLOCK_TO_UNLOCK, 3, 1),
    LevelGen: Family(tasks.LEVEL_GEN),
    babyai.GoToSeq: Family(tasks.LEVEL_GEN),
    babyai.PickupLoc: Family(tasks.LEVEL_GEN),
    babyai.Synth: Family(tasks.LEVEL_GEN),
    babyai.SynthLoc: Family(tasks.LEVEL_GEN),
    babyai.SynthSeq: Family(tasks.LEVEL_GEN),
    babyai.MiniBossLevel: Family(tasks.LEVEL_GEN),
    babyai.BossLevel: Family(tasks.LEVEL_GEN),
    babyai.BossLevelNoUnlock: Family(tasks.LEVEL_GEN),
}
NUM_OBJECTS = ("num_dists", "num_objs", "objs_per_room", "num_doors")  # what level classes call it
MOST_OBJECTS = {tasks.OPEN_DOORS_ORDER: 4, tasks.PUT_NEXT_LOCAL: 18}  # walls of a room; kinds and colors of objects
SELECT_BY = {None: ANYHOW, "color": BY_COLOR, "loc": BY_LOCATION}
INSTR_FORMS = {"action": ONE_ACTION, "and": TWO_ACTIONS, "seq": SEQUENCE}


def task_parameters(env: RoomGridLevel) -> np.ndarray | None:
    """Return a TASK array of shape [1] for the levels of minigrid's `env`, or None if they are not known here: levels
    of another class, or with parameters that the compiled generator has no place for."""
    family = FAMILIES.get(type(env))
    if family is None or env.agent_view_size != VIEW or env.see_through_walls:
        return None
    if max(env.width, env.height) > MAX_SIZE or env.num_cols * env.num_rows > MAX_ROOMS:
        return None
    if env.num_cols < family.columns or env.num_rows < family.rows:
        return None
    num_objects = next((getattr(env, name) for name in NUM_OBJECTS if hasattr(env, name)), 0)
    if num_objects > MOST_OBJECTS.get(family.number, num_objects):
        return None  # minigrid looks for another one forever
    parameters = {
        "family": family.number,
        "room_size": env.room_size,
        "num_cols": env.num_cols,
        "num_rows": env.num_rows,
        "max_steps": env.max_steps if env.fixed_max_steps else 0,
        "num_objects": num_objects,
        "strict": getattr(env, "strict", False) or getattr(env, "debug", False),
    }
    for name in ("doors_open", "distractors", "start_carrying"):
        parameters[name] = getattr(env, name, False)
    try:
        if isinstance(env, babyai.KeyCorridor):
            parameters["object_type"] = ANY if env.obj_type is None else OBJECT_TO_IDX[env.obj_type]
        elif isinstance(env, babyai.OpenDoor):
            parameters["select_by"] = SELECT_BY[env.select_by]
        elif family.number == tasks.OPEN_TWO_DOORS:
            for name in ("first_color", "second_color"):
                color = getattr(env, name)
                parameters[name] = ANY if color is None else COLOR_TO_IDX[color]
        elif family.number == tasks.FIND_OBJ and env.num_cols != env.num_rows:
            return None
        elif isinstance(env, LevelGen):
            for name in ("locked_room_prob", "locations", "unblocking", "implicit_unlock"):
                parameters[name] = getattr(env, name)
            parameters["num_action_kinds"] = len(env.action_kinds)
            parameters["num_instr_kinds"] = len(env.instr_kinds)
            if env.locked_room_prob > 0 and env.num_cols * env.num_rows == 1:
                return None
    except KeyError:
        return None
    task = np.zeros(1, TASK)
    for name, value in parameters.items():
        task[name] = value
    if isinstance(env, LevelGen):
        try:
            task["action_kinds"][0, : len(env.action_kinds)] = [INSTR_KINDS_BY_NAME[kind] for kind in env.action_kinds]
            task["instr_kinds"][0, : len(env.instr_kinds)] = [INSTR_FORMS[kind] for kind in env.instr_kinds]
        except (KeyError, ValueError):
            return None
    return task


@compiled(void(ENV_TYPE, LEVEL_TYPE, int64, int64))
def copy_object(env, level, content, number):
    level.object_type[number] = env.object_type[content]
    level.object_color[number] = env.object_color[content]
    level.object_x[number] = env.object_x[content]
    level.object_y[number] = env.object_y[content]
    level.is_open[number] = env.is_open[content]
    level.is_locked[number] = env.is_locked[content]


@compiled(void(ENV_TYPE, LEVEL_TYPE))
def write_objects(env, level):
    """Copy the grid and its objects, which are numbered anew: column by column, what is in a box after the box, and
    last what the agent is to carry."""
    stay_out_of_line()
    for x in range(MAX_SIZE):
        for y in range(MAX_SIZE):
            level.grid[x, y] = EMPTY
    for number in range(MAX_OBJECTS):
        level.object_type[number] = level.object_color[number] = level.contains[number] = 0
        level.object_x[number] = level.object_y[number] = 0
        level.is_open[number] = level.is_locked[number] = False
    number = FIRST_OBJECT
    for x in range(env.width):
        for y in range(env.height):
            content = env.grid[x, y]
            level.grid[x, y] = content
            if content <= WALL or content == env.carrying:
                continue
            level.grid[x, y] = number
            copy_object(env, level, content, number)
            number += 1
            if env.contains[content] != EMPTY:
                level.contains[number - 1] = number
                copy_object(env, level, env.contains[content], number)
                number += 1
    level.carrying = EMPTY
    if env.carrying != EMPTY:
        level.carrying = number
        copy_object(env, level, env.carrying, number)
        level.grid[env.object_x[env.carrying], env.object_y[env.carrying]] = number


@compiled(int64(ENV_TYPE, TASK_TYPE))
def step_limit(env, task):
    """Return the task's own limit, or what BabyAI allows for the maze's size and the instruction."""
    if task.max_steps:
        return task.max_steps
    navigations = 0
    for instr in range(env.num_instrs):
        navigations += 2 if env.instr_kind[instr] == PUT_NEXT else 1
    return navigations * env.room_size**2 * env.num_rows * env.num_cols


@compiled(void(ENV_TYPE, TASK_TYPE, LEVEL_TYPE, int64))
def write_level(env, task, level, level_seed):
    level.seed = level_seed
    level.max_steps = step_limit(env, task)
    level.width = env.width
    level.height = env.height
    level.room_size = env.room_size
    level.num_cols = env.num_cols
    level.num_rows = env.num_rows
    level.agent_x = env.agent_x
    level.agent_y = env.agent_y
    level.agent_dir = env.agent_dir
    write_objects(env, level)
    copy_instruction(env, level)


@njit(cache=True, nogil=True)
def generate_level(tasks, levels, index, level_seed, envs, drafts):
    """Write the level of a seed to `levels[index]`, all but `bot_steps`; return how many attempts it took, 0 if none
    succeeded. The first of `envs` and `drafts` are to work in.

    From Python come arrays, and not their elements: numba takes 5 us to look into each of those.
    """
    task, level, env, draft = tasks[0], levels[index], envs[0], drafts[0]
    env.room_size = task.room_size
    env.num_cols = task.num_cols
    env.num_rows = task.num_rows
    env.width = (task.room_size - 1) * task.num_cols + 1
    env.height = (task.room_size - 1) * task.num_rows + 1
    draft.is_full = False
    draft.agent_placements = 0
    seed_stream(draft.random, level_seed)
    for attempt in range(MAX_ATTEMPTS):
        try:
            draft.num_instrs = 0
            draft.connective = NO_NODE
            env.carrying = EMPTY
            build_rooms(env, draft)
            gen_mission(env, draft, task)
            arrange_instruction(env, draft)
            validate_instrs(env, draft, task.unblocking)
        except Exception:  # Rejected: numba knows no other kind of handler
            if draft.is_full:
                return 0
            continue
        write_level(env, task, level, level_seed)
        return attempt + 1
    return 0


@njit(cache=True, nogil=True)
def solve_level(levels, index, envs, bots):
    """Let the bot play a level; write its number of steps, or -1, to `bot_steps`."""
    level, env, bot = levels[index], envs[0], bots[0]
    start_level(env, level)
    take_in_hand(env, level)
    level.bot_steps = bot_solution_steps(env, bot)


@functools.cache
def _tell_of_minigrid(task_id: str) -> None:
    warn(
        f"the compiled generator does not know levels of the kind of {task_id}: minigrid generates them, which takes"
        " milliseconds a level instead of microseconds"
    )


class LevelGenerator:
    """The levels of a task with a step limit, by level seed.

    Args:
        task_id: a registered BabyAI task.
        max_steps: the step limit, None for the task's own.

    Raises:
        UserError: unknown task.
    """

    def __init__(self, task_id: str, max_steps: int | None = None):
        self.task_id = task_id
        self.env = make_level_env(task_id, max_steps)
        self.task = task_parameters(self.env)
        if self.task is None:
            _tell_of_minigrid(task_id)
        self._env, self._draft, self._bot = np.zeros(1, ENV), np.zeros(1, DRAFT), np.zeros(1, BOT)
        self._env_seed = None  # of the level that minigrid's environment is at

    def generate(self, levels: np.ndarray, index: int, level_seed: int) -> None:
        """Write the level of a seed, and how many steps the bot needs for it, to an element of a LEVEL array.

        Raises:
            ValueError: no seed.
            UserError: the task's levels cannot be generated, or have no place in a LEVEL.
        """
        if level_seed < 0:
            raise ValueError(f"a level seed is 0 or more, got {level_seed}")
        if self.task is None:
            self._generate_with_minigrid(levels, index, level_seed)
        elif not generate_level(self.task, levels, index, level_seed, self._env, self._draft):
            if self._draft["is_full"][0]:
                raise self._unfit(f"more than {MAX_OBJECTS - FIRST_OBJECT} objects")
            raise UserError(f"level {level_seed} of {self.task_id}: none of {MAX_ATTEMPTS} attempts was acceptable")
        solve_level(levels, index, self._env, self._bot)

    def missions(self, level_seeds: Iterable[int]) -> list[str]:
        """Return the missions of levels."""
        levels, missions = np.zeros(1, LEVEL), []
        for level_seed in level_seeds:
            self.generate(levels, 0, level_seed)
            missions.append(self.mission(levels[0]))
        return missions

    def mission(self, level: np.void) -> str:
        """Return the text of a level's mission."""
        if self.task is not None:
            return mission_text(level)
        self._reset_minigrid(int(level["seed"]))
        return self.env.mission

    def _reset_minigrid(self, level_seed: int) -> None:
        if level_seed != self._env_seed:
            reset_level(self.env, level_seed)
            self._env_seed = level_seed

    def _generate_with_minigrid(self, levels: np.ndarray, index: int, level_seed: int) -> None:
        self._reset_minigrid(level_seed)
        try:
            levels[index] = level_of(self.env, level_seed)
        except ValueError as error:
            raise self._unfit(str(error)) from None

    def _unfit(self, reason: str) -> UserError:
        return UserError(
            f"levels of {self.task_id} do not fit the compiled environment ({reason}): use backend: minigrid"
        )
