"""Has the mission been accomplished? minigrid's `envs/babyai/core/verifier.py`, compiled.

`find_matching_objs` keeps a peculiarity of minigrid that its bot depends on: after a drop, the positions of the objects
described are listed anew in the order of the grid, while the objects themselves keep their old order.
"""

from numba import njit

from fast_babyai.state import (
    AND,
    ANY,
    ANYWHERE,
    BEFORE,
    BEHIND,
    DIR_X,
    DIR_Y,
    DROP,
    EMPTY,
    FIRST_INSTR,
    GO_TO,
    GREY,
    IN_FRONT,
    MAX_SIZE,
    ON_THE_LEFT,
    ON_THE_RIGHT,
    OPEN,
    PICK_UP,
    PICKUP,
    PUT_NEXT,
    T_DOOR,
    T_WALL,
    TOGGLE,
    WALL,
)

CONTINUE, SUCCESS, FAILURE = range(3)


@njit(cache=True)
def matches(env, desc, content):
    """Whether an object, or a wall, is of the type and color that a description asks for."""
    kind = T_WALL if content == WALL else env.object_type[content]
    color = GREY if content == WALL else env.object_color[content]
    wanted_type, wanted_color = env.desc_type[desc], env.desc_color[desc]
    return wanted_type in (ANY, kind) and wanted_color in (ANY, color)


@njit(cache=True)
def is_at_location(env, desc, x, y):
    """Whether (x, y) is where a description says, as seen from where the agent started, in the room it started in."""
    location = env.desc_location[desc]
    if location == ANYWHERE:
        return True
    room_step = env.room_size - 1
    left, top = env.start_x // room_step * room_step, env.start_y // room_step * room_step
    if not (left <= x < left + env.room_size and top <= y < top + env.room_size):
        return False
    ahead = (x - env.start_x) * DIR_X[env.start_dir] + (y - env.start_y) * DIR_Y[env.start_dir]
    to_the_right = -(x - env.start_x) * DIR_Y[env.start_dir] + (y - env.start_y) * DIR_X[env.start_dir]
    return (
        (location == ON_THE_LEFT and to_the_right < 0)
        or (location == ON_THE_RIGHT and to_the_right > 0)
        or (location == IN_FRONT and ahead > 0)
        or (location == BEHIND and ahead < 0)
    )


@njit(cache=True)
def find_matching_objs(env, desc):
    """List the objects that a description matches at the start, and where they are."""
    count = 0
    env.is_tracked[desc, :] = False
    for x in range(env.width):
        for y in range(env.height):
            content = env.grid[x, y]
            if content != EMPTY and matches(env, desc, content) and is_at_location(env, desc, x, y):
                env.objs[desc, count] = content
                env.poss[desc, count] = x * MAX_SIZE + y
                count += 1
                if content != WALL:
                    env.is_tracked[desc, content] = True
    env.num_objs[desc] = env.num_poss[desc] = count


@njit(cache=True)
def update_objs_poss(env):
    """List again, for every description, where the objects that matched at the start are now."""
    for desc in range(env.num_descs):
        count = 0
        for x in range(env.width):
            for y in range(env.height):
                content = env.grid[x, y]
                if content == EMPTY:
                    continue
                if content == WALL:
                    tracked = matches(env, desc, WALL) and is_at_location(env, desc, x, y)
                else:
                    tracked = env.is_tracked[desc, content] != 0
                if tracked:
                    env.poss[desc, count] = x * MAX_SIZE + y
                    count += 1
        env.num_poss[desc] = count


@njit(cache=True)
def reset_verifier(env):
    for desc in range(env.num_descs):
        find_matching_objs(env, desc)
    env.pre_carrying[:] = EMPTY
    env.a_done[:] = False
    env.b_done[:] = False


@njit(cache=True)
def is_described(env, desc, content):
    """Whether an object is among those that a description matched at the start."""
    return content > WALL and env.is_tracked[desc, content] != 0


@njit(cache=True)
def verify_open(env, instr, action):
    if action != TOGGLE:
        return CONTINUE
    front = env.grid[env.agent_x + DIR_X[env.agent_dir], env.agent_y + DIR_Y[env.agent_dir]]
    if is_described(env, env.instr_desc[instr, 0], front) and env.is_open[front]:
        return SUCCESS
    if env.instr_strict[instr] and front > WALL and env.object_type[front] == T_DOOR:
        return FAILURE
    return CONTINUE


@njit(cache=True)
def verify_go_to(env, instr):
    desc = env.instr_desc[instr, 0]
    front = (env.agent_x + DIR_X[env.agent_dir]) * MAX_SIZE + env.agent_y + DIR_Y[env.agent_dir]
    for i in range(env.num_poss[desc]):
        if env.poss[desc, i] == front:
            return SUCCESS
    return CONTINUE


@njit(cache=True)
def verify_pick_up(env, instr, action):
    pre_carrying = env.pre_carrying[instr]
    env.pre_carrying[instr] = env.carrying
    if action != PICKUP:
        return CONTINUE
    if pre_carrying == EMPTY and is_described(env, env.instr_desc[instr, 0], env.carrying):
        return SUCCESS
    if env.instr_strict[instr] and env.carrying != EMPTY:
        return FAILURE
    return CONTINUE


@njit(cache=True)
def verify_put_next(env, instr, action):
    pre_carrying = env.pre_carrying[instr]
    env.pre_carrying[instr] = env.carrying
    if env.instr_strict[instr] and action == PICKUP and env.carrying != EMPTY:
        return FAILURE
    if action != DROP or not is_described(env, env.instr_desc[instr, 0], pre_carrying):
        return CONTINUE
    x, y = env.object_x[pre_carrying], env.object_y[pre_carrying]
    fixed = env.instr_desc[instr, 1]
    for i in range(env.num_poss[fixed]):
        cell = env.poss[fixed, i]
        if abs(x - cell // MAX_SIZE) + abs(y - cell % MAX_SIZE) == 1:
            return SUCCESS
    return CONTINUE


@njit(cache=True)
def verify_action(env, instr, action):
    kind = env.instr_kind[instr]
    if kind == OPEN:
        return verify_open(env, instr, action)
    if kind == GO_TO:
        return verify_go_to(env, instr)
    if kind == PICK_UP:
        return verify_pick_up(env, instr, action)
    assert kind == PUT_NEXT
    return verify_put_next(env, instr, action)


@njit(cache=True)
def verify_and(env, node, action):
    """Both, in any order. A failed part is no failure of the whole: minigrid asks it again at the next step."""
    if not env.a_done[node]:
        env.a_done[node] = verify_action(env, env.node_a[node] - FIRST_INSTR, action) == SUCCESS
    if not env.b_done[node]:
        env.b_done[node] = verify_action(env, env.node_b[node] - FIRST_INSTR, action) == SUCCESS
    return SUCCESS if env.a_done[node] and env.b_done[node] else CONTINUE


@njit(cache=True)
def verify_part(env, part, action):
    """Verify a child of "before" or "after": an action, or two with "and"."""
    if part >= FIRST_INSTR:
        return verify_action(env, part - FIRST_INSTR, action)
    return verify_and(env, part, action)


@njit(cache=True)
def verify_sequence(env, node, action):
    """`BeforeInstr` and `AfterInstr`: one part, then the other. The step that completes the first also counts for the
    second; in strict mode, the second before the first is a failure."""
    first, second = env.node_a[node], env.node_b[node]
    if env.node_kind[node] != BEFORE:
        first, second = second, first
    if not env.a_done[node]:
        status = verify_part(env, first, action)
        if status == FAILURE:
            return FAILURE
        if status != SUCCESS:
            if env.node_strict[node] and verify_part(env, second, action) == SUCCESS:
                return FAILURE
            return CONTINUE
        env.a_done[node] = True
    return verify_part(env, second, action)


@njit(cache=True)
def verify(env, action):
    """Return CONTINUE, SUCCESS or FAILURE after a step with `action`."""
    if env.root >= FIRST_INSTR:
        return verify_action(env, env.root - FIRST_INSTR, action)
    if env.node_kind[env.root] == AND:
        return verify_and(env, env.root, action)
    return verify_sequence(env, env.root, action)
