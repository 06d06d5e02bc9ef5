"""What each BabyAI task puts into its rooms and asks for: the `gen_mission` of minigrid's level classes, compiled.

Every level class has a function here that makes the same draws in the same order; `generator.py` says which belongs to
which, and reads a task's parameters.
"""

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX
from numba import boolean, int64, void

from fast_babyai.draft import DRAFT_TYPE, ENV_TYPE, MAX_ROOMS, TASK_TYPE, Rejected, compiled, stay_out_of_line
from fast_babyai.instructions import add_instr, connect_instrs, describe, instr_about, put_next
from fast_babyai.random_stream import uniform
from fast_babyai.rooms import (
    ANY_ROOM,
    COLORS,
    NO_DOOR,
    add_distractors,
    add_door,
    add_object,
    check_objs_reachable,
    connect_all,
    new_object,
    objs_reachable,
    place_agent,
    place_agent_outside_of,
    place_in_room,
    rand_bool,
    rand_color,
    rand_int,
    rand_room,
    rand_subset,
    remove_wall,
    room_at,
)
from fast_babyai.state import (
    AFTER,
    ANY,
    ANYWHERE,
    BEFORE,
    BEHIND,
    FIRST_OBJECT,
    GO_TO,
    GREY,
    IN_FRONT,
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
)
from fast_babyai.verifier import find_matching_objs

RED, BLUE = COLOR_TO_IDX["red"], COLOR_TO_IDX["blue"]
RIGHT_SIDE, LEFT_SIDE, UP_SIDE = 0, 2, 3
MAX_OBJECT_TRIES = 100  # of LevelGen, to find a description that matches something

# in the order in which minigrid draws them
DESCRIBED_TYPES = np.array([T_BOX, T_BALL, T_KEY, T_DOOR])
DESCRIBED_COLORS = np.array([ANY, *COLORS])
LOCATIONS = np.array([ON_THE_LEFT, ON_THE_RIGHT, IN_FRONT, BEHIND])

ANYHOW, BY_COLOR, BY_LOCATION = range(3)  # how OpenDoor selects its door
ONE_ACTION, TWO_ACTIONS, SEQUENCE = range(3)  # LevelGen's kinds of instructions

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
    if select_by == ANYHOW:
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

(
    GO_TO_RED_BALL_GREY,
    GO_TO_RED_BALL,
    GO_TO_OBJ,
    GO_TO_LOCAL,
    GO_TO_ANY,
    GO_TO_IMP_UNLOCK,
    GO_TO_RED_BLUE_BALL,
    GO_TO_DOOR,
    GO_TO_OBJ_DOOR,
    OPEN_ANY,
    OPEN_RED_DOOR,
    OPEN_DOOR,
    OPEN_TWO_DOORS,
    OPEN_DOORS_ORDER,
    ACTION_OBJ_DOOR,
    FIND_OBJ,
    KEY_CORRIDOR,
    ONE_ROOM,
    MOVE_TWO_ACROSS,
    PICKUP_ANY,
    UNBLOCK_PICKUP,
    PICKUP_DIST,
    PICKUP_ABOVE,
    PUT_NEXT_LOCAL,
    PUT_NEXT_ACROSS,
    UNLOCK,
    UNLOCK_LOCAL,
    KEY_IN_BOX,
    UNLOCK_PICKUP,
    BLOCKED_UNLOCK_PICKUP,
    UNLOCK_TO_UNLOCK,
    LEVEL_GEN,
) = range(32)


@compiled(void(ENV_TYPE, DRAFT_TYPE, TASK_TYPE))
def gen_mission(env, draft, task):
    if task.family == GO_TO_RED_BALL_GREY:
        go_to_red_ball_grey(env, draft, task)
    elif task.family == GO_TO_RED_BALL:
        go_to_red_ball(env, draft, task)
    elif task.family == GO_TO_OBJ:
        go_to_obj(env, draft, task)
    elif task.family == GO_TO_LOCAL:
        go_to_local(env, draft, task)
    elif task.family == GO_TO_ANY:
        go_to(env, draft, task)
    elif task.family == GO_TO_IMP_UNLOCK:
        go_to_imp_unlock(env, draft, task)
    elif task.family == GO_TO_RED_BLUE_BALL:
        go_to_red_blue_ball(env, draft, task)
    elif task.family == GO_TO_DOOR:
        go_to_door(env, draft, task)
    elif task.family == GO_TO_OBJ_DOOR:
        go_to_obj_door(env, draft, task)
    elif task.family == OPEN_ANY:
        open_(env, draft, task)
    elif task.family == OPEN_RED_DOOR:
        open_red_door(env, draft, task)
    elif task.family == OPEN_DOOR:
        open_door(env, draft, task)
    elif task.family == OPEN_TWO_DOORS:
        open_two_doors(env, draft, task)
    elif task.family == OPEN_DOORS_ORDER:
        open_doors_order(env, draft, task)
    elif task.family == ACTION_OBJ_DOOR:
        action_obj_door(env, draft, task)
    elif task.family == FIND_OBJ:
        find_obj(env, draft, task)
    elif task.family == KEY_CORRIDOR:
        key_corridor(env, draft, task)
    elif task.family == ONE_ROOM:
        one_room(env, draft, task)
    elif task.family == MOVE_TWO_ACROSS:
        move_two_across(env, draft, task)
    elif task.family == PICKUP_ANY:
        pickup(env, draft, task)
    elif task.family == UNBLOCK_PICKUP:
        unblock_pickup(env, draft, task)
    elif task.family == PICKUP_DIST:
        pickup_dist(env, draft, task)
    elif task.family == PICKUP_ABOVE:
        pickup_above(env, draft, task)
    elif task.family == PUT_NEXT_LOCAL:
        put_next_local(env, draft, task)
    elif task.family == PUT_NEXT_ACROSS:
        put_next_across(env, draft, task)
    elif task.family == UNLOCK:
        unlock(env, draft, task)
    elif task.family == UNLOCK_LOCAL:
        unlock_local(env, draft, task)
    elif task.family == KEY_IN_BOX:
        key_in_box(env, draft, task)
    elif task.family == UNLOCK_PICKUP:
        unlock_pickup(env, draft, task)
    elif task.family == BLOCKED_UNLOCK_PICKUP:
        blocked_unlock_pickup(env, draft, task)
    elif task.family == UNLOCK_TO_UNLOCK:
        unlock_to_unlock(env, draft, task)
    elif task.family == LEVEL_GEN:
        level_gen(env, draft, task)
