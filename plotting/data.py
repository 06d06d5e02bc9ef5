"""Routing data averaged per cell and split into groups."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from results.routing_data import RoutingData

Entries = RoutingData | Sequence[dict]
Filter = Callable[[dict], bool] | np.ndarray | None

_ROOM_COLUMNS = {1: [""], 2: ["Left", "Right"], 3: ["Left", "Center", "Right"]}
_ROOM_ROWS = {1: [""], 2: ["Top", "Bottom"], 3: ["Top", "Middle", "Bottom"]}
_CARRYING_PHASES = ["before the first pick-up", "carrying", "after a drop"]
_QUADRANTS = ["Top-Left", "Top-Right", "Bottom-Left", "Bottom-Right"]
_DOOR_PLACES = ["right", "below", "left", "above", "in another room"]
_MISSION_TYPES = {"go to": "go to", "pick up": "pick up", "open": "open", "put": "put next to"}


class NothingToShow(ValueError):
    """There is nothing that a figure could show; the message says why."""


class GridInfo(Mapping):
    """The cells of a heatmap: a mapping of its bounds (x_min, x_max, y_min, y_max, grid_width, grid_height), which are
    attributes too, and `walls` [W, 2], those of its cells that are walls."""

    BOUNDS = ("x_min", "x_max", "y_min", "y_max", "grid_width", "grid_height")

    def __init__(self, x_min: int, x_max: int, y_min: int, y_max: int, walls: np.ndarray | None = None):
        self.x_min, self.x_max, self.y_min, self.y_max = x_min, x_max, y_min, y_max
        self.grid_width, self.grid_height = x_max - x_min + 1, y_max - y_min + 1
        self.walls = np.empty((0, 2), int) if walls is None else walls

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the borders between columns [grid_width + 1] and between rows [grid_height + 1] of cells."""
        return np.arange(self.x_min, self.x_max + 2) - 0.5, np.arange(self.y_min, self.y_max + 2) - 0.5

    def __getitem__(self, name: str) -> int:
        if name not in self.BOUNDS:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.BOUNDS)

    def __len__(self) -> int:
        return len(self.BOUNDS)

    def __repr__(self) -> str:
        return f"GridInfo({dict(self)}, {len(self.walls)} walls)"


def compute_grid_bounds(positions: Sequence | np.ndarray) -> GridInfo:
    """Return the smallest rectangle of cells that holds all positions [N, 2] (one empty cell when N is 0)."""
    cells = np.asarray(positions, int).reshape(-1, 2)
    if len(cells) == 0:
        return GridInfo(0, 0, 0, 0)
    (x_min, y_min), (x_max, y_max) = cells.min(0).tolist(), cells.max(0).tolist()
    return GridInfo(x_min, x_max, y_min, y_max)


def compute_grid_info(routing_data: Entries) -> GridInfo:
    """Return the whole grid of the levels, with the cells that are walls in most of them."""
    data = RoutingData.from_entries(routing_data)
    known = [context for context in contexts(data) if context.get("grid_size")]
    if not known:
        return compute_grid_bounds(data.position)
    width, height = np.max([context["grid_size"] for context in known], 0).tolist()
    walls = np.concatenate([_walls(context) for context in known])
    counts = np.bincount(walls[:, 0] * height + walls[:, 1], minlength=width * height)
    cells = np.flatnonzero(counts * 2 > len(known))
    return GridInfo(0, width - 1, 0, height - 1, np.column_stack(np.divmod(cells, height)))


def contexts(data: RoutingData) -> list[dict]:
    return [episode.get("env_context") or {} for episode in data.episodes]


def _walls(context: dict) -> np.ndarray:
    """Return the walls [W, 2] of a level; older contexts do not list them, but rooms stand in a regular grid."""
    if "walls" in context:
        return np.asarray(context["walls"], int).reshape(-1, 2)
    (width, height), (columns, rows) = context["grid_size"], context.get("room_grid_shape") or (1, 1)
    x, y = np.mgrid[:width, :height]
    is_wall = (x % max((width - 1) // columns, 1) == 0) | (y % max((height - 1) // rows, 1) == 0)
    for door in context.get("doors", ()):
        is_wall[tuple(door["position"])] = False
    return np.argwhere(is_wall)


def select(routing_data: Entries, filter_fn: Filter) -> RoutingData:
    data = RoutingData.from_entries(routing_data)
    if filter_fn is None:
        return data
    if callable(filter_fn):
        filter_fn = np.fromiter((bool(filter_fn(entry)) for entry in data), bool, len(data))
    return data.select(filter_fn)


def visited_cells(data: RoutingData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct positions [C, 2], each step's place among them [T] and the number of visits [C]."""
    bounds = compute_grid_bounds(data.position)
    x, y = data.position.T.astype(int)
    visits = np.bincount((x - bounds.x_min) * bounds.grid_height + y - bounds.y_min)
    cells = np.flatnonzero(visits)
    place_of_cell = np.cumsum(visits > 0) - 1
    positions = np.column_stack(np.divmod(cells, bounds.grid_height)) + np.array([bounds.x_min, bounds.y_min])
    return positions, place_of_cell[(x - bounds.x_min) * bounds.grid_height + y - bounds.y_min], visits[cells]


def aggregate_routing_by_position(
    routing_data: Entries, filter_fn: Filter = None
) -> tuple[dict[tuple[int, int], dict[str, np.ndarray]], dict[tuple[int, int], float]]:
    """Return the mean routing weights and the mean LPC of every visited cell.

    Args:
        filter_fn: which steps count: a bool mask [T] (fast), or a function of an entry.

    Returns:
        `{(x, y): {"layer_0": weights [experts], ...}}` and `{(x, y): LPC}`.
    """
    data = select(routing_data, filter_fn)
    positions, place, visits = visited_cells(data)
    cells = [tuple(position) for position in positions.tolist()]
    layers = [mean_by(place, layer, len(cells)) for layer in data.weights]
    lpc = np.bincount(place, data.lpc, len(cells)) / visits
    routing = [dict(zip(data.layer_names, weights, strict=True)) for weights in zip(*layers, strict=True)]
    return dict(zip(cells, routing or [{} for _ in cells], strict=True)), dict(zip(cells, lpc.tolist(), strict=True))


def mean_by(place: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Return the means [count, K] of the rows of values [T, K] that share a place [T]; NaN where there is none."""
    sums = [np.bincount(place, values[:, column], count) for column in range(values.shape[1])]
    with np.errstate(invalid="ignore"):
        return np.column_stack(sums) / np.bincount(place, minlength=count)[:, None]


def get_available_analyses(routing_data: Entries) -> list[str]:
    """Return `overall` and every grouping that tells at least two groups of this data apart."""
    data = RoutingData.from_entries(routing_data)
    return ["overall", *(name for name in GROUPINGS if len(group_routing_data(data, name)) > 1)]


def group_routing_data(routing_data: Entries, group_by: str) -> dict[tuple | str, RoutingData]:
    """Return the steps of each group, in the order in which groups are shown; steps of no group are left out.

    Keys are (column, row) for `by_starting_room`, and what figures write beside the group for all other groupings.

    Raises:
        NothingToShow: there is no such grouping.
    """
    data = RoutingData.from_entries(routing_data)
    name = group_by if group_by.startswith("by_") else f"by_{group_by}"
    if name not in GROUPINGS:
        raise ValueError(f"unknown grouping {group_by!r}: expected one of {', '.join(GROUPINGS)}")
    codes, keys = GROUPINGS[name](data)
    present = np.bincount(codes + 1, minlength=len(keys) + 1)[1:] > 0
    return {key: data.select(codes == code) for code, key in enumerate(keys) if present[code]}


def room_labels_for_groups(sorted_keys: Sequence, room_grid_shape: Sequence[int]) -> list[str]:
    """Return a name (`Top-Left`) for each room (column, row) of a grid of (columns, rows) rooms."""
    columns, rows = room_grid_shape
    labels = []
    for column, row in sorted_keys:
        if max(columns, rows) > 3:
            labels.append(f"Column {column + 1}, Row {row + 1}")
        else:
            words = [word for word in (_ROOM_ROWS[rows][row], _ROOM_COLUMNS[columns][column]) if word]
            labels.append("Center" if words == ["Middle", "Center"] else "-".join(words) or "Room")
    return labels


def group_labels(routing_data: Entries, group_by: str) -> dict[tuple | str, str]:
    """Return what figures write beside each group of `group_routing_data`."""
    data = RoutingData.from_entries(routing_data)
    keys = list(group_routing_data(data, group_by))
    if not group_by.endswith("starting_room"):
        return {key: str(key) for key in keys}
    shapes = [context["room_grid_shape"] for context in contexts(data) if context.get("room_grid_shape")]
    shape = np.max(shapes, 0).tolist() if shapes else (np.max(keys, 0) + 1).tolist()
    return dict(zip(keys, room_labels_for_groups(keys, shape), strict=True))


def codes(data: RoutingData, key_of_episode: Sequence, order: Sequence) -> tuple[np.ndarray, list]:
    """Return for each step the place in `order` of its episode's key, -1 where it is not in it."""
    places = {key: place for place, key in enumerate(order)}
    return np.array([places.get(key, -1) for key in key_of_episode], int)[data.episode], list(order)


def _starting_rooms(data: RoutingData) -> tuple[np.ndarray, list]:
    rooms = [tuple(context.get("agent_start_room") or ()) for context in contexts(data)]  # empty: not told
    return codes(data, rooms, sorted(set(rooms) - {()}, key=lambda room: room[::-1]))


def _door_locations(data: RoutingData) -> tuple[np.ndarray, list]:
    """Where the mission's door (else the locked one, else the only one) is, seen from the starting room."""
    return codes(data, [_door_place(context) for context in contexts(data)], _DOOR_PLACES)


def _door_place(context: dict) -> str | None:
    every_door = context.get("doors") or []
    wanted = [entry for entry in context.get("goals") or [] if entry["type"] == "door"]
    locked = [door for door in every_door if door.get("state") == "locked"]
    candidates = wanted or locked or every_door
    room, shape = context.get("agent_start_room"), context.get("room_grid_shape")
    if not room or not shape or len({tuple(door["position"]) for door in candidates}) != 1:
        return None
    (width, height), (columns, rows), (column, row) = context["grid_size"], shape, room
    x, y = candidates[0]["position"]
    left, top = column * ((width - 1) // columns), row * ((height - 1) // rows)
    right, bottom = left + (width - 1) // columns, top + (height - 1) // rows
    if top < y < bottom and x in (left, right):
        return "right" if x == right else "left"
    if left < x < right and y in (top, bottom):
        return "below" if y == bottom else "above"
    return "in another room"


def carrying_phases(data: RoutingData) -> tuple[np.ndarray, list]:
    """Return the phase of each step [T] by what hands tell, and the names of phases."""
    first_pick_up = np.full(len(data.episodes), np.iinfo(np.int32).max)
    carrying = data.carrying > 0
    np.minimum.at(first_pick_up, data.episode[carrying], data.timestep[carrying])
    later = data.timestep > first_pick_up[data.episode]
    return np.where(carrying, 1, np.where(later, 2, 0)), list(_CARRYING_PHASES)


def _quadrants(data: RoutingData, position_of: Callable[[dict], Sequence[int] | None]) -> tuple[np.ndarray, list]:
    keys = []
    for context in contexts(data):
        position, size = position_of(context), context.get("grid_size")
        if position is None or size is None:
            keys.append(None)
        else:
            below, right = 2 * position[1] >= size[1] - 1, 2 * position[0] >= size[0] - 1
            keys.append(_QUADRANTS[2 * below + right])
    return codes(data, keys, _QUADRANTS)


def _agent_quadrants(data: RoutingData) -> tuple[np.ndarray, list]:
    return _quadrants(data, lambda context: context.get("agent_start_pos"))


def _target_quadrants(data: RoutingData) -> tuple[np.ndarray, list]:
    return _quadrants(data, lambda context: context["goals"][0]["position"] if context.get("goals") else None)


def mission_type(mission: str | None) -> str | None:
    """Return what kind of thing a mission asks for: `go to`, `pick up`, `open`, `put next to`, `several parts`."""
    if mission is None:
        return None
    if any(joint in mission for joint in (" then ", " after you ", " and ")):
        return "several parts"
    return next((kind for start, kind in _MISSION_TYPES.items() if mission.startswith(start)), "other")


def _mission_types(data: RoutingData) -> tuple[np.ndarray, list]:
    kinds = [mission_type(episode["mission"]) for episode in data.episodes]
    return codes(data, kinds, [*_MISSION_TYPES.values(), "several parts", "other"])


def _outcomes(data: RoutingData) -> tuple[np.ndarray, list]:
    outcome = {True: "success", False: "failure", None: None}
    return codes(data, [outcome[episode["success"]] for episode in data.episodes], ["success", "failure"])


GROUPINGS: dict[str, Callable[[RoutingData], tuple[np.ndarray, list]]] = {  # -> group of each step (or -1), group keys
    "by_starting_room": _starting_rooms,
    "by_door_location": _door_locations,
    "by_carrying_phase": carrying_phases,
    "by_agent_quadrant": _agent_quadrants,
    "by_target_quadrant": _target_quadrants,
    "by_mission_type": _mission_types,
    "by_success": _outcomes,
}
