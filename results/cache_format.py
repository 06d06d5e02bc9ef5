"""What a routing cache may hold: one description of its header, its episodes and its steps, checked on reading.

Older evaluators wrote the same facts in other forms; they are read into today's (`read_episodes`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from basics.config import Key, shown
from basics.errors import UserError
from results.routing_data import RoutingData, unknown_episode

LARGEST_GRID = 1000  # cells along one side
MOST_OFF = 0.02  # how far the weights of a layer may add up to something else than 1: they are rounded to 5 decimals
NUM_ACTIONS = 7
EPISODE_TYPES = {  # of an episode's entries; what an older file does not tell is None
    "mission": "str or null",
    "seed": "int >= 0 or null",
    "success": "bool or null",
    "num_steps": "int >= 0 or null",
    "bot_steps": "int >= 0 or null",
}
OBJECTS = {"goals": "goal", "doors": "door", "keys": "key", "balls": "ball", "boxes": "box"}  # of an env_context
PAIRS = ("agent_start_pos", "agent_start_room", "room_grid_shape")


def check_header(cache: Mapping[str, Any]) -> None:
    """Raise a ValueError unless the header of a cache has the form of one."""
    metrics = cache.get("metrics")
    if metrics is not None and not isinstance(metrics, dict):
        raise ValueError(f"metrics is {shown(metrics)}, expected names and numbers")
    for name, value in (metrics or {}).items():
        _check(f"metrics, {name}", "float or null", None if value != value else value)  # NaN: there is none
    _check("checkpoint_path", "str or null", cache.get("checkpoint_path"))
    _check("expert_hidden_sizes", "lists of int in [0, 4096] or null", cache.get("expert_hidden_sizes"))
    _check("num_episodes", "int >= 0 or null", cache.get("num_episodes"))


def read_episodes(episodes: Any) -> list[dict]:
    """Return a cache's episodes in today's form, every one with all of its entries.

    Older evaluators wrote a list of the contexts themselves, and objects as lists: [x, y, color], and of doors
    [x, y, color, is_open, is_locked].

    Raises:
        ValueError: it names the episode and what is wrong with it.
    """
    if not isinstance(episodes, list):
        raise ValueError(f"its episodes are {shown(episodes)}, expected a list")
    return [_read_episode(f"episode {place}", episode) for place, episode in enumerate(episodes)]


def _read_episode(name: str, episode: Any) -> dict:
    if not isinstance(episode, dict):
        raise ValueError(f"{name} is {shown(episode)}, expected its mission, seed, ... and env_context")
    if "env_context" not in episode:
        if not {"grid_size", "agent_start_pos"} & episode.keys():
            raise ValueError(f"{name} has no env_context")
        episode = {"env_context": episode}
    read = unknown_episode() | episode
    if type(read["success"]) is int and read["success"] in (0, 1):
        read["success"] = bool(read["success"])
    for key, kind in EPISODE_TYPES.items():
        _check(f"{name}: {key}", kind, read[key])
    read["env_context"] = _read_context(name, read["env_context"] or {})
    events = read.get("events") or []
    parts_done = read.get("parts_done") or [None, None]
    if not (isinstance(parts_done, list) and len(parts_done) == 2 and all(map(_is_time, parts_done))):
        raise ValueError(f"{name}: its parts_done are {shown(parts_done)}, expected two timesteps or null")
    if not isinstance(events, list) or not all(map(_is_event, events)):
        raise ValueError(f"{name}: its events are {shown(events)}, expected [timestep, what, [x, y]] each")
    return read


def _read_context(name: str, context: Any) -> dict:
    if not isinstance(context, dict):
        raise ValueError(f"{name}: its env_context is {shown(context)}")
    context = dict(context)
    size = context.get("grid_size")
    if size is not None and not (_is_pair(size) and min(size) >= 1 and max(size) <= LARGEST_GRID):
        raise ValueError(f"{name}: grid_size is {shown(size)}, expected two whole numbers from 1 to {LARGEST_GRID}")
    for key in PAIRS:
        pair, lowest = context.get(key), 1 if key == "room_grid_shape" else 0
        if pair and not (_is_pair(pair) and lowest <= min(pair) and max(pair) <= LARGEST_GRID):
            raise ValueError(f"{name}: {key} is {shown(pair)}, expected two whole numbers >= {lowest}")
    for key, kind in OBJECTS.items():
        objects = context.get(key)
        if objects is not None:
            if not isinstance(objects, list):
                raise ValueError(f"{name}: {key} is {shown(objects)}, expected a list")
            context[key] = [_read_object(f"{name}: {key}", kind, each) for each in objects]
    places = [each["position"] for key in OBJECTS for each in context.get(key) or ()]
    _check_places(f"{name}: its objects", places, size)
    if "walls" in context:
        _check_places(f"{name}: walls", context["walls"], size)
    return context


def _read_object(name: str, kind: str, each: Any) -> dict:
    if isinstance(each, list) and len(each) >= 3 and isinstance(each[2], str):  # an older evaluator's
        is_open, is_locked = (*each[3:5], False, False)[:2]
        state = {"state": "open" if is_open else "locked" if is_locked else "closed"} if kind == "door" else {}
        each = {"type": kind, "color": each[2], "position": each[:2]} | state
    if not isinstance(each, dict) or not _is_pair(each.get("position")) or not isinstance(each.get("type"), str):
        raise ValueError(f"{name} holds {shown(each)}, expected a type and a position [x, y]")
    return each


def _check_places(name: str, places: Any, grid_size: Sequence[int] | None) -> None:
    if not isinstance(places, list) or not all(map(_is_pair, places)):
        raise ValueError(f"{name} are {shown(places)}, expected positions [x, y]")
    if places:
        cells = np.array(places, object)
        outside = (cells < 0) | (cells >= np.array(grid_size or (LARGEST_GRID, LARGEST_GRID)))
        if outside.any():
            place = places[int(np.flatnonzero(outside.any(axis=1))[0])]
            raise ValueError(f"{name}: {shown(place)} lies outside of the grid {shown(grid_size)}")


def _is_time(value: Any) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _is_event(value: Any) -> bool:
    is_triple = isinstance(value, list | tuple) and len(value) == 3
    return is_triple and type(value[0]) is int and isinstance(value[1], str) and _is_pair(value[2])


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(number) is int for number in value)


def _check(name: str, kind: str, value: Any) -> None:
    try:
        Key(name, None, kind, "").check(value)
    except UserError as error:
        raise ValueError(str(error).removesuffix(".")) from None


def check_steps(data: RoutingData, expert_hidden_sizes: Sequence | None = None) -> None:
    """Raise a ValueError unless the steps can be those of an evaluation: inside of the grid, in order, weights that are
    shares. It names the first entry that cannot."""
    if expert_hidden_sizes is not None:
        layers = expert_hidden_sizes if isinstance(expert_hidden_sizes[0], list) else [expert_hidden_sizes]
        widths = [layer.shape[1] for layer in data.weights]
        if data.weights and widths != [len(layer) for layer in layers]:
            raise ValueError(f"its entries have {widths} experts, but expert_hidden_sizes are {shown(layers)}")
    sizes = [episode["env_context"].get("grid_size") or (LARGEST_GRID, LARGEST_GRID) for episode in data.episodes]
    grid = np.array(sizes, np.int64).reshape(-1, 2)[data.episode]
    same_episode = np.diff(data.episode) == 0
    out_of_order = np.diff(data.episode) < 0
    out_of_order |= same_episode & (np.diff(data.timestep) <= 0)
    problems = {
        "position": ("lies outside of the grid", ((data.position < 0) | (data.position >= grid)).any(axis=1)),
        "timestep": ("is not in order", np.concatenate([data.timestep[:1] < 0, out_of_order])),
        "lpc": ("is no price", (data.lpc < 0) | np.isinf(data.lpc)),
        "action": ("is no action", (data.action < -1) | (data.action >= NUM_ACTIONS)),
        "direction": ("is no direction", (data.direction < -1) | (data.direction > 3)),
        "target_in_view": ("is neither 0 nor 1", (data.target_in_view < -1) | (data.target_in_view > 1)),
    }
    for name, layer in zip(data.layer_names, data.weights, strict=True):
        sums = layer.sum(axis=1, dtype=np.float64)
        bad = ~((layer >= 0).all(axis=1) & (np.abs(sums - 1) <= MOST_OFF))  # NaN is neither
        problems[name] = ("are no shares that add up to 1", bad)
    for name, (problem, bad) in problems.items():
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            entry = data[row]
            value = entry["layer_routing"][name] if name in data.layer_names else entry[name]
            raise ValueError(f"entry {row}: its {name} {shown(value)} {problem}")
