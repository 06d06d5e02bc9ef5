"""minigrid's `RoomGrid`, compiled: rooms, doors, and what lies in them, drawn from the same random stream.

Objects are numbered in the order in which they are made. A room is a number, row * num_cols + column; its four sides
are 0 right, 1 down, 2 left, 3 up. Where minigrid raises RecursionError or RejectSampling, to begin the level anew,
`Rejected` is raised here.
"""

import numpy as np
from minigrid.core.constants import COLOR_NAMES, COLOR_TO_IDX
from numba import boolean, int64, void
from numba.core.types import UniTuple

from fast_babyai.draft import DRAFT_TYPE, ENV_TYPE, MAX_ROOMS, Rejected, compiled, stay_out_of_line
from fast_babyai.random_stream import integers
from fast_babyai.rules import MAX_AGENT_PLACEMENTS
from fast_babyai.state import (
    ANY,
    DIR_X,
    DIR_Y,
    EMPTY,
    FIRST_OBJECT,
    MAX_OBJECTS,
    MAX_SIZE,
    T_BALL,
    T_BOX,
    T_DOOR,
    T_KEY,
    WALL,
)

ANY_ROOM = -1
NO_DOOR, NO_WALL = 0, 1  # in place of a door's number: a wall, or a wall that was removed
MAX_TRIES = 1000  # to place something in a room
MAX_CONNECTIONS = 5000  # tries to connect all rooms

COLORS = np.array([COLOR_TO_IDX[name] for name in COLOR_NAMES])  # in the order in which minigrid draws them
KINDS = np.array([T_KEY, T_BALL, T_BOX])


@compiled(int64(DRAFT_TYPE, int64, int64))
def rand_int(draft, low, high):
    stay_out_of_line()
    if high <= low:  # numpy raises a ValueError: a level cannot be made like this
        raise Rejected
    return integers(draft.random, low, high)


@compiled(boolean(DRAFT_TYPE))
def rand_bool(draft):
    return integers(draft.random, 0, 2) == 0


@compiled(int64(DRAFT_TYPE))
def rand_color(draft):
    stay_out_of_line()
    return COLORS[integers(draft.random, 0, 6)]


@compiled(int64(ENV_TYPE, DRAFT_TYPE))
def rand_room(env, draft):
    stay_out_of_line()
    column = integers(draft.random, 0, env.num_cols)
    return integers(draft.random, 0, env.num_rows) * env.num_cols + column


@compiled(void(DRAFT_TYPE, int64, int64))
def rand_subset(draft, size, count):
    """Write `count` different numbers below `size` to `draft.subset`, as minigrid's `_rand_subset` chooses them."""
    stay_out_of_line()
    rest = np.arange(size)
    for place in range(count):
        chosen = integers(draft.random, 0, size - place)
        draft.subset[place] = rest[chosen]
        for later in range(chosen, size - place - 1):
            rest[later] = rest[later + 1]


@compiled(int64(ENV_TYPE, int64, int64))
def room_at(env, column, row):
    return row * env.num_cols + column


@compiled(int64(ENV_TYPE))
def room_of_agent(env):
    step = env.room_size - 1
    return np.int64(env.agent_y // step * env.num_cols + env.agent_x // step)


@compiled(int64(ENV_TYPE, int64, int64))
def neighbour(env, room, side):
    """Return the room on a side of another; there is one where `draft.door_x` is not -1."""
    if side == 0:
        return room + 1
    if side == 1:
        return room + env.num_cols
    if side == 2:
        return room - 1
    return room - env.num_cols


@compiled(void(ENV_TYPE))
def draw_walls(env):
    stay_out_of_line()
    step = env.room_size - 1
    for x in range(env.width):
        for y in range(env.height):
            env.grid[x, y] = EMPTY
    for column in range(env.num_cols + 1):
        for y in range(env.height):
            env.grid[column * step, y] = WALL
    for row in range(env.num_rows + 1):
        for x in range(env.width):
            env.grid[x, row * step] = WALL


@compiled(void(ENV_TYPE, DRAFT_TYPE))
def build_rooms(env, draft):
    """Begin a level: walls around empty rooms, the places of the doors to come, the agent in the middle."""
    stay_out_of_line()
    step = env.room_size - 1
    draw_walls(env)
    draft.num_objects = FIRST_OBJECT
    for room in range(env.num_cols * env.num_rows):
        draft.is_locked[room] = False
        for side in range(4):
            draft.doors[room, side] = NO_DOOR
            draft.door_x[room, side] = -1
    draft.locked_room = ANY_ROOM
    for row in range(env.num_rows):
        for column in range(env.num_cols):
            room, left, top = room_at(env, column, row), column * step, row * step
            if column < env.num_cols - 1:
                draft.door_x[room, 0] = draft.door_x[room + 1, 2] = left + step
                draft.door_y[room, 0] = draft.door_y[room + 1, 2] = rand_int(draft, top + 1, top + step)
            if row < env.num_rows - 1:
                below = room + env.num_cols
                draft.door_x[room, 1] = draft.door_x[below, 3] = rand_int(draft, left + 1, left + step)
                draft.door_y[room, 1] = draft.door_y[below, 3] = top + step
    env.agent_x = env.num_cols // 2 * step + env.room_size // 2
    env.agent_y = env.num_rows // 2 * step + env.room_size // 2
    env.agent_dir = 0


@compiled(UniTuple(int64, 2)(ENV_TYPE, DRAFT_TYPE, int64, boolean))
def free_cell(env, draft, room, reject_next_to_agent):
    """Return (x, y) of a random empty cell of a room; its walls belong to it, in case they have been removed."""
    stay_out_of_line()
    left, top = room % env.num_cols * (env.room_size - 1), room // env.num_cols * (env.room_size - 1)
    for _ in range(MAX_TRIES + 1):
        x = rand_int(draft, left, left + env.room_size)
        y = rand_int(draft, top, top + env.room_size)
        if env.grid[x, y] != EMPTY:
            continue
        from_agent = abs(x - env.agent_x) + abs(y - env.agent_y)
        if from_agent == 0 or (reject_next_to_agent and from_agent == 1):
            continue
        return x, y
    raise Rejected


@compiled(int64(ENV_TYPE, DRAFT_TYPE, int64, int64))
def new_object(env, draft, kind, color):
    stay_out_of_line()
    number = np.int64(draft.num_objects)
    if number == MAX_OBJECTS:
        draft.is_full = True
        raise Rejected
    draft.num_objects += 1
    env.object_type[number] = kind
    env.object_color[number] = color
    env.object_x[number] = env.object_y[number] = -1
    env.contains[number] = EMPTY
    env.is_open[number] = env.is_locked[number] = False
    draft.is_listed[number] = False
    return number


@compiled(void(ENV_TYPE, DRAFT_TYPE, int64, int64))
def place_in_room(env, draft, room, number):
    stay_out_of_line()
    draft.agent_placements = 0
    x, y = free_cell(env, draft, room, True)
    env.grid[x, y] = number
    env.object_x[number], env.object_y[number] = x, y
    draft.is_listed[number] = True


@compiled(int64(ENV_TYPE, DRAFT_TYPE, int64, int64, int64))
def add_object(env, draft, room, kind, color):
    """Add a new object to a room and return its number; kind and color are random where they are ANY."""
    stay_out_of_line()
    if kind == ANY:
        kind = KINDS[rand_int(draft, 0, 3)]
    if color == ANY:
        color = rand_color(draft)
    number = new_object(env, draft, kind, color)
    place_in_room(env, draft, room, number)
    return number


@compiled(int64(ENV_TYPE, DRAFT_TYPE, int64, int64, int64, int64))
def add_door(env, draft, room, side, color, locked):
    """Add a door to a room and return its number; what is ANY is random."""
    stay_out_of_line()
    if side == ANY:
        while True:
            side = rand_int(draft, 0, 4)
            if draft.door_x[room, side] >= 0 and draft.doors[room, side] == NO_DOOR:
                break
    if color == ANY:
        color = rand_color(draft)
    if locked == ANY:
        locked = 1 if rand_bool(draft) else 0
    draft.is_locked[room] = locked
    number = new_object(env, draft, T_DOOR, color)
    env.is_locked[number] = locked
    x, y = draft.door_x[room, side], draft.door_y[room, side]
    env.grid[x, y] = number
    env.object_x[number], env.object_y[number] = x, y
    draft.doors[room, side] = number
    draft.doors[neighbour(env, room, side), (side + 2) % 4] = number
    return number


@compiled(void(ENV_TYPE, DRAFT_TYPE, int64, int64))
def remove_wall(env, draft, room, side):
    stay_out_of_line()
    step = env.room_size - 1
    left, top = room % env.num_cols * step, room // env.num_cols * step
    x, y = left, top
    if side == 0:
        x += step
    elif side == 1:
        y += step
    for place in range(1, step):
        if side % 2 == 0:
            env.grid[x, y + place] = EMPTY
        else:
            env.grid[x + place, y] = EMPTY
    draft.doors[room, side] = NO_WALL
    draft.doors[neighbour(env, room, side), (side + 2) % 4] = NO_WALL


@compiled(void(ENV_TYPE, DRAFT_TYPE, int64))
def place_agent(env, draft, room):
    """Put the agent into a room (a random one if it is ANY_ROOM), not in front of an object or a door."""
    stay_out_of_line()
    if room == ANY_ROOM:
        room = rand_room(env, draft)
    while True:
        draft.agent_placements += 1
        if draft.agent_placements > MAX_AGENT_PLACEMENTS:
            draft.agent_placements = 0
            raise Rejected
        env.agent_x = env.agent_y = -1
        env.agent_x, env.agent_y = free_cell(env, draft, room, False)
        env.agent_dir = rand_int(draft, 0, 4)
        if env.grid[env.agent_x + DIR_X[env.agent_dir], env.agent_y + DIR_Y[env.agent_dir]] <= WALL:
            return


@compiled(void(ENV_TYPE, DRAFT_TYPE, int64))
def place_agent_outside_of(env, draft, room):
    """Put the agent into a random room, but not into this one."""
    stay_out_of_line()
    while True:
        place_agent(env, draft, ANY_ROOM)
        if room_of_agent(env) != room:
            return


@compiled(boolean(ENV_TYPE, DRAFT_TYPE, int64))
def all_rooms_connected(env, draft, start):
    """Whether doors, locked ones too, and removed walls lead from a room to every other."""
    stay_out_of_line()
    reached = np.zeros(MAX_ROOMS, np.bool_)
    reached[start] = True
    draft.stack[0] = start
    waiting, count = 1, 1
    while waiting:
        waiting -= 1
        room = np.int64(draft.stack[waiting])
        for side in range(4):
            if draft.doors[room, side] != NO_DOOR:
                beyond = neighbour(env, room, side)
                if not reached[beyond]:
                    reached[beyond] = True
                    draft.stack[waiting] = beyond
                    waiting += 1
                    count += 1
    return count == env.num_rows * env.num_cols


@compiled(void(ENV_TYPE, DRAFT_TYPE, int64))
def connect_all(env, draft, except_color):
    """Add unlocked doors, of any color but `except_color` (or of any, if that is ANY), until every room can be reached
    from the agent's; none to a locked room."""
    stay_out_of_line()
    start = room_of_agent(env)
    connected = all_rooms_connected(env, draft, start)
    for _ in range(MAX_CONNECTIONS + 1):
        if connected:
            return
        room = rand_room(env, draft)
        side = rand_int(draft, 0, 4)
        if draft.door_x[room, side] < 0 or draft.doors[room, side] != NO_DOOR:
            continue
        if draft.is_locked[room] or draft.is_locked[neighbour(env, room, side)]:
            continue
        if except_color == ANY:
            color = rand_color(draft)
        else:
            place = rand_int(draft, 0, 5)
            for before in range(place + 1):
                if COLORS[before] == except_color:
                    place += 1
                    break
            color = COLORS[place]
        add_door(env, draft, room, side, color, 0)
        connected = all_rooms_connected(env, draft, start)
    raise Rejected


@compiled(boolean(ENV_TYPE, DRAFT_TYPE, int64, int64))
def is_listed(env, draft, kind, color):
    """Whether there is an object of this kind and color in a room."""
    for number in range(FIRST_OBJECT, draft.num_objects):
        if draft.is_listed[number] and env.object_type[number] == kind and env.object_color[number] == color:
            return True
    return False


@compiled(int64(ENV_TYPE, DRAFT_TYPE, int64, int64, boolean))
def add_distractors(env, draft, room, count, all_unique):
    """Add `count` random objects to a room (each to a random one, if it is ANY_ROOM); return the number of the first.
    Their numbers follow each other."""
    stay_out_of_line()
    first = np.int64(draft.num_objects)
    while draft.num_objects < first + count:
        color = rand_color(draft)
        kind = KINDS[rand_int(draft, 0, 3)]
        if all_unique and is_listed(env, draft, kind, color):
            continue
        add_object(env, draft, rand_room(env, draft) if room == ANY_ROOM else room, kind, color)
    return first


@compiled(boolean(ENV_TYPE, DRAFT_TYPE))
def objs_reachable(env, draft):
    """Whether the agent could walk up to every object and door without moving any; it passes doors, locked ones too."""
    stay_out_of_line()
    for x in range(env.width):
        for y in range(env.height):
            draft.reached[x, y] = False
    draft.stack[0] = env.agent_x * MAX_SIZE + env.agent_y
    draft.reached[env.agent_x, env.agent_y] = True
    waiting = 1
    while waiting:
        waiting -= 1
        cell = draft.stack[waiting]
        x, y = cell // MAX_SIZE, cell % MAX_SIZE
        content = env.grid[x, y]
        if content != EMPTY and (content == WALL or env.object_type[content] != T_DOOR):
            continue
        for direction in range(4):
            beside_x, beside_y = x + DIR_X[direction], y + DIR_Y[direction]
            if not draft.reached[beside_x, beside_y]:
                draft.reached[beside_x, beside_y] = True
                draft.stack[waiting] = beside_x * MAX_SIZE + beside_y
                waiting += 1
    for x in range(env.width):
        for y in range(env.height):
            if env.grid[x, y] > WALL and not draft.reached[x, y]:
                return False
    return True


@compiled(void(ENV_TYPE, DRAFT_TYPE))
def check_objs_reachable(env, draft):
    if not objs_reachable(env, draft):
        raise Rejected
