"""What the agent sees: minigrid's `gen_obs`, a 7x7 view with walls and closed doors in the way."""

from numba import njit

from fast_babyai.rules import VIEW
from fast_babyai.state import DIR_X, DIR_Y, EMPTY, GREY, T_DOOR, T_EMPTY, T_WALL, WALL

OPEN, CLOSED, LOCKED = 0, 1, 2  # a door's state, as minigrid encodes it


@njit(cache=True)
def content_at(env, x, y):
    """Return what is at (x, y); beyond the grid there is wall."""
    if x < 0 or y < 0 or x >= env.width or y >= env.height:
        return WALL
    return env.grid[x, y]


@njit(cache=True)
def see_behind(env, content):
    if content == EMPTY:
        return True
    return content != WALL and (env.object_type[content] != T_DOOR or env.is_open[content] != 0)


@njit(cache=True)
def spread_sight(visible, clear):
    """Return which cells of a row of the view are visible, and which are for that reason visible in the row behind it.

    Sight spreads row by row away from the agent, as `Grid.process_vis` has it: within a row from each visible cell that
    can be seen through to its neighbours, and from there to the three cells behind. A row is a word of 7 bits.

    Args:
        visible: the cells visible from the row before.
        clear: the cells that can be seen through.
    """
    next_visible = 0
    for column in range(VIEW - 1):
        if visible & clear & (1 << column):
            visible |= 2 << column
            next_visible |= 3 << column
    for column in range(VIEW - 1, 0, -1):
        if visible & clear & (1 << column):
            visible |= 1 << (column - 1)
            next_visible |= 3 << (column - 1)
    return visible, next_visible


@njit(cache=True)
def encode(env, content, image, column, row):
    """Write a cell as (type, color, state)."""
    image[column, row, 2] = 0
    if content == EMPTY:
        image[column, row, 0] = T_EMPTY
        image[column, row, 1] = 0
    elif content == WALL:
        image[column, row, 0] = T_WALL
        image[column, row, 1] = GREY
    else:
        image[column, row, 0] = env.object_type[content]
        image[column, row, 1] = env.object_color[content]
        if env.object_type[content] == T_DOOR and not env.is_open[content]:
            image[column, row, 2] = LOCKED if env.is_locked[content] else CLOSED


@njit(cache=True)
def observe(env, image):
    """Write the agent's view to `image`, uint8 [7, 7, 3]: columns from its left to its right, the last row its own."""
    forward_x, forward_y = DIR_X[env.agent_dir], DIR_Y[env.agent_dir]
    right_x, right_y = -forward_y, forward_x
    visible = 1 << (VIEW // 2)
    for ahead in range(VIEW):
        row = VIEW - 1 - ahead
        left_x = env.agent_x + ahead * forward_x - VIEW // 2 * right_x
        left_y = env.agent_y + ahead * forward_y - VIEW // 2 * right_y
        clear = 0
        for column in range(VIEW):
            content = content_at(env, left_x + column * right_x, left_y + column * right_y)
            encode(env, content, image, column, row)
            if see_behind(env, content):
                clear |= 1 << column
        visible, next_visible = spread_sight(visible, clear)
        for column in range(VIEW):
            if not visible & (1 << column):
                image[column, row, :] = 0
        visible = next_visible
    encode(env, env.carrying, image, VIEW // 2, VIEW - 1)  # the agent sees what it carries at its own feet
