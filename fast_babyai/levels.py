"""Between LEVEL records and minigrid: its levels as such records, and the text of a record's mission."""

import functools

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, IDX_TO_COLOR, IDX_TO_OBJECT, OBJECT_TO_IDX
from minigrid.envs.babyai.core.verifier import (
    AndInstr,
    BeforeInstr,
    GoToInstr,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
    SeqInstr,
)

from fast_babyai.state import (
    AFTER,
    AND,
    ANY,
    ANYWHERE,
    BEFORE,
    BEHIND,
    EMPTY,
    FIRST_INSTR,
    FIRST_OBJECT,
    GO_TO,
    IN_FRONT,
    LEVEL,
    MAX_INSTRS,
    MAX_OBJECTS,
    MAX_SIZE,
    ON_THE_LEFT,
    ON_THE_RIGHT,
    OPEN,
    PICK_UP,
    PUT_NEXT,
    WALL,
)

LOCATIONS = {None: ANYWHERE, "left": ON_THE_LEFT, "right": ON_THE_RIGHT, "front": IN_FRONT, "behind": BEHIND}
INSTR_KINDS = {GoToInstr: GO_TO, OpenInstr: OPEN, PickupInstr: PICK_UP, PutNextInstr: PUT_NEXT}
INSTR_KINDS_BY_NAME = {"goto": GO_TO, "open": OPEN, "pickup": PICK_UP, "putnext": PUT_NEXT}  # as LevelGen has them


def level_of(env, level_seed: int) -> np.ndarray:
    """Return the level that minigrid's `env` was just reset to, a LEVEL array of shape [] without `bot_steps`.

    Raises:
        ValueError: it does not fit the arrays' sizes.
    """
    level = np.zeros((), LEVEL)
    level["seed"] = level_seed
    for name in ("max_steps", "width", "height", "room_size", "num_cols", "num_rows", "agent_dir"):
        level[name] = getattr(env, name)
    level["agent_x"], level["agent_y"] = env.agent_pos
    if max(env.width, env.height) > MAX_SIZE:
        raise ValueError(f"a grid of {env.width}x{env.height} cells is larger than {MAX_SIZE}x{MAX_SIZE}")

    numbers: dict[int, int] = {}

    def number_of(cell) -> int:
        if cell is None:
            return EMPTY
        if cell.type == "wall":
            return WALL
        if id(cell) not in numbers:
            numbers[id(cell)] = number = FIRST_OBJECT + len(numbers)
            if number >= MAX_OBJECTS:
                raise ValueError(f"more than {MAX_OBJECTS - FIRST_OBJECT} objects")
            level["object_type"][number] = OBJECT_TO_IDX[cell.type]
            level["object_color"][number] = COLOR_TO_IDX[cell.color]
            level["object_x"][number], level["object_y"][number] = (-1, -1) if cell.cur_pos is None else cell.cur_pos
            level["is_open"][number] = getattr(cell, "is_open", False)
            level["is_locked"][number] = getattr(cell, "is_locked", False)
            level["contains"][number] = number_of(cell.contains)
        return numbers[id(cell)]

    for x in range(env.width):
        for y in range(env.height):
            level["grid"][x, y] = number_of(env.grid.get(x, y))
    if env.carrying is not None:
        level["carrying"] = number_of(env.carrying)
        level["grid"][tuple(env.carrying.init_pos)] = level["carrying"]
    _add_instruction(level, env.instrs)
    return level


def _add_instruction(level: np.ndarray, instruction) -> None:
    instrs = _in_the_bots_order(instruction)
    if len(instrs) > MAX_INSTRS:
        raise ValueError(f"a mission of {len(instrs)} actions; at most {MAX_INSTRS} are expected")
    level["num_instrs"] = len(instrs)
    descs: list = []
    for place, instr in enumerate(instrs):
        if type(instr) not in INSTR_KINDS:
            raise ValueError(f"an action of the unknown class {type(instr).__name__}")
        kind = INSTR_KINDS[type(instr)]
        level["instr_kind"][place] = kind
        level["instr_strict"][place] = getattr(instr, "strict", False)
        for part, desc in enumerate([instr.desc_move, instr.desc_fixed] if kind == PUT_NEXT else [instr.desc]):
            level["instr_desc"][place, part] = len(descs)
            descs.append(desc)
    level["num_descs"] = len(descs)
    for place, desc in enumerate(descs):
        level["desc_type"][place] = ANY if desc.type is None else OBJECT_TO_IDX[desc.type]
        level["desc_color"][place] = ANY if desc.color is None else COLOR_TO_IDX[desc.color]
        level["desc_location"][place] = LOCATIONS[desc.loc]
        level["desc_many"][place] = len(desc.obj_set) > 1

    nodes = iter(range(3))

    def part_of(instr) -> int:
        if not isinstance(instr, SeqInstr):
            return FIRST_INSTR + next(place for place, other in enumerate(instrs) if other is instr)
        node = next(nodes)
        level["node_kind"][node] = (
            AND if isinstance(instr, AndInstr) else BEFORE if isinstance(instr, BeforeInstr) else AFTER
        )
        level["node_strict"][node] = instr.strict
        level["node_a"][node], level["node_b"][node] = part_of(instr.instr_a), part_of(instr.instr_b)
        return node

    level["root"] = part_of(instruction)


def _in_the_bots_order(instruction) -> list:
    """Return an instruction's actions in the order in which the bot puts them on its stack: the last to do first."""
    if not isinstance(instruction, SeqInstr):
        return [instruction]
    first, second = instruction.instr_b, instruction.instr_a
    if not isinstance(instruction, BeforeInstr | AndInstr):
        first, second = second, first
    return _in_the_bots_order(first) + _in_the_bots_order(second)


WHERE = {
    ON_THE_LEFT: " on your left",
    ON_THE_RIGHT: " on your right",
    IN_FRONT: " in front of you",
    BEHIND: " behind you",
}
VERBS = {GO_TO: "go to", OPEN: "open", PICK_UP: "pick up", PUT_NEXT: "put"}
CONNECTIVES = {AND: " and ", BEFORE: ", then ", AFTER: " after you "}

# The part of a LEVEL that its mission follows from
assert LEVEL.fields is not None  # by name, in order: type and offset
_FIELDS = list(LEVEL.fields)
_MISSION_FIELDS = _FIELDS[_FIELDS.index("num_instrs") : _FIELDS.index("desc_many") + 1]
_MISSION_START = LEVEL.fields[_MISSION_FIELDS[0]][1]
_MISSION_END = LEVEL.fields[_MISSION_FIELDS[-1]][1] + LEVEL[_MISSION_FIELDS[-1]].itemsize
_MISSION = np.dtype(
    {
        "names": _MISSION_FIELDS,
        "formats": [LEVEL[name] for name in _MISSION_FIELDS],
        "offsets": [LEVEL.fields[name][1] - _MISSION_START for name in _MISSION_FIELDS],
        "itemsize": _MISSION_END - _MISSION_START,
    }
)


def mission_text(level: np.void) -> str:
    """Return the mission of a LEVEL record, as minigrid's instructions put it into words."""
    return _text_of(level.tobytes()[_MISSION_START:_MISSION_END])


@functools.lru_cache(maxsize=1 << 14)  # most tasks have a few dozen missions
def _text_of(mission_bytes: bytes) -> str:
    mission = dict(zip(_MISSION_FIELDS, np.frombuffer(mission_bytes, _MISSION)[0].item(), strict=True))

    def object_text(desc: int) -> str:
        kind, color = int(mission["desc_type"][desc]), int(mission["desc_color"][desc])
        words = "a" if mission["desc_many"][desc] else "the"
        if color != ANY:
            words += f" {IDX_TO_COLOR[color]}"
        words += " object" if kind == ANY else f" {IDX_TO_OBJECT[kind]}"
        return words + WHERE.get(int(mission["desc_location"][desc]), "")

    def part_text(part: int) -> str:
        if part < FIRST_INSTR:
            first, second = (part_text(int(mission[name][part])) for name in ("node_a", "node_b"))
            return first + CONNECTIVES[int(mission["node_kind"][part])] + second
        kind = int(mission["instr_kind"][part - FIRST_INSTR])
        move, fixed = mission["instr_desc"][part - FIRST_INSTR].tolist()
        next_to = f" next to {object_text(fixed)}" if kind == PUT_NEXT else ""
        return f"{VERBS[kind]} {object_text(move)}{next_to}"

    return part_text(mission["root"])
