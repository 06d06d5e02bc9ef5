"""What each BabyAI task puts into its rooms and asks for: the `gen_mission` of minigrid's level classes, compiled.

A task is a level class with parameters. Every class has a function here that makes the same draws in the same order;
TASK holds the parameters of all of them. `FAMILIES` says which function belongs to which of minigrid's classes.
"""

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.envs import babyai
from minigrid.envs.babyai.core.levelgen import LevelGen
from numba import boolean, from_dtype, int64, njit, void

from fast_babyai.random_stream import seed_stream, uniform
from fast_babyai.rooms import (
    ANY_ROOM, compiled, ENV_TYPE, DRAFT_TYPE,
    COLORS,
    DRAFT,
    MAX_ROOMS,
    NO_DOOR,
    NO_WALL,
    Rejected,
    add_distractors,
    add_door,
    add_object,
    build_rooms,
    check_objs_reachable,
    connect_all,
    neighbour,
    new_object,
    objs_reachable,
    place_agent,
    place_agent_outside_of,
    place_in_room,
    rand_bool,
    rand_color,
    rand_int,
    rand_room,
    rand_subset, stay_out_of_line,
    remove_wall,
    room_at,
)
from fast_babyai.state import (
    AFTER,
    AND,
    ANY,
    ANYWHERE,
    BEFORE,
    BEHIND,
    EMPTY,
    FIRST_INSTR,
    FIRST_OBJECT,
    GO_TO,
    GREY,
    LEVEL,
    IN_FRONT,
    MAX_DESCS,
    MAX_INSTRS,
    MAX_OBJECTS,
    MAX_SIZE,
    NO_NODE,
    ON_THE_LEFT,
    ON_THE_RIGHT,
    OPEN,
    PICK_UP,
    PUT_NEXT,
    T_BALL,
    T_BOX,
    T_DOOR,
    T_KEY,
    WALL,
)
from fast_babyai.verifier import find_matching_objs

RED, BLUE = COLOR_TO_IDX["red"], COLOR_TO_IDX["blue"]
RIGHT_SIDE, LEFT_SIDE, UP_SIDE = 0, 2, 3
MAX_OBJECT_TRIES = 100  # of LevelGen, to find a description that matches something

# in the order in which minigrid draws them
DESCRIBED_TYPES = np.array([T_BOX, T_BALL, T_KEY, T_DOOR])
DESCRIBED_COLORS = np.array([ANY, *COLORS])
LOCATIONS = np.array([ON_THE_LEFT, ON_THE_RIGHT, IN_FRONT, BEHIND])

BY_COLOR, BY_LOCATION, BY_TYPE = 1, 2, 3
ONE_ACTION, TWO_ACTIONS, SEQUENCE = range(3)

TASK = np.dtype(
    [
        ("family", np.int64),
        ("room_size", np.int64),
        ("num_cols", np.int64),
        ("num_rows", np.int64),
        ("max_steps", np.int64),  # 0: from the size of the maze and the instruction
        ("num_objects", np.int64),  # or doors
        ("object_type", np.int64),
        ("first_color", np.int64),
        ("second_color", np.int64),
        ("select_by", np.int64),  # 0: at random
        ("strict", np.bool_),
        ("doors_open", np.bool_),
        ("distractors", np.bool_),
        ("start_carrying", np.bool_),
        # of LevelGen
        ("locked_room_prob", np.float64),
        ("locations", np.bool_),
        ("unblocking", np.bool_),
        ("implicit_unlock", np.bool_),
        ("num_action_kinds", np.int64),
        ("action_kinds", np.int64, 4),
        ("num_instr_kinds", np.int64),
        ("instr_kinds", np.int64, 3),
    ],
    align=True,
)


TASK_TYPE, LEVEL_TYPE = from_dtype(TASK), from_dtype(LEVEL)

# ---------------------------------------------------------------------------------------------------------------------
# Instructions


@compiled(void(DRAFT_TYPE, int64, int64, int64, int64))
def describe(draft, part, kind, color, location):
    """Set the object (part 0), or what it is to be put next to (part 1), of the action that is added next."""
    stay_out_of_line()
    draft.desc_type[draft.num_instrs, part] = kind
    draft.desc_color[draft.num_instrs, part] = color
    draft.desc_location[draft.num_instrs, part] = location


@compiled(void(DRAFT_TYPE, int64, boolean))
def add_instr(draft, kind, strict):
    stay_out_of_line()
    draft.instr_kind[draft.num_instrs] = kind
    draft.instr_strict[draft.num_instrs] = strict
    draft.num_instrs += 1


@compiled(void(DRAFT_TYPE, int64))
def connect_instrs(draft, connective):
    """Join the actions so far with those that follow by BEFORE or AFTER."""
    draft.connective = connective
    draft.num_first = draft.num_instrs


@compiled(void(ENV_TYPE, DRAFT_TYPE, int64, int64, boolean))
def instr_about(env, draft, kind, number, strict):
    """Ask for an action with an object, described by its type and color."""
    stay_out_of_line()
    describe(draft, 0, env.object_type[number], env.object_color[number], ANYWHERE)
    add_instr(draft, kind, strict)


@compiled(void(ENV_TYPE, DRAFT_TYPE, int64, int64))
def put_next(env, draft, number, fixed):
    stay_out_of_line()
    describe(draft, 1, env.object_type[fixed], env.object_color[fixed], ANYWHERE)
    instr_about(env, draft, PUT_NEXT, number, False)


@compiled(int64(ENV_TYPE, int64[::1], int64, int64, int64))
def part_of_group(env, place_of, first, count, node):
    """Return the number of a part of the mission: of its single action, or of `node`, two actions joined by "and"."""
    if count == 1:
        return FIRST_INSTR + place_of[first]
    env.node_kind[node] = AND
    env.node_a[node] = FIRST_INSTR + place_of[first]
    env.node_b[node] = FIRST_INSTR + place_of[first + 1]
    return node


@compiled(void(ENV_TYPE, DRAFT_TYPE))
def arrange_instruction(env, draft):
    """Write the instruction as the verifier and the bot read it: the bot's last action first."""
    stay_out_of_line()
    count = draft.num_instrs
    num_first = count if draft.connective == NO_NODE else draft.num_first
    place_of = np.zeros(MAX_INSTRS, np.int64)
    for mention in range(count):
        if draft.connective != AFTER:
            place_of[mention] = count - 1 - mention
        elif mention < num_first:
            place_of[mention] = num_first - 1 - mention
        else:
            place_of[mention] = count - 1 - (mention - num_first)

    env.num_instrs = count
    for place in range(MAX_INSTRS):
        env.instr_kind[place] = env.instr_strict[place] = 0
        env.instr_desc[place, 0] = env.instr_desc[place, 1] = 0
    for desc in range(MAX_DESCS):
        env.desc_type[desc] = env.desc_color[desc] = env.desc_location[desc] = env.desc_many[desc] = 0
    for node in range(3):
        env.node_kind[node] = env.node_strict[node] = env.node_a[node] = env.node_b[node] = 0
    for mention in range(count):
        env.instr_kind[place_of[mention]] = draft.instr_kind[mention]
        env.instr_strict[place_of[mention]] = draft.instr_strict[mention]
    env.num_descs = 0
    for place in range(count):
        for mention in range(count):
            if place_of[mention] == place:
                for part in range(2 if draft.instr_kind[mention] == PUT_NEXT else 1):
                    env.instr_desc[place, part] = env.num_descs
                    env.desc_type[env.num_descs] = draft.desc_type[mention, part]
                    env.desc_color[env.num_descs] = draft.desc_color[mention, part]
                    env.desc_location[env.num_descs] = draft.desc_location[mention, part]
                    env.num_descs += 1

    if draft.connective == NO_NODE:
        env.root = part_of_group(env, place_of, 0, count, 0)
        return
    env.root = 0
    env.node_kind[0] = draft.connective
    env.node_a[0] = part_of_group(env, place_of, 0, num_first, 1)
    env.node_b[0] = part_of_group(env, place_of, num_first, count - num_first, 1 if num_first == 1 else 2)


@compiled(boolean(ENV_TYPE, DRAFT_TYPE, int64))
def is_key_of_locked_door(env, draft, desc):
    """Whether a description is of a key of the same color as a locked door."""
    if env.desc_type[desc] != T_KEY:
        return False
    for number in range(FIRST_OBJECT, draft.num_objects):
        if env.is_locked[number] and env.object_color[number] == env.desc_color[desc]:
            return True
    return False


@compiled(boolean(ENV_TYPE, int64, int64))
def can_be_put_next(env, move, fixed):
    """Whether no object matches both descriptions, and none of the first lies next to one of the second."""
    for i in range(env.num_objs[move]):
        content = env.objs[move, i]
        if env.is_tracked[fixed, content]:
            return False
        for j in range(env.num_poss[fixed]):
            cell = env.poss[fixed, j]
            if abs(env.object_x[content] - cell // MAX_SIZE) + abs(env.object_y[content] - cell % MAX_SIZE) == 1:
                return False
    return True


@compiled(void(ENV_TYPE, DRAFT_TYPE, boolean))
def validate_instrs(env, draft, unblocking):
    """Reject what minigrid rejects; note which descriptions match several objects."""
    stay_out_of_line()
    env.start_x, env.start_y, env.start_dir = env.agent_x, env.agent_y, env.agent_dir
    for desc in range(env.num_descs):
        find_matching_objs(env, np.int32(desc))
        env.desc_many[desc] = env.num_objs[desc] > 1
        if unblocking and is_key_of_locked_door(env, draft, desc):
            raise Rejected
    for instr in range(env.num_instrs):
        if env.instr_kind[instr] == PUT_NEXT and not can_be_put_next(
            env, np.int64(env.instr_desc[instr, 0]), np.int64(env.instr_desc[instr, 1])
        ):
            raise Rejected


# ---------------------------------------------------------------------------------------------------------------------
# goto.py


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def go_to_red_ball_grey(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    ball = add_object(env, draft, 0, T_BALL, RED)
    first = add_distractors(env, draft, ANY_ROOM, task.num_objects, False)
    for number in range(first, first + task.num_objects):
        env.object_color[number] = GREY
    check_objs_reachable(env, draft)
    instr_about(env, draft, GO_TO, ball, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def go_to_red_ball(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    ball = add_object(env, draft, 0, T_BALL, RED)
    add_distractors(env, draft, ANY_ROOM, task.num_objects, False)
    check_objs_reachable(env, draft)
    instr_about(env, draft, GO_TO, ball, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def go_to_obj(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    instr_about(env, draft, GO_TO, add_distractors(env, draft, ANY_ROOM, 1, True), False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def go_to_local(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    first = add_distractors(env, draft, ANY_ROOM, task.num_objects, False)
    check_objs_reachable(env, draft)
    instr_about(env, draft, GO_TO, first + rand_int(draft, 0, task.num_objects), False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def go_to(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    connect_all(env, draft, ANY)
    first = add_distractors(env, draft, ANY_ROOM, task.num_objects, False)
    check_objs_reachable(env, draft)
    instr_about(env, draft, GO_TO, first + rand_int(draft, 0, task.num_objects), False)
    if task.doors_open:
        for number in range(FIRST_OBJECT, draft.num_objects):
            env.is_open[number] = env.object_type[number] == T_DOOR


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def go_to_imp_unlock(env, draft, task):
    locked_room = rand_room(env, draft)
    door = add_door(env, draft, locked_room, ANY, ANY, 1)
    # minigrid compares the rooms' numbers by identity, and means equality: the key may well be in the locked room, and
    # no room is spared the distractors
    add_object(env, draft, rand_room(env, draft), T_KEY, np.int64(env.object_color[door]))
    connect_all(env, draft, ANY)
    for column in range(env.num_cols):
        for row in range(env.num_rows):
            add_distractors(env, draft, room_at(env, column, row), 2, False)
    place_agent_outside_of(env, draft, locked_room)
    check_objs_reachable(env, draft)
    instr_about(env, draft, GO_TO, add_distractors(env, draft, locked_room, 1, False), False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def go_to_red_blue_ball(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    first = add_distractors(env, draft, ANY_ROOM, task.num_objects, False)
    for number in range(first, first + task.num_objects):
        if env.object_type[number] == T_BALL and env.object_color[number] in (RED, BLUE):
            raise Rejected
    color = RED if rand_int(draft, 0, 2) == 0 else BLUE
    ball = add_object(env, draft, 0, T_BALL, color)
    check_objs_reachable(env, draft)
    instr_about(env, draft, GO_TO, ball, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def go_to_door(env, draft, task):
    room = room_at(env, 1, 1)
    first = np.int64(draft.num_objects)
    for _ in range(4):
        add_door(env, draft, room, ANY, ANY, ANY)
    place_agent(env, draft, room)
    instr_about(env, draft, GO_TO, first + rand_int(draft, 0, 4), False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def go_to_obj_door(env, draft, task):
    room = room_at(env, 1, 1)
    place_agent(env, draft, room)
    first = add_distractors(env, draft, room, 8, False)
    for _ in range(4):
        add_door(env, draft, room, ANY, ANY, ANY)
    check_objs_reachable(env, draft)
    instr_about(env, draft, GO_TO, first + rand_int(draft, 0, 12), False)


# ---------------------------------------------------------------------------------------------------------------------
# open.py


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def open_(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    connect_all(env, draft, ANY)
    add_distractors(env, draft, ANY_ROOM, 18, False)
    check_objs_reachable(env, draft)
    doors = np.zeros(4 * MAX_ROOMS, np.int64)  # room by room, so that each is there twice
    count = 0
    for column in range(env.num_cols):
        for row in range(env.num_rows):
            for side in range(4):
                if draft.doors[room_at(env, column, row), side] != NO_DOOR:
                    doors[count] = draft.doors[room_at(env, column, row), side]
                    count += 1
    instr_about(env, draft, OPEN, doors[rand_int(draft, 0, count)], False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def open_red_door(env, draft, task):
    door = add_door(env, draft, 0, RIGHT_SIDE, RED, 0)
    place_agent(env, draft, 0)
    instr_about(env, draft, OPEN, door, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def open_door(env, draft, task):
    rand_subset(draft, 6, 4)
    room = room_at(env, 1, 1)
    first = np.int64(draft.num_objects)
    for side in range(4):
        add_door(env, draft, room, side, COLORS[draft.subset[side]], 0)
    select_by = task.select_by
    if select_by == 0:
        select_by = BY_COLOR if rand_int(draft, 0, 2) == 0 else BY_LOCATION
    if select_by == BY_COLOR:
        instr_about(env, draft, OPEN, first, task.strict)
    else:
        describe(draft, 0, T_DOOR, ANY, LOCATIONS[rand_int(draft, 0, 4)])
        add_instr(draft, OPEN, task.strict)
    place_agent(env, draft, room)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def open_two_doors(env, draft, task):
    rand_subset(draft, 6, 2)
    room = room_at(env, 1, 1)
    first_color = COLORS[draft.subset[0]] if task.first_color == ANY else task.first_color
    second_color = COLORS[draft.subset[1]] if task.second_color == ANY else task.second_color
    first = add_door(env, draft, room, LEFT_SIDE, first_color, 0)
    second = add_door(env, draft, room, RIGHT_SIDE, second_color, 0)
    place_agent(env, draft, room)
    instr_about(env, draft, OPEN, first, task.strict)
    connect_instrs(draft, BEFORE)
    instr_about(env, draft, OPEN, second, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def open_doors_order(env, draft, task):
    rand_subset(draft, 6, task.num_objects)
    room = room_at(env, 1, 1)
    first = np.int64(draft.num_objects)
    for place in range(task.num_objects):
        add_door(env, draft, room, ANY, COLORS[draft.subset[place]], 0)
    place_agent(env, draft, room)
    rand_subset(draft, task.num_objects, 2)
    mode = rand_int(draft, 0, 3)
    instr_about(env, draft, OPEN, first + draft.subset[0], task.strict)
    if mode > 0:
        connect_instrs(draft, BEFORE if mode == 1 else AFTER)
        instr_about(env, draft, OPEN, first + draft.subset[1], task.strict)


# ---------------------------------------------------------------------------------------------------------------------
# other.py


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def action_obj_door(env, draft, task):
    room = room_at(env, 1, 1)
    first = add_distractors(env, draft, room, 5, True)
    for _ in range(4):
        add_door(env, draft, room, ANY, ANY, 0)
    place_agent(env, draft, room)
    number = first + rand_int(draft, 0, 9)
    kind = GO_TO
    if not rand_bool(draft):
        kind = OPEN if env.object_type[number] == T_DOOR else PICK_UP
    instr_about(env, draft, kind, number, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def find_obj(env, draft, task):
    column = rand_int(draft, 0, env.num_rows)
    row = rand_int(draft, 0, env.num_cols)
    number = add_object(env, draft, room_at(env, column, row), ANY, ANY)
    place_agent(env, draft, room_at(env, 1, 1))
    connect_all(env, draft, ANY)
    describe(draft, 0, env.object_type[number], ANY, ANYWHERE)
    add_instr(draft, PICK_UP, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def key_corridor(env, draft, task):
    for row in range(1, env.num_rows):
        remove_wall(env, draft, room_at(env, 1, row), UP_SIDE)
    row = rand_int(draft, 0, env.num_rows)
    door = add_door(env, draft, room_at(env, 2, row), LEFT_SIDE, ANY, 1)
    number = add_object(env, draft, room_at(env, 2, row), task.object_type, ANY)
    key_row = rand_int(draft, 0, env.num_rows)
    add_object(env, draft, room_at(env, 0, key_row), T_KEY, np.int64(env.object_color[door]))
    place_agent(env, draft, room_at(env, 1, env.num_rows // 2))
    connect_all(env, draft, ANY)
    describe(draft, 0, env.object_type[number], ANY, ANYWHERE)
    add_instr(draft, PICK_UP, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def one_room(env, draft, task):
    add_object(env, draft, 0, T_BALL, ANY)
    place_agent(env, draft, ANY_ROOM)
    describe(draft, 0, T_BALL, ANY, ANYWHERE)
    add_instr(draft, PICK_UP, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def move_two_across(env, draft, task):
    place_agent(env, draft, 0)
    left = add_distractors(env, draft, 0, task.num_objects, True)
    right = add_distractors(env, draft, 1, task.num_objects, True)
    remove_wall(env, draft, 0, RIGHT_SIDE)
    rand_subset(draft, task.num_objects, 2)
    a, d = left + draft.subset[0], left + draft.subset[1]
    rand_subset(draft, task.num_objects, 2)
    b, c = right + draft.subset[0], right + draft.subset[1]
    put_next(env, draft, a, b)
    connect_instrs(draft, BEFORE)
    put_next(env, draft, c, d)


# ---------------------------------------------------------------------------------------------------------------------
# pickup.py


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def pickup(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    connect_all(env, draft, ANY)
    first = add_distractors(env, draft, ANY_ROOM, 18, False)
    check_objs_reachable(env, draft)
    instr_about(env, draft, PICK_UP, first + rand_int(draft, 0, 18), False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def unblock_pickup(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    connect_all(env, draft, ANY)
    first = add_distractors(env, draft, ANY_ROOM, 20, False)
    if objs_reachable(env, draft):
        raise Rejected
    instr_about(env, draft, PICK_UP, first + rand_int(draft, 0, 20), False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def pickup_dist(env, draft, task):
    first = add_distractors(env, draft, ANY_ROOM, 5, True)
    place_agent(env, draft, 0)
    number = first + rand_int(draft, 0, 5)
    select_by = rand_int(draft, 0, 3)  # type, color, both
    kind = ANY if select_by == 1 else np.int64(env.object_type[number])
    color = ANY if select_by == 0 else np.int64(env.object_color[number])
    describe(draft, 0, kind, color, ANYWHERE)
    add_instr(draft, PICK_UP, task.strict)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def pickup_above(env, draft, task):
    number = add_object(env, draft, room_at(env, 1, 0), ANY, ANY)
    add_door(env, draft, room_at(env, 1, 1), UP_SIDE, ANY, 0)
    place_agent(env, draft, room_at(env, 1, 1))
    connect_all(env, draft, ANY)
    instr_about(env, draft, PICK_UP, number, False)


# ---------------------------------------------------------------------------------------------------------------------
# putnext.py


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def put_next_local(env, draft, task):
    place_agent(env, draft, ANY_ROOM)
    first = add_distractors(env, draft, ANY_ROOM, task.num_objects, True)
    check_objs_reachable(env, draft)
    rand_subset(draft, task.num_objects, 2)
    put_next(env, draft, first + draft.subset[0], first + draft.subset[1])


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def put_next_across(env, draft, task):
    place_agent(env, draft, 0)
    left = add_distractors(env, draft, 0, task.num_objects, True)
    right = add_distractors(env, draft, 1, task.num_objects, True)
    remove_wall(env, draft, 0, RIGHT_SIDE)
    a = left + rand_int(draft, 0, task.num_objects)
    b = right + rand_int(draft, 0, task.num_objects)
    if rand_bool(draft):
        a, b = b, a
    if task.start_carrying:
        env.carrying = a
    put_next(env, draft, a, b)


# ---------------------------------------------------------------------------------------------------------------------
# unlock.py


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def unlock(env, draft, task):
    locked_room = rand_room(env, draft)
    door = add_door(env, draft, locked_room, ANY, ANY, 1)
    color = np.int64(env.object_color[door])
    add_object(env, draft, rand_room(env, draft), T_KEY, color)  # in any room, as in `go_to_imp_unlock`
    connect_all(env, draft, color if rand_bool(draft) else ANY)
    for column in range(env.num_cols):
        for row in range(env.num_rows):
            add_distractors(env, draft, room_at(env, column, row), 3, False)
    place_agent_outside_of(env, draft, locked_room)
    check_objs_reachable(env, draft)
    instr_about(env, draft, OPEN, door, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def unlock_local(env, draft, task):
    room = room_at(env, 1, 1)
    door = add_door(env, draft, room, ANY, ANY, 1)
    add_object(env, draft, room, T_KEY, np.int64(env.object_color[door]))
    if task.distractors:
        add_distractors(env, draft, room, 3, True)
    place_agent(env, draft, room)
    describe(draft, 0, T_DOOR, ANY, ANYWHERE)
    add_instr(draft, OPEN, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def key_in_box(env, draft, task):
    room = room_at(env, 1, 1)
    door = add_door(env, draft, room, ANY, ANY, 1)
    key = new_object(env, draft, T_KEY, np.int64(env.object_color[door]))
    box = new_object(env, draft, T_BOX, rand_color(draft))
    env.contains[box] = key
    place_in_room(env, draft, room, box)
    place_agent(env, draft, room)
    describe(draft, 0, T_DOOR, ANY, ANYWHERE)
    add_instr(draft, OPEN, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def unlock_pickup(env, draft, task):
    box = add_object(env, draft, 1, T_BOX, ANY)
    door = add_door(env, draft, 0, RIGHT_SIDE, ANY, 1)
    add_object(env, draft, 0, T_KEY, np.int64(env.object_color[door]))
    if task.distractors:
        add_distractors(env, draft, ANY_ROOM, 4, True)
    place_agent(env, draft, 0)
    instr_about(env, draft, PICK_UP, box, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def blocked_unlock_pickup(env, draft, task):
    add_object(env, draft, 1, T_BOX, ANY)
    door = add_door(env, draft, 0, RIGHT_SIDE, ANY, 1)
    ball = new_object(env, draft, T_BALL, rand_color(draft))
    env.grid[env.object_x[door] - 1, env.object_y[door]] = ball  # minigrid does not tell the ball where it is
    add_object(env, draft, 0, T_KEY, np.int64(env.object_color[door]))
    place_agent(env, draft, 0)
    describe(draft, 0, T_BOX, ANY, ANYWHERE)
    add_instr(draft, PICK_UP, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def unlock_to_unlock(env, draft, task):
    rand_subset(draft, 6, 2)
    first_color, second_color = COLORS[draft.subset[0]], COLORS[draft.subset[1]]
    add_door(env, draft, 0, RIGHT_SIDE, first_color, 1)
    add_object(env, draft, 2, T_KEY, first_color)
    add_door(env, draft, 1, RIGHT_SIDE, second_color, 1)
    add_object(env, draft, 1, T_KEY, second_color)
    add_object(env, draft, 0, T_BALL, ANY)
    place_agent(env, draft, 1)
    describe(draft, 0, T_BALL, ANY, ANYWHERE)
    add_instr(draft, PICK_UP, False)


# ---------------------------------------------------------------------------------------------------------------------
# LevelGen, and synth.py, whose classes only set its parameters


@compiled(void(ENV_TYPE, DRAFT_TYPE))
def add_locked_room(env, draft):
    while True:
        draft.locked_room = rand_room(env, draft)
        side = rand_int(draft, 0, 4)
        if draft.door_x[draft.locked_room, side] >= 0:
            break
    door = add_door(env, draft, np.int64(draft.locked_room), side, ANY, 1)
    while True:
        room = rand_room(env, draft)
        if room != draft.locked_room:
            break
    add_object(env, draft, room, T_KEY, np.int64(env.object_color[door]))


@compiled(boolean(ENV_TYPE, DRAFT_TYPE, int64))
def is_all_in_locked_room(env, draft, desc):
    """Whether every object that a description matches is in the locked room, or in its walls."""
    step = env.room_size - 1
    left, top = draft.locked_room % env.num_cols * step, draft.locked_room // env.num_cols * step
    for i in range(env.num_poss[desc]):
        x, y = env.poss[desc, i] // MAX_SIZE, env.poss[desc, i] % MAX_SIZE
        if not (left <= x <= left + step and top <= y <= top + step):
            return False
    return True


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE, int64, int64, int64))
def rand_obj(env, draft, task, first_type, num_types, part):
    """Describe something at random that exists, of the `num_types` types from `first_type` on in DESCRIBED_TYPES."""
    stay_out_of_line()
    desc = np.int32(0)
    for _ in range(MAX_OBJECT_TRIES + 1):
        env.desc_color[desc] = DESCRIBED_COLORS[rand_int(draft, 0, 7)]
        env.desc_type[desc] = DESCRIBED_TYPES[rand_int(draft, first_type, first_type + num_types)]
        env.desc_location[desc] = ANYWHERE
        if task.locations and rand_bool(draft):
            env.desc_location[desc] = LOCATIONS[rand_int(draft, 0, 4)]
        find_matching_objs(env, desc)
        if env.num_objs[desc] == 0:
            continue
        if not task.implicit_unlock and draft.locked_room != ANY_ROOM and is_all_in_locked_room(env, draft, desc):
            continue
        describe(draft, part, env.desc_type[desc], env.desc_color[desc], env.desc_location[desc])
        return
    raise Rejected


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def rand_action(env, draft, task):
    kind = task.action_kinds[rand_int(draft, 0, task.num_action_kinds)]
    if kind == GO_TO:
        rand_obj(env, draft, task, 0, 4, 0)
    elif kind == OPEN:
        rand_obj(env, draft, task, 3, 1, 0)
    else:
        rand_obj(env, draft, task, 0, 3, 0)
        if kind == PUT_NEXT:
            rand_obj(env, draft, task, 0, 4, 1)
    add_instr(draft, kind, False)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def rand_instr(env, draft, task):
    kind = task.instr_kinds[rand_int(draft, 0, task.num_instr_kinds)]
    if kind != SEQUENCE:
        for _ in range(1 + kind):
            rand_action(env, draft, task)
        return
    for _ in range(1 + rand_int(draft, 0, 2)):
        rand_action(env, draft, task)
    connect_instrs(draft, NO_NODE)
    for _ in range(1 + rand_int(draft, 0, 2)):
        rand_action(env, draft, task)
    draft.connective = BEFORE if rand_int(draft, 0, 2) == 0 else AFTER


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def level_gen(env, draft, task):
    if uniform(draft.random) < task.locked_room_prob:
        add_locked_room(env, draft)
    connect_all(env, draft, ANY)
    add_distractors(env, draft, ANY_ROOM, task.num_objects, False)
    place_agent_outside_of(env, draft, np.int64(draft.locked_room))
    if not task.unblocking:
        check_objs_reachable(env, draft)
    env.start_x, env.start_y, env.start_dir = env.agent_x, env.agent_y, env.agent_dir
    rand_instr(env, draft, task)


# ---------------------------------------------------------------------------------------------------------------------
# All of them


FAMILIES = {
    babyai.GoToRedBallGrey: go_to_red_ball_grey,
    babyai.GoToRedBall: go_to_red_ball,
    babyai.GoToRedBallNoDists: go_to_red_ball,
    babyai.GoToObj: go_to_obj,
    babyai.GoToLocal: go_to_local,
    babyai.GoTo: go_to,
    babyai.GoToImpUnlock: go_to_imp_unlock,
    babyai.GoToRedBlueBall: go_to_red_blue_ball,
    babyai.GoToDoor: go_to_door,
    babyai.GoToObjDoor: go_to_obj_door,
    babyai.Open: open_,
    babyai.OpenRedDoor: open_red_door,
    babyai.OpenDoor: open_door,
    babyai.OpenTwoDoors: open_two_doors,
    babyai.OpenDoorsOrder: open_doors_order,
    babyai.ActionObjDoor: action_obj_door,
    babyai.FindObjS5: find_obj,
    babyai.KeyCorridor: key_corridor,
    babyai.OneRoomS8: one_room,
    babyai.MoveTwoAcross: move_two_across,
    babyai.Pickup: pickup,
    babyai.UnblockPickup: unblock_pickup,
    babyai.PickupDist: pickup_dist,
    babyai.PickupAbove: pickup_above,
    babyai.PutNextLocal: put_next_local,
    babyai.PutNext: put_next_across,
    babyai.Unlock: unlock,
    babyai.UnlockLocal: unlock_local,
    babyai.KeyInBox: key_in_box,
    babyai.UnlockPickup: unlock_pickup,
    babyai.BlockedUnlockPickup: blocked_unlock_pickup,
    babyai.UnlockToUnlock: unlock_to_unlock,
    **dict.fromkeys(
        (
            LevelGen,
            babyai.GoToSeq,
            babyai.PickupLoc,
            babyai.Synth,
            babyai.SynthLoc,
            babyai.SynthSeq,
            babyai.MiniBossLevel,
            babyai.BossLevel,
            babyai.BossLevelNoUnlock,
        ),
        level_gen,
    ),
}

NAMES = ['go_to_red_ball_grey', 'go_to_red_ball', 'go_to_obj', 'go_to_local', 'go_to', 'go_to_imp_unlock', 'go_to_red_blue_ball', 'go_to_door', 'go_to_obj_door', 'open_', 'open_red_door', 'open_door', 'open_two_doors', 'open_doors_order', 'action_obj_door', 'find_obj', 'key_corridor', 'one_room', 'move_two_across', 'pickup', 'unblock_pickup', 'pickup_dist', 'pickup_above', 'put_next_local', 'put_next_across', 'unlock', 'unlock_local', 'key_in_box', 'unlock_pickup', 'blocked_unlock_pickup', 'unlock_to_unlock', 'level_gen']

@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def gen_mission(env, draft, task):
    if task.family == 0:
        go_to_red_ball_grey(env, draft, task)
    elif task.family == 1:
        go_to_red_ball(env, draft, task)
    elif task.family == 2:
        go_to_obj(env, draft, task)
    elif task.family == 3:
        go_to_local(env, draft, task)
    elif task.family == 4:
        go_to(env, draft, task)
    elif task.family == 5:
        go_to_imp_unlock(env, draft, task)
    elif task.family == 6:
        go_to_red_blue_ball(env, draft, task)
    elif task.family == 7:
        go_to_door(env, draft, task)
    elif task.family == 8:
        go_to_obj_door(env, draft, task)
    elif task.family == 9:
        open_(env, draft, task)
    elif task.family == 10:
        open_red_door(env, draft, task)
    elif task.family == 11:
        open_door(env, draft, task)
    elif task.family == 12:
        open_two_doors(env, draft, task)
    elif task.family == 13:
        open_doors_order(env, draft, task)
    elif task.family == 14:
        action_obj_door(env, draft, task)
    elif task.family == 15:
        find_obj(env, draft, task)
    elif task.family == 16:
        key_corridor(env, draft, task)
    elif task.family == 17:
        one_room(env, draft, task)
    elif task.family == 18:
        move_two_across(env, draft, task)
    elif task.family == 19:
        pickup(env, draft, task)
    elif task.family == 20:
        unblock_pickup(env, draft, task)
    elif task.family == 21:
        pickup_dist(env, draft, task)
    elif task.family == 22:
        pickup_above(env, draft, task)
    elif task.family == 23:
        put_next_local(env, draft, task)
    elif task.family == 24:
        put_next_across(env, draft, task)
    elif task.family == 25:
        unlock(env, draft, task)
    elif task.family == 26:
        unlock_local(env, draft, task)
    elif task.family == 27:
        key_in_box(env, draft, task)
    elif task.family == 28:
        unlock_pickup(env, draft, task)
    elif task.family == 29:
        blocked_unlock_pickup(env, draft, task)
    elif task.family == 30:
        unlock_to_unlock(env, draft, task)
    elif task.family == 31:
        level_gen(env, draft, task)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def attempt(env, draft, task):
    build_rooms(env, draft)
    draft.num_instrs = 0
    draft.connective = NO_NODE
    env.carrying = EMPTY
    gen_mission(env, draft, task)
    arrange_instruction(env, draft)
    validate_instrs(env, draft, task.unblocking)

@compiled(void(ENV_TYPE, LEVEL_TYPE, int64, int64))
def copy_object(env, level, content, number):
    level.object_type[number] = env.object_type[content]
    level.object_color[number] = env.object_color[content]
    level.object_x[number] = env.object_x[content]
    level.object_y[number] = env.object_y[content]
    level.is_open[number] = env.is_open[content]
    level.is_locked[number] = env.is_locked[content]


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE, LEVEL_TYPE))
def write_level(env, draft, task, level):
    stay_out_of_line()
    level.width = env.width
    level.height = env.height
    level.room_size = env.room_size
    level.num_cols = env.num_cols
    level.num_rows = env.num_rows
    level.agent_x = env.agent_x
    level.agent_y = env.agent_y
    level.agent_dir = env.agent_dir
    level.num_instrs = env.num_instrs
    level.root = env.root
    level.num_descs = env.num_descs
    for place in range(MAX_INSTRS):
        level.instr_kind[place] = env.instr_kind[place]
        level.instr_strict[place] = env.instr_strict[place]
        level.instr_desc[place, 0] = env.instr_desc[place, 0]
        level.instr_desc[place, 1] = env.instr_desc[place, 1]
    for node in range(3):
        level.node_kind[node] = env.node_kind[node]
        level.node_strict[node] = env.node_strict[node]
        level.node_a[node] = env.node_a[node]
        level.node_b[node] = env.node_b[node]
    for desc in range(MAX_DESCS):
        level.desc_type[desc] = env.desc_type[desc]
        level.desc_color[desc] = env.desc_color[desc]
        level.desc_location[desc] = env.desc_location[desc]
        level.desc_many[desc] = env.desc_many[desc]
    level.max_steps = task.max_steps
    if task.max_steps == 0:
        navs = 0
        for instr in range(env.num_instrs):
            navs += 2 if env.instr_kind[instr] == PUT_NEXT else 1
        level.max_steps = navs * env.room_size**2 * env.num_rows * env.num_cols
    level.carrying = EMPTY
    for x in range(MAX_SIZE):
        for y in range(MAX_SIZE):
            level.grid[x, y] = EMPTY
    for number in range(MAX_OBJECTS):
        level.object_type[number] = level.object_color[number] = level.contains[number] = 0
        level.object_x[number] = level.object_y[number] = 0
        level.is_open[number] = level.is_locked[number] = 0
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
    if env.carrying != EMPTY:
        level.carrying = number
        copy_object(env, level, env.carrying, number)
        level.grid[env.object_x[env.carrying], env.object_y[env.carrying]] = number


@njit(int64(ENV_TYPE, DRAFT_TYPE, TASK_TYPE, LEVEL_TYPE, int64),cache=True)
def generate(env, draft, task, level, seed):
    seed_stream(draft.random, seed)
    env.room_size=task.room_size
    env.num_cols=task.num_cols
    env.num_rows=task.num_rows
    env.width=(task.room_size-1)*task.num_cols+1
    env.height=(task.room_size-1)*task.num_rows+1
    for tries in range(100000):
        try:
            attempt(env, draft, task)
        except Exception:
            continue
        write_level(env, draft, task, level)
        level.seed = seed
        return tries
    return -1


