"""What a level asks for: written down as its task decides it, then arranged for the verifier and the bot, and checked.

A DRAFT has the instruction in the order in which the mission names its parts. An ENV has the bot's last action first,
and under "before", "after" and "and" a small tree (`state.py`).
"""

import numpy as np
from numba import boolean, int64, void

from fast_babyai.draft import DRAFT_TYPE, ENV_TYPE, Rejected, compiled, stay_out_of_line
from fast_babyai.state import (
    AFTER,
    AND,
    ANYWHERE,
    FIRST_INSTR,
    FIRST_OBJECT,
    MAX_DESCS,
    MAX_INSTRS,
    MAX_NODES,
    MAX_SIZE,
    NO_NODE,
    PUT_NEXT,
    T_KEY,
)
from fast_babyai.verifier import find_matching_objs


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
    for node in range(MAX_NODES):
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
