"""What a step's routing may depend on: each variable puts every step into a group.

variables = step_variables(data)            # name -> Variable
variables["action"].codes                   # int [T], the group of each step; -1 where it is not known
variables["action"].labels                  # what figures write for each group
variables["cell"].places                    # of variables that are places in a plane: x and y of each group
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from plotting.data import Entries, carrying_phases, contexts
from results.routing_data import NO_ACTION, UNKNOWN, RoutingData

ACTION_NAMES = ["turn left", "turn right", "forward", "pick up", "drop", "toggle", "done"]
DIRECTION_NAMES = ["right", "down", "left", "up"]
_FORWARD = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # by direction
_FAR = 1 / 50  # of all episodes: later timesteps, reached by fewer, are one group


class Variable(NamedTuple):
    """A way to group steps.

    Attributes:
        codes: int [T], -1 where unknown.
        labels: of each group.
        places: int [groups, 2], of variables that are places in a plane, else None.
        axes: what x and y are, of such variables.
        ordered: whether the groups are numbers in order, to be joined by a line.
    """

    codes: np.ndarray
    labels: list[str]
    places: np.ndarray | None = None
    axes: tuple[str, str] = ("x (cell)", "y (cell)")
    ordered: bool = False


def _plane(places: np.ndarray, known: np.ndarray, axes: tuple[str, str]) -> Variable:
    """Return the variable whose groups are the distinct places [T, 2] of the known steps."""
    codes = np.full(len(places), -1)
    if not known.any():
        return Variable(codes, [], np.empty((0, 2), int), axes)
    low = places[known].min(0)
    height = int(places[known, 1].max() - low[1]) + 1
    keys = (places[known, 0] - low[0]) * height + places[known, 1] - low[1]
    present = np.zeros(int(keys.max()) + 1, bool)
    present[keys] = True
    codes[known] = (np.cumsum(present) - 1)[keys]
    distinct = np.column_stack(np.divmod(np.flatnonzero(present), height)) + low
    return Variable(codes, [f"({x}, {y})" for x, y in distinct.tolist()], distinct, axes)


def nearest_object(data: RoutingData, kind: str, state: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return each step's offset [T, 2] from the nearest object of a kind, where it was at the start, and whether there
    is one [T].

    Args:
        kind: a key of `env_context` such as `doors`, `keys` or `goals`.
        state: only objects in this state at the start, such as `locked`.
    """
    objects = [
        [entry["position"] for entry in context.get(kind) or () if state is None or entry.get("state") == state]
        for context in contexts(data)
    ]
    offset, distance = np.zeros((len(data), 2), int), np.full(len(data), np.inf)
    for place in range(max(map(len, objects), default=0)):
        has = np.array([place < len(each) for each in objects])[data.episode]
        position = np.array([each[place] if place < len(each) else (0, 0) for each in objects], int)
        difference = data.position - position[data.episode]
        length = np.where(has, np.abs(difference).sum(1), np.inf)
        nearer = length < distance
        offset[nearer], distance[nearer] = difference[nearer], length[nearer]
    return offset, np.isfinite(distance)


def _relative_to(kind: str) -> Callable[[RoutingData], Variable]:
    def variable(data: RoutingData) -> Variable:
        offset, known = nearest_object(data, kind)
        thing = kind.removesuffix("s")
        return _plane(offset, known, (f"cells to the right of the {thing}", f"cells below the {thing}"))

    return variable


def _seen_from_the_agent(data: RoutingData) -> Variable:
    offset, known = nearest_object(data, "goals")
    known = known & (data.direction != UNKNOWN)
    forward = _FORWARD[np.maximum(data.direction, 0)]
    right = np.column_stack([-forward[:, 1], forward[:, 0]])
    ahead, beside = -(offset * forward).sum(1), -(offset * right).sum(1)
    return _plane(np.column_stack([beside, -ahead]), known, ("goal's cells to the agent's right", "cells behind it"))


def _cells(data: RoutingData) -> Variable:
    return _plane(data.position.astype(int), np.ones(len(data), bool), ("x (cell)", "y (cell)"))


def _few(codes: np.ndarray, labels: list[str]) -> Variable:
    """Return a variable without the groups in which no step is."""
    present = np.bincount(codes[codes >= 0], minlength=len(labels)) > 0
    renumbered = np.append(np.cumsum(present) - 1, -1)  # the last for code -1
    return Variable(renumbered[codes], [label for label, is_there in zip(labels, present, strict=True) if is_there])


def _actions(data: RoutingData) -> Variable:
    return _few(np.where(data.action == NO_ACTION, -1, data.action), ACTION_NAMES)


def _previous_actions(data: RoutingData) -> Variable:
    previous = np.full(len(data), -1)
    follows = np.flatnonzero((np.diff(data.episode) == 0) & (np.diff(data.timestep) == 1)) + 1
    previous[follows] = data.action[follows - 1]
    previous[(data.timestep == 0) & (data.action != NO_ACTION)] = len(ACTION_NAMES)
    return _few(previous, [*ACTION_NAMES, "none (first step)"])


def _timesteps(data: RoutingData) -> Variable:
    if not len(data):
        return Variable(np.zeros(0, int), [], ordered=True)
    counts = np.bincount(data.timestep)
    common = np.flatnonzero(counts >= max(2, _FAR * len(np.unique(data.episode))))
    last = int(common[-1]) if len(common) else int(data.timestep.max())
    longest = int(data.timestep.max())
    codes = np.minimum(data.timestep, last + 1).astype(int)
    labels = [str(time) for time in range(last + 1)] + ([f"{last + 1} to {longest}"] if longest > last else [])
    return Variable(codes, labels, ordered=True)


def _in_view(data: RoutingData) -> Variable:
    return _few(data.target_in_view.astype(int), ["no", "yes"])


def _directions(data: RoutingData) -> Variable:
    return _few(data.direction.astype(int), DIRECTION_NAMES)


def _phases(data: RoutingData) -> Variable:
    return _few(*phases(data))


def event_times(data: RoutingData, *names: str) -> np.ndarray:
    """Return the first timestep of each episode [episodes] at which one of these events happened, else -1."""
    firsts = [
        min((time for time, what, _ in episode.get("events") or () if what in names), default=-1)
        for episode in data.episodes
    ]
    return np.array(firsts, int)


def phases(data: RoutingData) -> tuple[np.ndarray, list[str]]:
    """Return the phase of each step [T] and the names of phases.

    Where a door is locked at the start: before the key is held, with it, after unlocking with the key still held, after
    that. Otherwise what hands tell: before the first pick-up, carrying, after a drop. A step belongs to the phase in
    which its action was chosen. Caches that do not tell events (version 1) know only what hands tell.
    """
    hands, names = carrying_phases(data)
    locked = np.array([any(door.get("state") == "locked" for door in c.get("doors") or ()) for c in contexts(data)])
    if not locked.any() or not any(episode.get("events") is not None for episode in data.episodes):
        return hands, names
    unlocked_at = event_times(data, "unlock")
    unlocked = (unlocked_at >= 0)[data.episode] & (data.timestep > unlocked_at[data.episode])
    dropped_at = np.full(len(data.episodes), np.iinfo(np.int32).max)
    empty = unlocked & (data.carrying == 0)
    np.minimum.at(dropped_at, data.episode[empty], data.timestep[empty])
    after = unlocked & (data.timestep >= dropped_at[data.episode])
    held = data.carrying > 0
    keyed = np.select([after, unlocked, held], [3, 2, 1], 0)
    keyed_names = ["before the key", "with the key", "unlocked, key in hand", "unlocked, key dropped"]
    return np.where(locked[data.episode], keyed, 4 + hands), keyed_names + names


def _parts_due(data: RoutingData) -> Variable:
    """Return which part of the mission is to be done, up to and with the step whose action completes it.

    It is not known of missions of two parts in files that do not tell `parts_done`.
    """
    names = ["the only part", "first of a sequence", "second of a sequence", "either of two", "the other of two"]
    first_code, first_done = np.full(len(data.episodes), -1), np.full(len(data.episodes), np.iinfo(np.int32).max)
    for index, episode in enumerate(data.episodes):
        mission, parts_done = episode.get("mission"), episode.get("parts_done")
        if mission is None:
            continue
        is_sequence = any(words in mission for words in (", then ", " after you "))
        if parts_done is not None:
            first_code[index] = 1 if is_sequence else 3
            first_done[index] = min((time for time in parts_done if time is not None), default=first_done[index])
        elif not is_sequence and " and " not in mission:
            first_code[index] = 0
    later = data.timestep > first_done[data.episode]
    return _few(np.where(first_code[data.episode] < 0, -1, first_code[data.episode] + later), names)


def distance_due(data: RoutingData) -> np.ndarray:
    """Return each step's distance in cells (Manhattan) [T] to what is to be reached now, NaN where that is not known.

    That is the nearest goal; but where a door is locked at the start, first the nearest key and, with the key in hand,
    the locked door. Objects count where they were at the start.
    """
    codes, names = phases(data)
    distance = np.full(len(data), np.nan)
    due = [("goals", None, np.ones(len(data), bool))]
    if "before the key" in names:
        due += [("keys", None, codes == 0), ("doors", "locked", codes == 1)]
    for kind, state, when in due:
        offset, known = nearest_object(data, kind, state)
        distance = np.where(when, np.where(known, np.abs(offset).sum(1), np.nan), distance)
    return distance


def _distances(data: RoutingData) -> Variable:
    distance = distance_due(data)
    known = np.isfinite(distance)
    codes = np.where(known, np.nan_to_num(distance), -1).astype(int)
    return Variable(codes, [str(cells) for cells in range(codes.max(initial=-1) + 1)], ordered=True)


VARIABLES: dict[str, Callable[[RoutingData], Variable]] = {
    "cell": _cells,
    "cell relative to the goal": _relative_to("goals"),
    "cell relative to the door": _relative_to("doors"),
    "goal as the agent sees it": _seen_from_the_agent,
    "direction": _directions,
    "phase": _phases,
    "mission part due": _parts_due,
    "distance to what is due": _distances,
    "action": _actions,
    "previous action": _previous_actions,
    "timestep": _timesteps,
    "target in view": _in_view,
}


def step_variables(routing_data: Entries) -> dict[str, Variable]:
    """Return by name every variable that this data tells and that puts its steps into at least two groups."""
    data = RoutingData.from_entries(routing_data)
    found = {name: make(data) for name, make in VARIABLES.items()}
    return {name: variable for name, variable in found.items() if len(variable.labels) > 1}
