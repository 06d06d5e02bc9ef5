"""What the compiled bot has seen, and how it finds its way: the searching half of minigrid's `BabyAIBot`.

`BabyAIBot` runs a breadth-first search for each question it has: where is the nearest red key, can I get there without
moving anything, where could I drop this. Within one `replan` all of them start from the agent, in a world that stands
still, and differ only in the cells that they accept. So there is one search here, and it is lazy: `bot.queue` lists the
cells in the order in which any of those searches would come by; each question reads the list from its beginning, and
prolongs it when it has to. First come the cells that can be reached as things are. Once they are complete
(`bot.num_free` of them), there follow the cells behind "blockers", the objects that would have to be moved.

Instead of a path, every cell keeps the two things that the bot asks about it: the path's length (`bot.distance`) and
the direction of its first step (`bot.first_step`).

Cells are numbers, x * MAX_SIZE + y. No search goes on through a wall, and the outermost cells of every level are walls
for good, therefore nothing here checks whether a neighbour lies outside of the grid.
"""

import numpy as np
from numba import njit

from fast_babyai.rules import VIEW
from fast_babyai.state import DIR_X, DIR_Y, EMPTY, MAX_SIZE, T_DOOR, WALL
from fast_babyai.view import content_at, see_behind, spread_sight

# numpy's integers, because numba compiles a function anew for every Python integer that it is given as a constant
NOWHERE = np.int64(-1)  # in place of a cell or a distance, where Python's bot has None

# How the search has reached a cell
UNREACHED, FREE, WITH_BLOCKERS = range(3)

# What a cell can be searched for, the bot's accept functions
UNSEEN, UNOPENED_UNLOCKED_DOOR, UNOPENED_DOOR, MATCH_UNBLOCK, MATCH_EMPTY = np.arange(5)

STEP = np.array([MAX_SIZE, 1, -MAX_SIZE, -1])  # from a cell to its neighbour in direction 0, 1, 2, 3
# The order in which the neighbours of a cell entered in direction (di, dj) join the queue: (di, dj), (dj, di),
# (-dj, -di), (-di, -dj). Straight on comes first; whether left or right comes next depends on the direction.
NEIGHBOUR_ORDER = np.array([[0, 1, 3, 2], [1, 0, 2, 3], [2, 3, 1, 0], [3, 2, 0, 1]])
# The eight cells around a cell, in a circle
RING = np.array([-MAX_SIZE - 1, -1, MAX_SIZE - 1, MAX_SIZE, MAX_SIZE + 1, 1, -MAX_SIZE + 1, -MAX_SIZE])


@njit(cache=True)
def agent_cell(env):
    return env.agent_x * MAX_SIZE + env.agent_y


@njit(cache=True)
def content_of(env, cell):
    return env.grid[cell // MAX_SIZE, cell % MAX_SIZE]


@njit(cache=True)
def is_door(env, content):
    return env.object_type[content] == T_DOOR


@njit(cache=True)
def is_open_door(env, content):
    return env.object_type[content] == T_DOOR and env.is_open[content] != 0


@njit(cache=True)
def process_obs(env, bot):
    """Mark the cells that the agent sees as explored."""
    forward_x, forward_y = DIR_X[env.agent_dir], DIR_Y[env.agent_dir]
    right_x, right_y = -forward_y, forward_x
    visible = 1 << (VIEW // 2)
    for ahead in range(VIEW):
        left_x = env.agent_x + ahead * forward_x - VIEW // 2 * right_x
        left_y = env.agent_y + ahead * forward_y - VIEW // 2 * right_y
        clear = 0
        for column in range(VIEW):
            if see_behind(env, content_at(env, left_x + column * right_x, left_y + column * right_y)):
                clear |= 1 << column
        visible, next_visible = spread_sight(visible, clear)
        for column in range(VIEW):
            x, y = left_x + column * right_x, left_y + column * right_y
            if visible & (1 << column) and 0 <= x < env.width and 0 <= y < env.height:
                bot.vis_mask[x * MAX_SIZE + y] = True
        visible = next_visible
        if not visible:
            return


@njit(cache=True)
def start_search(env, bot):
    """Forget the search of the last replan; begin a new one at the agent."""
    start = agent_cell(env)
    bot.reached[:] = UNREACHED
    bot.reached[start] = FREE
    bot.heading[start] = env.agent_dir
    bot.distance[start] = 0
    bot.queue[0] = start
    bot.queue_size = 1
    bot.next_in_queue = 0
    bot.search_phase = FREE


@njit(cache=True)
def ignore_blockers(bot):
    """Begin the search's second phase: from every cell that the first has reached, in that order, but with the heading
    that the bot gives to all of them, (1, 0)."""
    bot.num_free = bot.queue_size
    for place in range(bot.num_free):
        bot.heading[bot.queue[place]] = 0
    bot.next_in_queue = 0
    bot.search_phase = WITH_BLOCKERS


@njit(cache=True)
def expand_next(env, bot):
    """Let the next cell of the queue add its neighbours, unless the bot could not go on from there."""
    cell = bot.queue[bot.next_in_queue]
    bot.next_in_queue += 1
    if not bot.vis_mask[cell]:
        return
    content = content_of(env, cell)
    if content == WALL:
        return
    if is_door(env, content):
        if not env.is_open[content]:
            return
    elif content != EMPTY and bot.search_phase == FREE:
        return
    for turn in range(4):
        direction = NEIGHBOUR_ORDER[bot.heading[cell], turn]
        neighbour = cell + STEP[direction]
        if bot.reached[neighbour] == UNREACHED:
            bot.reached[neighbour] = bot.search_phase
            bot.heading[neighbour] = direction
            bot.distance[neighbour] = bot.distance[cell] + 1
            bot.first_step[neighbour] = bot.first_step[cell] if bot.distance[cell] else direction
            bot.queue[bot.queue_size] = neighbour
            bot.queue_size += 1


@njit(cache=True)
def prolong_search(env, bot, try_with_blockers):
    """Take the search one cell further; return whether it could be."""
    if bot.next_in_queue == bot.queue_size:
        if not try_with_blockers or bot.search_phase == WITH_BLOCKERS:
            return False
        ignore_blockers(bot)
    expand_next(env, bot)
    return True


@njit(cache=True)
def shortest_path(env, bot, target):
    """Return the length of the path to the cell `target`, without blockers if there is such a path, else with them;
    NOWHERE if there is none.

    0 means that the agent is there; Python's bot then has an empty path, which it often takes for none.
    """
    while bot.reached[target] == UNREACHED:
        if not prolong_search(env, bot, True):
            return NOWHERE
    return np.int64(bot.distance[target])


@njit(cache=True)
def find_cell(env, bot, wanted, except_pos, try_with_blockers):
    """Return the first cell on the way that is as `wanted` (UNSEEN, ...), NOWHERE if there is none."""
    place = 0
    while True:
        while place == bot.queue_size:
            if not prolong_search(env, bot, try_with_blockers):
                return NOWHERE
        if place >= bot.num_free and bot.search_phase == WITH_BLOCKERS and not try_with_blockers:
            return NOWHERE
        if is_wanted(env, bot, wanted, bot.queue[place], except_pos):
            return np.int64(bot.queue[place])
        place += 1


@njit(cache=True)
def is_wanted(env, bot, wanted, cell, except_pos):
    if wanted == UNSEEN:
        return not bot.vis_mask[cell]
    content = content_of(env, cell)
    if wanted == UNOPENED_DOOR:
        return is_door(env, content) and not env.is_open[content]
    if wanted == UNOPENED_UNLOCKED_DOOR:
        return is_door(env, content) and not env.is_open[content] and not env.is_locked[content]
    if cell == agent_cell(env) or cell == except_pos or not bot.vis_mask[cell] or content != EMPTY:
        return False
    return wanted == MATCH_EMPTY or is_unblocking(env, bot, cell, except_pos)


@njit(cache=True)
def is_unblocking(env, bot, cell, except_pos):
    """Whether an object dropped into an empty cell would leave the empty cells around it connected, and every object
    around it (for which anything counts that is neither empty nor a wall) beside an empty one.

    The cells of the ring are bits here, so that a rotation compares each with its neighbour.
    """
    empty = objects = 0
    for place in range(8):
        neighbour = cell + RING[place]
        content = content_of(env, neighbour)
        if bot.vis_mask[neighbour] and content == WALL:
            continue
        if (
            bot.vis_mask[neighbour]
            and (content == EMPTY or is_open_door(env, content) or neighbour == agent_cell(env))
            and neighbour != except_pos
        ):
            empty |= 1 << place
        else:
            objects |= 1 << place
    beside_empty_before = (empty << 1 | empty >> 7) & 0xFF
    beside_empty_after = (empty >> 1 | empty << 7) & 0xFF
    if objects & ~(beside_empty_before | beside_empty_after):
        return False
    changes = 0
    changed = empty ^ beside_empty_after
    while changed:
        changes += changed & 1
        changed >>= 1
    return changes <= 2


@njit(cache=True)
def find_drop_pos(env, bot, except_pos):
    """Return a cell where an object can be dropped, ideally without blocking anything; NOWHERE if there is none.

    `except_pos` is a cell that will not do, or NOWHERE.
    """
    for try_with_blockers in (False, True):
        for wanted in (MATCH_UNBLOCK, MATCH_EMPTY):
            drop_pos = find_cell(env, bot, wanted, except_pos, try_with_blockers)
            if drop_pos != NOWHERE:
                return drop_pos
    return NOWHERE


@njit(cache=True)
def find_obj_pos(env, bot, obj_set, num_objs, obj_poss, num_poss, adjacent):
    """Return object and cell of the closest visible object of a description; EMPTY and NOWHERE if none is visible.

    `obj_set` and `obj_poss` are as out of step as those of Python's bot: object i may lie elsewhere than at position i,
    and objects beyond the last position (an IndexError there, which the bot ignores) are passed over.
    """
    best_distance, best_obj, best_pos = 999, EMPTY, NOWHERE
    if num_objs == 0:
        bot.failed = True
    for i in range(min(num_objs, num_poss)):
        obj_pos = np.int64(obj_poss[i])
        if obj_set[i] == WALL or obj_set[i] == env.carrying or not bot.vis_mask[obj_pos]:
            continue
        distance = shortest_path(env, bot, obj_pos)
        if distance == NOWHERE:
            bot.failed = True
            break
        if bot.reached[obj_pos] == WITH_BLOCKERS:
            distance += 7 if env.carrying != EMPTY else 4
        if distance == 0:
            distance = 3 if adjacent else 2
        if adjacent and distance == 1:
            distance = 3
        if distance < best_distance:
            best_distance, best_obj, best_pos = distance, obj_set[i], obj_pos
    return best_obj, best_pos
