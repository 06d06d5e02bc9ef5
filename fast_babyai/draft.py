"""What the generation of a level works with: its parameters, and what minigrid keeps only while it generates.

A level is generated in an ENV record, which has its grid and its objects, with a DRAFT record beside it. TASK holds the
parameters of minigrid's level classes.

The compiled functions of generation have explicit signatures, unlike those of the environment, which are compiled for
what they are called with: here most arguments are constants, and numba would compile a function for each anew.
"""

import numpy as np
from numba import from_dtype, njit, void

from basics.compiler_cache import announce, intrinsic
from fast_babyai.random_stream import RANDOM
from fast_babyai.state import ENV, LEVEL, MAX_INSTRS, MAX_OBJECTS, MAX_SIZE

MAX_ROOMS = 64

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

DRAFT = np.dtype(
    [
        ("random", RANDOM),
        ("num_objects", np.int32),  # the next object's number
        ("is_full", np.uint8),  # there was no number left for an object
        ("is_listed", np.uint8, MAX_OBJECTS),  # whether an object is among its room's `objs`
        ("doors", np.uint8, (MAX_ROOMS, 4)),
        ("door_x", np.int16, (MAX_ROOMS, 4)),  # where there would be a door; -1 without a neighbour on that side
        ("door_y", np.int16, (MAX_ROOMS, 4)),
        ("is_locked", np.uint8, MAX_ROOMS),
        ("locked_room", np.int32),
        ("agent_placements", np.int32),  # in a row, see MAX_AGENT_PLACEMENTS
        ("subset", np.int64, 16),
        ("reached", np.uint8, (MAX_SIZE, MAX_SIZE)),
        ("stack", np.int32, MAX_SIZE * MAX_SIZE * 4),
        # the instruction, in the order in which the mission names its parts: one or two actions joined by "and", and,
        # after a connective, one or two more
        ("num_instrs", np.int32),
        ("num_first", np.int32),  # actions before the connective
        ("connective", np.uint8),
        ("instr_kind", np.uint8, MAX_INSTRS),
        ("instr_strict", np.uint8, MAX_INSTRS),
        ("desc_type", np.uint8, (MAX_INSTRS, 2)),
        ("desc_color", np.uint8, (MAX_INSTRS, 2)),
        ("desc_location", np.uint8, (MAX_INSTRS, 2)),
    ],
    align=True,
)

ENV_TYPE, LEVEL_TYPE, TASK_TYPE, DRAFT_TYPE = (from_dtype(dtype) for dtype in (ENV, LEVEL, TASK, DRAFT))


def compiled(signature):
    """Compile a function that only compiled functions call, now."""
    announce()
    # numba's stubs do not list these two options
    return njit(signature, cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # pyright: ignore[reportCallIssue]


@intrinsic
def stay_out_of_line(typing_context):
    """Keep the compiler from copying the function that calls this into its callers: with some thirty tasks that all add
    objects and doors, it would compile ten times as much code."""

    def generate_code(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return void(), generate_code


class Rejected(Exception):
    """A level could not be generated in this way."""
