"""minigrid's levels as LEVEL records, and the process that generates them for the bank.

    python -m fast_babyai.levels TASK_ID MAX_STEPS FOLDER < numbers of chunks, one a line

`MAX_STEPS` is a number, or `null` for the task's own. The process answers each line when its chunk is in the folder,
and ends with its standard input.
"""

import os
import sys
from pathlib import Path

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.envs.babyai.core.verifier import (
    AndInstr,
    BeforeInstr,
    GoToInstr,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
    SeqInstr,
)

from fast_babyai.reference import make_level_env, reset_level
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

CHUNK = 64  # levels generated, stored and loaded together: the level seeds number * CHUNK and following

LOCATIONS = {None: ANYWHERE, "left": ON_THE_LEFT, "right": ON_THE_RIGHT, "front": IN_FRONT, "behind": BEHIND}
INSTR_KINDS = {GoToInstr: GO_TO, OpenInstr: OPEN, PickupInstr: PICK_UP, PutNextInstr: PUT_NEXT}


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


def generate_chunk(env, number: int, path: Path) -> None:
    """Generate the levels of a chunk with minigrid's `env`, and write them to `path` at one stroke. A dot on stdout for
    each level tells how far it is."""
    levels = np.zeros(CHUNK, LEVEL)
    missions = []
    for place in range(CHUNK):
        reset_level(env, number * CHUNK + place)
        levels[place] = level_of(env, number * CHUNK + place)
        missions.append(env.mission)
        print(end=".", flush=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, levels=levels, missions=np.array(missions))
    os.replace(temporary, path)


def main(task_id: str, max_steps: str, folder: str) -> None:
    env = make_level_env(task_id, None if max_steps == "null" else int(max_steps))
    for line in sys.stdin:
        path = Path(folder) / f"chunk_{int(line)}.npz"
        if path.exists():
            print(end=CHUNK * ".", flush=True)
        else:
            generate_chunk(env, int(line), path)


if __name__ == "__main__":
    main(*sys.argv[1:])
