"""Which of the mission's actions the bot is about to do: `reference.due_action`, compiled."""

import numpy as np
from numba import njit

from fast_babyai.rules import NO_ACTION
from fast_babyai.state import AND, BEFORE, FIRST_INSTR


@njit(cache=True)
def is_done(env, part, which):
    """Whether the first or second action (`which`) of an "and" is done; an action without "and" is not, while it is
    verified."""
    if part >= FIRST_INSTR:
        return False
    return (env.b_done[part] if which else env.a_done[part]) != 0


@njit(cache=True)
def due_action(env, bot):
    """Return the slot (`rules.LevelVectorEnv`) of the action that is due, NO_ACTION when all are done.

    Slots go by turns: the bot's turn 0 is `instr` count - 1, and so on.
    """
    count = np.int64(env.num_instrs)
    if count == 1:
        return 0
    first, second = env.root, env.root
    first_done = False
    if env.node_kind[env.root] != AND:
        first, second = env.node_a[env.root], env.node_b[env.root]
        if env.node_kind[env.root] != BEFORE:
            first, second = second, first
        first_done = env.a_done[env.root] != 0  # the verifier calls the part that comes first in time a
    num_first = 1 if first >= FIRST_INSTR else 2
    turn = np.int64(0) if bot.depth == 0 else count - 1 - np.int64(bot.stack[bot.depth - 1].instr)
    for _ in range(count):
        if turn < num_first:
            if not first_done and not is_done(env, first, turn):
                return turn
        elif not is_done(env, second, turn - num_first):
            return 2 + turn - num_first
        turn = (turn + 1) % count
    return NO_ACTION
