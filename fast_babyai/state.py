"""The arrays that hold a level and a running environment: one numpy record each, read like minigrid's objects.

`LEVEL` is a level as minigrid generated it, small enough to keep many thousands. `ENV` is an environment that runs one.
Compiled functions take one ENV record: `env.grid[x, y]`, `env.agent_dir`, `env.object_color[env.carrying]`.

A cell of the grid holds EMPTY, WALL, or the number of an object (from FIRST_OBJECT on); walls need no identity of their
own, because they never move. All tasks share these types, so that everything is compiled once.

An instruction is up to four actions (`instr_*`, in the order in which the bot plans them) under up to three connectives
(`node_*`): node 0 is the root, a child is a node or, from FIRST_INSTR on, an action.
"""

import numpy as np

MAX_SIZE = 25  # cells along a side; the largest task has 22
MAX_OBJECTS = 64  # object numbers, EMPTY and WALL included
MAX_INSTRS = 4
MAX_NODES = 3
MAX_DESCS = 2 * MAX_INSTRS  # descriptions of objects: one per action, two for "put ... next to ..."
MAX_MATCHES = MAX_SIZE * MAX_SIZE  # "an object" matches walls too

EMPTY, WALL, FIRST_OBJECT = 0, 1, 2

# minigrid's encoding of types and colors
T_EMPTY, T_WALL, T_DOOR, T_KEY, T_BALL, T_BOX = 1, 2, 4, 5, 6, 7
GREY = 5
ANY = 255  # in a description: any type, any color

ANYWHERE, ON_THE_LEFT, ON_THE_RIGHT, IN_FRONT, BEHIND = range(5)
GO_TO, OPEN, PICK_UP, PUT_NEXT = range(4)
NO_NODE, AND, BEFORE, AFTER = range(4)
FIRST_INSTR = 8

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)


DIR_X = np.array([1, 0, -1, 0])
DIR_Y = np.array([0, 1, 0, -1])

_LEVEL_FIELDS = [
    ("seed", np.int64),
    ("max_steps", np.int32),
    ("width", np.int32),
    ("height", np.int32),
    ("room_size", np.int32),
    ("num_cols", np.int32),  # of rooms
    ("num_rows", np.int32),
    ("agent_x", np.int32),
    ("agent_y", np.int32),
    ("agent_dir", np.int32),
    ("carrying", np.int32),  # an object that the agent picks up before its first step, or EMPTY
    ("grid", np.uint8, (MAX_SIZE, MAX_SIZE)),
    ("object_type", np.uint8, MAX_OBJECTS),
    ("object_color", np.uint8, MAX_OBJECTS),
    ("object_x", np.int16, MAX_OBJECTS),  # -1 while carried
    ("object_y", np.int16, MAX_OBJECTS),
    ("contains", np.uint8, MAX_OBJECTS),  # what is in a box, or EMPTY
    ("is_open", np.uint8, MAX_OBJECTS),
    ("is_locked", np.uint8, MAX_OBJECTS),
    ("num_instrs", np.int32),
    ("instr_kind", np.uint8, MAX_INSTRS),
    ("instr_strict", np.uint8, MAX_INSTRS),
    ("instr_desc", np.uint8, (MAX_INSTRS, 2)),  # the object, or for PUT_NEXT: what to move, and next to what
    ("root", np.uint8),  # a node or an action
    ("node_kind", np.uint8, MAX_NODES),
    ("node_strict", np.uint8, MAX_NODES),
    ("node_a", np.uint8, MAX_NODES),
    ("node_b", np.uint8, MAX_NODES),
    ("num_descs", np.int32),
    ("desc_type", np.uint8, MAX_DESCS),
    ("desc_color", np.uint8, MAX_DESCS),
    ("desc_location", np.uint8, MAX_DESCS),
    ("desc_many", np.uint8, MAX_DESCS),  # whether several objects match: "a key" rather than "the key"
]

LEVEL = np.dtype([*_LEVEL_FIELDS, ("bot_steps", np.int32)], align=True)

ENV = np.dtype(
    [
        *_LEVEL_FIELDS,
        ("step_count", np.int32),
        ("start_x", np.int32),
        ("start_y", np.int32),
        ("start_dir", np.int32),
        # minigrid's ObjDesc: the objects that matched at the start, and where the matching objects lie
        ("num_objs", np.int32, MAX_DESCS),
        ("num_poss", np.int32, MAX_DESCS),
        ("objs", np.uint8, (MAX_DESCS, MAX_MATCHES)),
        ("poss", np.int16, (MAX_DESCS, MAX_MATCHES)),  # cells: x * MAX_SIZE + y
        ("is_tracked", np.uint8, (MAX_DESCS, MAX_OBJECTS)),
        # the verifier's memory
        ("pre_carrying", np.int32, MAX_INSTRS),
        ("a_done", np.uint8, MAX_NODES),
        ("b_done", np.uint8, MAX_NODES),
    ],
    align=True,
)
