"""What an action does: minigrid's `MiniGridEnv.step` and BabyAI's `RoomGridLevel.reset` and `step`."""

from numba import njit

from fast_babyai.state import (
    DIR_X,
    DIR_Y,
    DROP,
    EMPTY,
    FORWARD,
    LEFT,
    MAX_DESCS,
    MAX_INSTRS,
    MAX_NODES,
    MAX_OBJECTS,
    MAX_SIZE,
    PICKUP,
    RIGHT,
    T_BOX,
    T_DOOR,
    T_KEY,
    TOGGLE,
    WALL,
)
from fast_babyai.verifier import FAILURE, SUCCESS, reset_verifier, update_objs_poss, verify


@njit(cache=True)
def copy_instruction(source, target):
    """Copy the instruction of a LEVEL to an ENV, or of an ENV to a LEVEL."""
    target.root = source.root
    target.num_instrs = source.num_instrs
    target.num_descs = source.num_descs
    for instr in range(MAX_INSTRS):
        target.instr_kind[instr] = source.instr_kind[instr]
        target.instr_strict[instr] = source.instr_strict[instr]
        target.instr_desc[instr, 0] = source.instr_desc[instr, 0]
        target.instr_desc[instr, 1] = source.instr_desc[instr, 1]
    for node in range(MAX_NODES):
        target.node_kind[node] = source.node_kind[node]
        target.node_strict[node] = source.node_strict[node]
        target.node_a[node] = source.node_a[node]
        target.node_b[node] = source.node_b[node]
    for desc in range(MAX_DESCS):
        target.desc_type[desc] = source.desc_type[desc]
        target.desc_color[desc] = source.desc_color[desc]
        target.desc_location[desc] = source.desc_location[desc]
        target.desc_many[desc] = source.desc_many[desc]


@njit(cache=True)
def start_level(env, level):
    """Put `env` into the state in which minigrid's reset makes its first observation.

    An object that the agent is to carry still lies where it was generated; `take_in_hand` comes next.
    """
    env.seed = level.seed
    env.max_steps = level.max_steps
    env.width = level.width
    env.height = level.height
    env.room_size = level.room_size
    env.num_cols = level.num_cols
    env.num_rows = level.num_rows
    env.agent_x = env.start_x = level.agent_x
    env.agent_y = env.start_y = level.agent_y
    env.agent_dir = env.start_dir = level.agent_dir
    env.carrying = EMPTY
    env.step_count = 0
    for x in range(MAX_SIZE):
        for y in range(MAX_SIZE):
            env.grid[x, y] = level.grid[x, y]
    for number in range(MAX_OBJECTS):
        env.object_type[number] = level.object_type[number]
        env.object_color[number] = level.object_color[number]
        env.object_x[number] = level.object_x[number]
        env.object_y[number] = level.object_y[number]
        env.contains[number] = level.contains[number]
        env.is_open[number] = level.is_open[number]
        env.is_locked[number] = level.is_locked[number]
    copy_instruction(level, env)
    reset_verifier(env)


@njit(cache=True)
def take_in_hand(env, level):
    """Let the agent hold what the task says it starts with; minigrid does so after the first observation."""
    if level.carrying != EMPTY:
        env.carrying = level.carrying
        env.grid[env.object_x[env.carrying], env.object_y[env.carrying]] = EMPTY


@njit(cache=True)
def can_pickup(env, content):
    return content > WALL and env.object_type[content] != T_DOOR


@njit(cache=True)
def toggle(env, x, y):
    """Open or close a door, unlock it with the key in hand, or replace a box by what is in it."""
    content = env.grid[x, y]
    if content <= WALL:
        return
    if env.object_type[content] == T_DOOR:
        if not env.is_locked[content]:
            env.is_open[content] = not env.is_open[content]
        elif (
            env.carrying != EMPTY
            and env.object_type[env.carrying] == T_KEY
            and env.object_color[env.carrying] == env.object_color[content]
        ):
            env.is_locked[content] = False
            env.is_open[content] = True
    elif env.object_type[content] == T_BOX:
        env.grid[x, y] = env.contains[content]


@njit(cache=True)
def step(env, action):
    """Return (reward, terminated, truncated) of one step."""
    env.step_count += 1
    x, y = env.agent_x + DIR_X[env.agent_dir], env.agent_y + DIR_Y[env.agent_dir]
    content = env.grid[x, y]
    if action == LEFT:
        env.agent_dir = (env.agent_dir + 3) % 4
    elif action == RIGHT:
        env.agent_dir = (env.agent_dir + 1) % 4
    elif action == FORWARD:
        if content == EMPTY or (content > WALL and env.object_type[content] == T_DOOR and env.is_open[content]):
            env.agent_x, env.agent_y = x, y
    elif action == PICKUP:
        if env.carrying == EMPTY and can_pickup(env, content):
            env.carrying = content
            env.object_x[content] = env.object_y[content] = -1
            env.grid[x, y] = EMPTY
    elif action == DROP:
        if env.carrying != EMPTY and content == EMPTY:
            env.grid[x, y] = env.carrying
            env.object_x[env.carrying], env.object_y[env.carrying] = x, y
            env.carrying = EMPTY
        update_objs_poss(env)
    elif action == TOGGLE:
        toggle(env, x, y)

    status = verify(env, action)
    reward = 1 - 0.9 * (env.step_count / env.max_steps) if status == SUCCESS else 0.0
    return reward, status in (SUCCESS, FAILURE), env.step_count >= env.max_steps
