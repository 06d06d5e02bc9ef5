"""The BabyAI bot, compiled: minigrid's `BabyAIBot`, decision for decision, whatever the student did before.

Read it beside `minigrid/utils/baby_ai_bot.py`: functions have the names of its methods, and each kind of subgoal has
its pair of `*_before_action` and `*_after_action`. What differs is the form:

- The stack holds SUBGOAL records. The copies of the environment's attributes that Python's subgoals carry are not
  stored: `replan` refreshes them all before it decides anything, and the environment stands still while it decides.
- Where Python's bot raises an exception, of whatever type, this one sets `bot.failed`: neither goes on after it. A plan
  that does not settle (more than PLAN_LIMIT subgoals pushed in one replan, or more than MAX_DEPTH at once) fails too.
  Assertions that cannot fail, because the environment plays by minigrid's rules, are left out.
- All searches of one replan are one (`bot_search.py`).
- Each subgoal knows which of the mission's actions it serves: that of the subgoal that pushed it (`due_action.py`).
"""

import numpy as np
from numba import njit

from fast_babyai.bot_search import (
    NOWHERE,
    STEP,
    UNOPENED_DOOR,
    UNOPENED_UNLOCKED_DOOR,
    UNSEEN,
    agent_cell,
    content_of,
    find_cell,
    find_drop_pos,
    find_obj_pos,
    is_door,
    is_open_door,
    process_obs,
    shortest_path,
    start_search,
)
from fast_babyai.dynamics import step
from fast_babyai.rules import MAX_DEPTH, NO_ACTION, PLAN_LIMIT, VIEW
from fast_babyai.state import (
    DIR_X,
    DIR_Y,
    DONE,
    DROP,
    EMPTY,
    FORWARD,
    GO_TO,
    LEFT,
    MAX_OBJECTS,
    MAX_SIZE,
    OPEN,
    PICK_UP,
    PICKUP,
    RIGHT,
    T_BOX,
    T_KEY,
    TOGGLE,
    WALL,
)

REPLAN = -2  # in place of an action: the stack has changed, ask its top again

# numpy's integers, because numba compiles a function anew for every Python integer that it is given as a constant
CLOSE_SUBGOAL, OPEN_SUBGOAL, DROP_SUBGOAL, PICKUP_SUBGOAL, GO_NEXT_TO_SUBGOAL, EXPLORE_SUBGOAL = np.arange(6)
NO_REASON, TO_PUT_NEXT, TO_OPEN, TO_EXPLORE, TO_UNLOCK, KEEP_KEY = np.arange(6)

# What a GO_NEXT_TO_SUBGOAL goes next to
POSITION = np.int64(0)  # target: a cell, or NOWHERE (which fails only when this subgoal's turn comes)
OBJECTS = np.int64(1)  # target: one of the instruction's descriptions; the environment keeps their positions up to date
KEYS = np.int64(2)  # the keys of one color, where they were when the subgoal was made: nobody updates these positions
DOOR = np.int64(3)  # target: the cell of a door

SUBGOAL = np.dtype(
    [
        ("target", np.int32),
        ("kind", np.uint8),
        ("reason", np.uint8),
        ("datum", np.uint8),
        ("instr", np.uint8),  # the action of the mission that it serves
        ("num_keys", np.int32),
        ("key_set", np.uint8, MAX_OBJECTS),
        ("key_poss", np.int16, MAX_OBJECTS),
    ],
    align=True,
)

NUM_CELLS = MAX_SIZE * MAX_SIZE

BOT = np.dtype(
    [
        ("failed", np.uint8),
        ("vis_mask", np.uint8, NUM_CELLS),  # what has been seen so far
        # memory of the last replan
        ("prev_agent_pos", np.int32),
        ("prev_carrying", np.int32),
        ("prev_fwd_is_box", np.uint8),
        ("fwd_door_was_open", np.uint8),  # of the door faced last, which may be long ago
        # the search (bot_search.py)
        ("search_phase", np.uint8),
        ("queue_size", np.int32),
        ("next_in_queue", np.int32),
        ("num_free", np.int32),
        ("queue", np.int16, NUM_CELLS),
        ("reached", np.uint8, NUM_CELLS),
        ("heading", np.uint8, NUM_CELLS),
        ("distance", np.int16, NUM_CELLS),
        ("first_step", np.uint8, NUM_CELLS),
        # the plan
        ("instr", np.uint8),  # the action served by the subgoal that is asked
        ("pushes", np.int32),  # since the replan began
        ("depth", np.int32),
        ("stack", SUBGOAL, MAX_DEPTH + 1),
    ],
    align=True,
)


@njit(cache=True)
def beside(env, direction):
    """Return the cell next to the agent in an absolute direction (taken modulo 4)."""
    return (env.agent_x + DIR_X[direction % 4]) * MAX_SIZE + env.agent_y + DIR_Y[direction % 4]


@njit(cache=True)
def fwd_cell(env):
    """Return what is in front of the agent."""
    return env.grid[env.agent_x + DIR_X[env.agent_dir], env.agent_y + DIR_Y[env.agent_dir]]


@njit(cache=True)
def got_the_key(env, door):
    return (
        env.carrying != EMPTY
        and env.object_type[env.carrying] == T_KEY
        and env.object_color[env.carrying] == env.object_color[door]
    )


@njit(cache=True)
def push(bot, kind, reason):
    """Push a subgoal and return it."""
    subgoal = bot.stack[bot.depth]
    subgoal.kind = kind
    subgoal.reason = reason
    subgoal.instr = bot.instr
    bot.pushes += 1
    if bot.pushes > PLAN_LIMIT or bot.depth == MAX_DEPTH:
        bot.failed = True
    else:
        bot.depth += 1
    return subgoal


@njit(cache=True)
def push_go_next_to(bot, datum, target, reason):
    subgoal = push(bot, GO_NEXT_TO_SUBGOAL, reason)
    subgoal.datum = datum
    subgoal.target = target


@njit(cache=True)
def push_go_next_to_key(env, bot, color):
    """Push going to one of the keys that lie around now: `find_matching_objs` of a new description."""
    subgoal = push(bot, GO_NEXT_TO_SUBGOAL, NO_REASON)
    subgoal.datum = KEYS
    count = 0
    for x in range(env.width):
        for y in range(env.height):
            content = env.grid[x, y]
            if env.object_type[content] == T_KEY and env.object_color[content] == color:
                subgoal.key_set[count] = content
                subgoal.key_poss[count] = x * MAX_SIZE + y
                count += 1
    subgoal.num_keys = count


@njit(cache=True)
def pop(bot):
    bot.depth -= 1


@njit(cache=True)
def plan_undo_action(env, bot, action_taken):
    """Plan how to undo the taken action."""
    if action_taken == FORWARD:
        if bot.prev_agent_pos != agent_cell(env):
            push_go_next_to(bot, POSITION, agent_cell(env), NO_REASON)
    elif action_taken == LEFT:
        push_go_next_to(bot, POSITION, beside(env, env.agent_dir + 1), NO_REASON)
    elif action_taken == RIGHT:
        push_go_next_to(bot, POSITION, beside(env, env.agent_dir - 1), NO_REASON)
    elif action_taken == DROP and bot.prev_carrying != env.carrying:
        push(bot, PICKUP_SUBGOAL, NO_REASON)
    elif action_taken == PICKUP and bot.prev_carrying != env.carrying:
        push(bot, DROP_SUBGOAL, NO_REASON)
    elif action_taken == TOGGLE:
        door = fwd_cell(env)
        if is_door(env, door) and bot.fwd_door_was_open != env.is_open[door]:
            push(bot, CLOSE_SUBGOAL if env.is_open[door] else OPEN_SUBGOAL, NO_REASON)


@njit(cache=True)
def close_before_action(env, bot):
    if not is_open_door(env, fwd_cell(env)):
        bot.failed = True
    return TOGGLE


@njit(cache=True)
def close_after_action(env, bot, action_taken):
    if action_taken in (NO_ACTION, TOGGLE):
        pop(bot)
    elif action_taken in (FORWARD, LEFT, RIGHT):
        plan_undo_action(env, bot, action_taken)


@njit(cache=True)
def open_before_action(env, bot, reason):
    door = fwd_cell(env)
    if not is_door(env, door):
        bot.failed = True
        return REPLAN

    if env.is_locked[door] and not got_the_key(env, door):
        door_pos = beside(env, env.agent_dir)
        pop(bot)
        drop_pos = NOWHERE
        if env.carrying != EMPTY:
            # after all, take back what is carried now
            drop_pos = find_drop_pos(env, bot, NOWHERE)
            push(bot, PICKUP_SUBGOAL, NO_REASON)
            push_go_next_to(bot, POSITION, drop_pos, NO_REASON)
        push(bot, OPEN_SUBGOAL, NO_REASON)
        push_go_next_to(bot, POSITION, door_pos, NO_REASON)
        push(bot, PICKUP_SUBGOAL, NO_REASON)
        push_go_next_to_key(env, bot, env.object_color[door])
        if env.carrying != EMPTY:
            push(bot, DROP_SUBGOAL, NO_REASON)
            push_go_next_to(bot, POSITION, drop_pos, NO_REASON)
        return REPLAN

    if env.is_open[door]:
        push(bot, CLOSE_SUBGOAL, NO_REASON)
        return REPLAN

    if env.is_locked[door] and reason == NO_REASON:
        pop(bot)
        push(bot, OPEN_SUBGOAL, TO_UNLOCK)
        return REPLAN

    return TOGGLE


@njit(cache=True)
def open_after_action(env, bot, reason, action_taken):
    if action_taken in (NO_ACTION, TOGGLE):
        pop(bot)
        if reason == TO_UNLOCK:
            drop_key_pos = find_drop_pos(env, bot, NOWHERE)
            push(bot, DROP_SUBGOAL, NO_REASON)
            push_go_next_to(bot, POSITION, drop_key_pos, NO_REASON)
    else:
        plan_undo_action(env, bot, action_taken)


@njit(cache=True)
def drop_before_action(env, bot):
    if env.carrying == EMPTY or fwd_cell(env) != EMPTY:
        bot.failed = True
    return DROP


@njit(cache=True)
def drop_after_action(env, bot, action_taken):
    if action_taken in (NO_ACTION, DROP):
        pop(bot)
    elif action_taken in (FORWARD, LEFT, RIGHT):
        plan_undo_action(env, bot, action_taken)


@njit(cache=True)
def pickup_before_action(env, bot):
    if env.carrying != EMPTY:
        bot.failed = True
    return PICKUP


@njit(cache=True)
def pickup_after_action(env, bot, action_taken):
    if action_taken in (NO_ACTION, PICKUP):
        pop(bot)
    elif action_taken in (LEFT, RIGHT):
        plan_undo_action(env, bot, action_taken)


@njit(cache=True)
def find_target(env, bot, subgoal):
    """Return object (EMPTY if a mere position) and cell (NOWHERE if yet to be explored) that a subgoal goes next to."""
    adjacent = subgoal.reason == TO_PUT_NEXT
    if subgoal.datum == OBJECTS:
        desc = subgoal.target
        return find_obj_pos(env, bot, env.objs[desc], env.num_objs[desc], env.poss[desc], env.num_poss[desc], adjacent)
    if subgoal.datum == KEYS:
        count = subgoal.num_keys
        return find_obj_pos(env, bot, subgoal.key_set[:], count, subgoal.key_poss[:], count, adjacent)
    if subgoal.datum == DOOR:
        return content_of(env, subgoal.target), subgoal.target
    if subgoal.target == NOWHERE:
        bot.failed = True
    return EMPTY, subgoal.target


@njit(cache=True)
def manhattan_distance(cell, other):
    return abs(cell // MAX_SIZE - other // MAX_SIZE) + abs(cell % MAX_SIZE - other % MAX_SIZE)


@njit(cache=True)
def steppable(env, content):
    return content == EMPTY or is_open_door(env, content)


@njit(cache=True)
def closest_wall_or_door_given_dir(env, direction):
    """Return how far a wall or a door is in a direction to the agent's side, as far as the view reaches."""
    step_x, step_y = DIR_X[direction % 4], DIR_Y[direction % 4]
    for distance in range(1, VIEW // 2 + 1):
        content = env.grid[env.agent_x + distance * step_x, env.agent_y + distance * step_y]
        if content == WALL or is_door(env, content):
            return distance
    return VIEW // 2


@njit(cache=True)
def move_away(env):
    """Return a first action away from where the agent stands, which is what it should stand next to."""
    if steppable(env, fwd_cell(env)):
        return FORWARD
    if steppable(env, content_of(env, beside(env, env.agent_dir + 1))):
        return RIGHT
    return LEFT


@njit(cache=True)
def move_blocker(env, bot):
    """Plan to put aside the object in front of the agent, and before that what the agent is carrying."""
    blocker_pos = beside(env, env.agent_dir)
    drop_pos = find_drop_pos(env, bot, NOWHERE)
    if env.carrying == EMPTY:
        push(bot, DROP_SUBGOAL, NO_REASON)
        push_go_next_to(bot, POSITION, drop_pos, NO_REASON)
        push(bot, PICKUP_SUBGOAL, NO_REASON)
        return
    drop_pos_block = find_drop_pos(env, bot, drop_pos)
    push(bot, PICKUP_SUBGOAL, NO_REASON)
    push_go_next_to(bot, POSITION, drop_pos, NO_REASON)
    push(bot, DROP_SUBGOAL, NO_REASON)
    push_go_next_to(bot, POSITION, drop_pos_block, NO_REASON)
    push(bot, PICKUP_SUBGOAL, NO_REASON)
    push_go_next_to(bot, POSITION, blocker_pos, NO_REASON)
    push(bot, DROP_SUBGOAL, NO_REASON)
    push_go_next_to(bot, POSITION, drop_pos, NO_REASON)


@njit(cache=True)
def go_next_to_before_action(env, bot, subgoal):
    reason = subgoal.reason
    target_obj, target_pos = find_target(env, bot, subgoal)
    if bot.failed:
        return REPLAN
    if target_pos == NOWHERE:
        push(bot, EXPLORE_SUBGOAL, NO_REASON)
        return REPLAN

    # on the way to a locked door with empty hands: first the key
    if reason == TO_OPEN and is_door(env, target_obj) and env.is_locked[target_obj] and env.carrying == EMPTY:
        pop(bot)
        push_go_next_to(bot, DOOR, target_pos, TO_OPEN)
        push(bot, PICKUP_SUBGOAL, NO_REASON)
        push_go_next_to_key(env, bot, env.object_color[target_obj])
        return REPLAN

    if manhattan_distance(target_pos, agent_cell(env)) == (1 if reason == TO_PUT_NEXT else 0):
        return move_away(env)

    fwd_pos = beside(env, env.agent_dir)
    in_front = fwd_cell(env)
    if reason == TO_PUT_NEXT:
        if manhattan_distance(target_pos, fwd_pos) == 1:
            if in_front == EMPTY:
                pop(bot)
                return REPLAN
            if is_open_door(env, in_front):
                # nothing can be dropped here: go on through the door, so that the target will have to be moved
                push_go_next_to(bot, POSITION, fwd_pos + 2 * STEP[env.agent_dir], NO_REASON)
                return REPLAN
    elif target_pos == fwd_pos:
        pop(bot)
        return REPLAN

    if shortest_path(env, bot, target_pos) in (NOWHERE, 0):
        push(bot, EXPLORE_SUBGOAL, NO_REASON)
        return REPLAN

    turns_to_the_right = (bot.first_step[target_pos] - env.agent_dir) % 4
    if turns_to_the_right == 0:
        if in_front == EMPTY:
            return FORWARD
        if not is_door(env, in_front):
            move_blocker(env, bot)
            return REPLAN
        if env.is_locked[in_front]:
            bot.failed = True
        elif env.is_open[in_front]:
            return FORWARD
        push(bot, OPEN_SUBGOAL, NO_REASON)
        return REPLAN
    if turns_to_the_right == 1:
        return RIGHT
    if turns_to_the_right == 3:
        return LEFT
    # the way leads back: turn to the side that is wider
    distance_right = closest_wall_or_door_given_dir(env, env.agent_dir + 1)
    distance_left = closest_wall_or_door_given_dir(env, env.agent_dir - 1)
    return LEFT if distance_left > distance_right else RIGHT


@njit(cache=True)
def go_next_to_after_action(env, bot, action_taken):
    if action_taken in (PICKUP, DROP, TOGGLE):
        plan_undo_action(env, bot, action_taken)


@njit(cache=True)
def explore_before_action(env, bot):
    unseen_pos = find_cell(env, bot, UNSEEN, NOWHERE, True)
    if unseen_pos != NOWHERE:
        push_go_next_to(bot, POSITION, unseen_pos, TO_EXPLORE)
        return REPLAN

    door_pos = find_cell(env, bot, UNOPENED_UNLOCKED_DOOR, NOWHERE, True)
    if door_pos == NOWHERE:
        door_pos = find_cell(env, bot, UNOPENED_DOOR, NOWHERE, True)
    if door_pos == NOWHERE:
        bot.failed = True  # nothing left to explore
        return REPLAN

    door = content_of(env, door_pos)
    pop(bot)
    push(bot, OPEN_SUBGOAL, KEEP_KEY if env.is_locked[door] and got_the_key(env, door) else NO_REASON)
    push_go_next_to(bot, DOOR, door_pos, TO_OPEN)
    return REPLAN


@njit(cache=True)
def replan_before_action(env, bot):
    """Return the action that the topmost subgoal suggests, or REPLAN once it has changed the stack."""
    subgoal = bot.stack[bot.depth - 1]
    bot.instr = subgoal.instr
    if subgoal.kind == CLOSE_SUBGOAL:
        return close_before_action(env, bot)
    if subgoal.kind == OPEN_SUBGOAL:
        return open_before_action(env, bot, subgoal.reason)
    if subgoal.kind == DROP_SUBGOAL:
        return drop_before_action(env, bot)
    if subgoal.kind == PICKUP_SUBGOAL:
        return pickup_before_action(env, bot)
    if subgoal.kind == GO_NEXT_TO_SUBGOAL:
        return go_next_to_before_action(env, bot, subgoal)
    return explore_before_action(env, bot)


@njit(cache=True)
def replan_after_action(env, bot, action_taken):
    """Let the topmost subgoal change the plan in view of the action that was taken."""
    subgoal = bot.stack[bot.depth - 1]
    bot.instr = subgoal.instr
    if subgoal.kind == CLOSE_SUBGOAL:
        close_after_action(env, bot, action_taken)
    elif subgoal.kind == OPEN_SUBGOAL:
        open_after_action(env, bot, subgoal.reason, action_taken)
    elif subgoal.kind == DROP_SUBGOAL:
        drop_after_action(env, bot, action_taken)
    elif subgoal.kind == PICKUP_SUBGOAL:
        pickup_after_action(env, bot, action_taken)
    elif subgoal.kind == GO_NEXT_TO_SUBGOAL:
        go_next_to_after_action(env, bot, action_taken)


@njit(cache=True)
def is_exploratory(subgoal):
    return subgoal.kind == EXPLORE_SUBGOAL or (subgoal.kind == GO_NEXT_TO_SUBGOAL and subgoal.reason == TO_EXPLORE)


@njit(cache=True)
def process_instr(env, bot):
    """Push the subgoals of the mission's actions; the environment lists these with the last one first."""
    for instr in range(env.num_instrs):
        kind, desc = env.instr_kind[instr], env.instr_desc[instr, 0]
        bot.instr = instr
        if kind == GO_TO:
            push_go_next_to(bot, OBJECTS, desc, NO_REASON)
        elif kind == OPEN:
            push(bot, OPEN_SUBGOAL, NO_REASON)
            push_go_next_to(bot, OBJECTS, desc, TO_OPEN)
        elif kind == PICK_UP:
            push(bot, DROP_SUBGOAL, NO_REASON)  # so that something else can be carried next
            push(bot, PICKUP_SUBGOAL, NO_REASON)
            push_go_next_to(bot, OBJECTS, desc, NO_REASON)
        else:
            push(bot, DROP_SUBGOAL, NO_REASON)
            push_go_next_to(bot, OBJECTS, env.instr_desc[instr, 1], TO_PUT_NEXT)
            push(bot, PICKUP_SUBGOAL, NO_REASON)
            push_go_next_to(bot, OBJECTS, desc, NO_REASON)


@njit(cache=True)
def remember_current_state(env, bot):
    bot.prev_agent_pos = agent_cell(env)
    bot.prev_carrying = env.carrying
    in_front = fwd_cell(env)
    bot.prev_fwd_is_box = env.object_type[in_front] == T_BOX
    if is_door(env, in_front):
        bot.fwd_door_was_open = env.is_open[in_front]


@njit(cache=True)
def reset_bot(env, bot):
    """Make `bot` a new bot for the level that `env` is at the start of."""
    bot.failed = False
    bot.vis_mask[:] = False
    bot.prev_fwd_is_box = False
    bot.pushes = 0
    bot.depth = 0
    process_instr(env, bot)


@njit(cache=True)
def replan(env, bot, action_taken):
    """Return the action that the bot suggests now, NO_ACTION if it has no plan (and never will in this episode).

    `action_taken` is the action taken since the last call, NO_ACTION in the first call after `reset_bot`.
    """
    process_obs(env, bot)
    if action_taken == TOGGLE and bot.prev_fwd_is_box:
        bot.failed = True  # a box was opened: the bot gives up, whether it needed the box or not
    if bot.failed:
        return NO_ACTION

    start_search(env, bot)
    bot.pushes = 0
    if bot.depth > 0:
        replan_after_action(env, bot, action_taken)
    while bot.depth > 0 and is_exploratory(bot.stack[bot.depth - 1]):
        pop(bot)

    suggested_action = REPLAN
    while suggested_action == REPLAN and bot.depth > 0 and not bot.failed:
        suggested_action = replan_before_action(env, bot)
    if bot.failed:
        return NO_ACTION
    if bot.depth == 0:
        suggested_action = DONE

    remember_current_state(env, bot)
    return suggested_action


@njit(cache=True)
def bot_solution_steps(env, bot):
    """Let the bot play alone; return the number of steps that it takes to succeed, -1 if it does not.

    `env` is at the start of a level; afterwards it and `bot` are wherever that led: pass copies to go on with.
    """
    reset_bot(env, bot)
    action = replan(env, bot, np.int64(NO_ACTION))
    while action != NO_ACTION:
        reward, terminated, truncated = step(env, action)
        if terminated or truncated:
            return env.step_count if reward > 0 else -1
        action = replan(env, bot, action)
    return -1
