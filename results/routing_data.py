"""Routing decisions in memory: which expert was used where, for every step of every evaluated episode.

    data = RoutingData.from_entries(entries)     # or routing_caches.read_routing_cache(path)["routing_data"]
    data[0]["layer_routing"]["layer_1"]          # one step, as a dict
    data.weights[1]                              # the same for all steps, as an array

A `RoutingData` is a sequence of entries (dicts, made on access):

    {"episode": 0, "timestep": 0, "position": [x, y], "layer_routing": {"layer_0": [w0, w1, w2], ...},
     "lpc": 0.0, "carrying": 0, "action": 2, "direction": 0, "target_in_view": 1, "env_context": {...}}

It stores them as columns, because a thousand long episodes are more than a million entries, and a million dicts are
more memory than a laptop has.
"""

import contextlib
import gc
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter

import numpy as np

NO_ACTION = -1  # of entries that do not tell their action
UNKNOWN = -1  # of entries that do not tell their direction, or whether the target is in view
MAX_EPISODES = 10_000_000  # an episode number beyond this is damage, not data
BLOCK = 16_384  # entries turned into dicts at once
_COLUMNS = ("episode", "timestep", "position", "lpc", "carrying", "action", "direction", "target_in_view")
_FIELDS = itemgetter(*_COLUMNS[:3], "layer_routing", *_COLUMNS[3:])


class RoutingData(Sequence):
    """Routing entries of T steps as columns; indexing, slicing and iterating give the entries.

    Attributes:
        episode: int32 [T], index into `episodes`.
        timestep: int32 [T], steps since the episode's start.
        position: int16 [T, 2], the agent's x and y before its action.
        weights: per layer, float32 [T, experts of that layer].
        lpc: float32 [T].
        carrying: int8 [T], 1 while something is carried.
        action: int8 [T], the action taken, -1 where unknown.
        episodes: per episode a dict with mission, seed, success, num_steps, bot_steps and env_context; what an older
            file does not tell is None. `events`, where the file tells them: [[timestep, what, [x, y]], ...], what the
            action of that step did to the object in that cell (pick up, drop, unlock, open, close, open box).
            `parts_done`, where the file tells it: of a mission of two parts, when each was done (`EvalVectorEnv`).
        direction: int8 [T], 0 right, 1 down, 2 left, 3 up; -1 where unknown.
        target_in_view: int8 [T], 1 where something that looks like a goal of the mission is seen; -1 where unknown.
        logits: float16 [T, actions]; no columns where unknown.
    """

    def __init__(
        self,
        episode,
        timestep,
        position,
        weights,
        lpc,
        carrying,
        action,
        episodes: list[dict],
        direction=None,
        target_in_view=None,
        logits=None,
    ):
        self.episode = np.asarray(episode, np.int32)
        self.timestep = np.asarray(timestep, np.int32)
        self.position = np.asarray(position, np.int16).reshape(-1, 2)
        self.weights = [np.asarray(layer, np.float32) for layer in weights]
        self.lpc = np.asarray(lpc, np.float32)
        self.carrying = np.asarray(carrying, np.int8)
        self.action = np.asarray(action, np.int8)
        self.episodes = list(episodes)
        unknown = np.full(len(self.episode), UNKNOWN, np.int8)
        self.direction = unknown if direction is None else np.asarray(direction, np.int8)
        self.target_in_view = unknown if target_in_view is None else np.asarray(target_in_view, np.int8)
        self.logits = np.empty((len(self.episode), 0), np.float16) if logits is None else np.asarray(logits, np.float16)

        columns = [self.timestep, self.position, *self.weights, self.lpc, self.carrying, self.action]
        columns += [self.direction, self.target_in_view, self.logits]
        if any(len(column) != len(self.episode) for column in columns):
            raise ValueError("the columns of routing data differ in length")
        if len(self.episode) and not 0 <= self.episode.min() <= self.episode.max() < len(self.episodes):
            raise ValueError(
                f"entries name the episodes {self.episode.min()} to {self.episode.max()},"
                f" but {len(self.episodes)} episodes are described"
            )

    @property
    def layer_names(self) -> list[str]:
        """`["layer_0", "layer_1", ...]`."""
        return [f"layer_{layer}" for layer in range(len(self.weights))]

    def __len__(self) -> int:
        return len(self.episode)

    def __getitem__(self, index):
        if isinstance(index, (int, np.integer)):
            place = int(index + len(self) if index < 0 else index)
            if not 0 <= place < len(self):
                raise IndexError(f"routing data has {len(self)} entries, there is no entry {index}")
            return self.entries(place, place + 1)[0]
        return self.select(index)

    def __iter__(self) -> Iterator[dict]:
        for start in range(0, len(self), BLOCK):
            yield from self.entries(start, start + BLOCK)

    def __repr__(self) -> str:
        experts = [layer.shape[1] for layer in self.weights]
        return f"RoutingData({len(self)} steps of {len(self.episodes)} episodes, experts per layer {experts})"

    def select(self, which) -> "RoutingData":
        """Return the entries that a bool mask [T], indices or a slice choose; `episodes` stays whole."""
        which = which if isinstance(which, slice) else np.asarray(which)
        return RoutingData(
            self.episode[which],
            self.timestep[which],
            self.position[which],
            [layer[which] for layer in self.weights],
            self.lpc[which],
            self.carrying[which],
            self.action[which],
            self.episodes,
            self.direction[which],
            self.target_in_view[which],
            self.logits[which],
        )

    def entries(self, start: int, stop: int, *, env_context: bool = True, decimals: int | None = None) -> list[dict]:
        """Return the entries `start` to `stop` (excluded) as dicts, with or without their (shared) `env_context`.

        `decimals` rounds the routing weights and the LPC.
        """
        rows = slice(start, stop)

        def numbers(column):
            return (column[rows] if decimals is None else column[rows].astype(np.float64).round(decimals)).tolist()

        names = self.layer_names
        layers = [numbers(layer) for layer in self.weights]
        episode = self.episode[rows].tolist()
        routing = [dict(zip(names, weights, strict=True)) for weights in zip(*layers, strict=True)] or [
            {} for _ in episode
        ]
        entries = [
            {
                "episode": episode_index,
                "timestep": timestep,
                "position": position,
                "layer_routing": layer_routing,
                "lpc": lpc,
                "carrying": carrying,
                "action": action,
            }
            for episode_index, timestep, position, layer_routing, lpc, carrying, action in zip(
                episode,
                self.timestep[rows].tolist(),
                self.position[rows].tolist(),
                routing,
                numbers(self.lpc),
                self.carrying[rows].tolist(),
                self.action[rows].tolist(),
                strict=True,
            )
        ]
        for name in ("direction", "target_in_view"):
            column = getattr(self, name)
            if (column != UNKNOWN).any():
                for entry, value in zip(entries, column[rows].tolist(), strict=True):
                    entry[name] = value
        if env_context:
            for entry, episode_index in zip(entries, episode, strict=True):
                entry["env_context"] = self.episodes[episode_index]["env_context"]
        return entries

    @classmethod
    def from_entries(cls, entries: Sequence[dict], episodes: list[dict] | None = None) -> "RoutingData":
        """Return routing data made of entries; a `RoutingData` is returned as it is.

        With `episodes` (the list that a cache holds), an entry's `episode` is an index into it. Without, every entry's
        own `env_context` counts: that is the older form, in which `episode`, `timestep`, `lpc`, `carrying` and `action`
        may be missing too (then: one episode per `env_context`, counted from 0, NaN, 0, -1).

        Raises:
            ValueError: an entry lacks `position` or `layer_routing`, or entries contradict each other.
        """
        if isinstance(entries, RoutingData):
            return entries
        columns = entry_columns(entries)
        if episodes is None:
            columns["episode"], episodes = _episodes_of_entries(entries, columns["episode"])
        return cls(**columns, episodes=episodes)

    @classmethod
    def from_columns(cls, blocks: list[dict], episodes: list[dict]) -> "RoutingData":
        """Return routing data made of consecutive blocks of columns, as `entry_columns` returns them."""
        if not blocks:
            return cls(**entry_columns([]), episodes=episodes)
        if len({tuple(layer.shape[1] for layer in block["weights"]) for block in blocks}) > 1:
            raise ValueError("entries differ in their number of layers or experts")
        columns = {name: np.concatenate([block[name] for block in blocks]) for name in _COLUMNS}
        layers = zip(*(block["weights"] for block in blocks), strict=True)
        return cls(weights=[np.concatenate(layer) for layer in layers], episodes=episodes, **columns)


@contextlib.contextmanager
def garbage_collector_paused():
    """Keep the cyclic collector away from millions of dicts that are in no cycle: it doubles the time of parsing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def entry_columns(entries: Sequence[dict], first: int = 0) -> dict:
    """Return the columns (`RoutingData`'s constructor arguments but `episodes`) of a list of entries.

    Args:
        first: the first one's place in the whole file, for error messages.

    Raises:
        ValueError: an entry lacks `position` or `layer_routing`, or has other layers or experts than the first.
    """
    if len(entries) == 0:
        return {"weights": []} | dict.fromkeys(_COLUMNS, np.empty(0))
    try:
        try:
            fields = list(zip(*map(_FIELDS, entries), strict=True))
        except KeyError:
            fields = list(zip(*map(_older_fields, entries, range(len(entries))), strict=True))
        episode, timestep, position, layer_routing, lpc, carrying, action, direction, target_in_view = fields
        return {
            "episode": np.array(episode, np.int32),
            "timestep": np.array(timestep, np.int32),
            "position": _cells(_matrix(position, np.float64, 2), first),
            "weights": _layer_weights(layer_routing),
            "lpc": np.array(lpc, np.float32),
            "carrying": np.array(carrying).astype(bool).astype(np.int8),
            "action": np.array(action, np.int8),
            "direction": np.array(direction, np.int8),
            "target_in_view": np.array(target_in_view, np.int8),
        }
    except KeyError as error:
        raise ValueError(f"an entry lacks {error}") from error
    except (TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f"an entry holds something unexpected: {error}") from error


def _older_fields(entry: dict, timestep: int) -> tuple:
    return (
        entry.get("episode", 0),
        entry.get("timestep", timestep),
        entry["position"],
        entry["layer_routing"],
        entry.get("lpc", np.nan),
        entry.get("carrying", 0),
        entry.get("action", NO_ACTION),
        entry.get("direction", UNKNOWN),
        entry.get("target_in_view", UNKNOWN),
    )


def _matrix(rows: Sequence[Sequence[float]], dtype, width: int) -> np.ndarray:
    """Return equally long rows of numbers as an array [len(rows), width]."""
    numbers = np.fromiter(chain.from_iterable(rows), dtype)
    if len(numbers) != len(rows) * width or not all(len(row) == width for row in rows):
        raise ValueError(f"expected {width} numbers in each entry")
    return numbers.reshape(-1, width)


def _cells(numbers: np.ndarray, first: int) -> np.ndarray:
    """Return positions [T, 2] as int16.

    Raises:
        ValueError: they are no small whole numbers.
    """
    with np.errstate(invalid="ignore"):
        whole = numbers.astype(np.int16)
    bad = np.flatnonzero((whole != numbers).any(axis=1))
    if len(bad):
        raise ValueError(f"entry {first + bad[0]}: its position {numbers[bad[0]].tolist()} is no cell of a grid")
    return whole


def _layer_weights(layer_routing: Sequence[dict]) -> list[np.ndarray]:
    names = sorted(layer_routing[0], key=lambda name: int(name.removeprefix("layer_")))
    if names != [f"layer_{layer}" for layer in range(len(names))]:
        raise ValueError(f"expected the layers layer_0, layer_1, ...; found {', '.join(names)}")
    if any(len(routing) != len(names) for routing in layer_routing):
        raise ValueError("entries differ in their number of layers")
    return [_matrix([*map(itemgetter(name), layer_routing)], np.float32, len(layer_routing[0][name])) for name in names]


def _episodes_of_entries(entries: Sequence[dict], episode: np.ndarray) -> tuple[np.ndarray, list[dict]]:
    """Return the episode column and the episodes of entries that carry their `env_context` themselves.

    Episode numbers are kept, unless one number stands for several contexts (as in lists put together from several
    caches): then episodes are counted anew.
    """
    if len(episode) and not 0 <= episode.min() <= episode.max() < MAX_EPISODES:
        raise ValueError(f"episode numbers lie between {episode.min()} and {episode.max()}")
    contexts_of: dict[int, list] = {}  # episode number -> [(context, its place in `found`), ...]
    found = []  # (episode number, context), in order of appearance
    places = np.empty(len(episode), np.int32)
    for row, (entry, number) in enumerate(zip(entries, episode.tolist(), strict=True)):
        context = entry.get("env_context")
        known = contexts_of.setdefault(number, [])
        place = next((place for other, place in known if other is context or other == context), None)
        if place is None:
            place = len(found)
            found.append((number, context))
            known.append((context, place))
        places[row] = place
    if len(found) == len(contexts_of):
        numbers = np.array([number for number, _ in found], np.int32)
        places = numbers[places] if len(found) else places
    else:
        numbers = np.arange(len(found))
    episodes = [unknown_episode() for _ in range(int(numbers.max(initial=-1)) + 1)]
    for number, (_, context) in zip(numbers.tolist(), found, strict=True):
        episodes[number]["env_context"] = {} if context is None else context
    for number, num_steps in enumerate(np.bincount(places, minlength=len(episodes)).tolist()):
        episodes[number]["num_steps"] = num_steps
    return places, episodes


def unknown_episode() -> dict:
    """Return an episode of which nothing is told."""
    return {
        "mission": None,
        "seed": None,
        "success": None,
        "num_steps": 0,
        "bot_steps": None,
        "env_context": {},
    }
