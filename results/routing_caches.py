"""Routing caches: every routing decision of an evaluation, as JSON.

Version 2 added `direction` and `target_in_view` to the entries, and to the episodes `events` and `logits` (base64 of
float16 [num_steps, actions], little-endian), and later `parts_done` to those of missions of two parts. Older files,
which have no `version`, are read as before.
"""

import base64
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import orjson

from basics.files import ArtifactError, atomic_write, reading_problem, require_regular_file, timestamp
from results.cache_format import check_header, check_steps, read_episodes
from results.routing_data import BLOCK, RoutingData, entry_columns, garbage_collector_paused

VERSION = 2
_ROUTING_DECIMALS = 5
_ENTRIES_BEGIN = b'"routing_data":[\n'  # these two lines surround the entries, one a line, of a cache we wrote
_ENTRIES_END = b"]}\n"
_READ_BYTES = 1 << 22


def write_routing_cache(path: os.PathLike | str, header: dict, routing_data: RoutingData) -> None:
    """Write a routing cache.

    Args:
        header: what stands before the episodes: checkpoint_path, expert_hidden_sizes, metrics, ...; `num_episodes` and
            `evaluated_at` are added where missing.
        routing_data: its `episodes` and its entries, weights and LPC rounded to 5 decimals.

    Raises:
        ArtifactError: the file cannot be written; what was there before stays.
    """
    header = {"num_episodes": len(routing_data.episodes), "evaluated_at": timestamp()} | header
    header = {"checkpoint_path": header.pop("checkpoint_path", None), "version": VERSION} | header  # first the owner
    with atomic_write(path, "wb") as file, garbage_collector_paused():
        file.write(b"{\n")
        for name, value in header.items():
            file.write(_json(str(name)) + b":" + _json(value) + b",\n")
        episodes = _with_logits(routing_data)
        file.write(b'"episodes":[\n' + b",\n".join(map(_json, episodes)) + b"\n],\n" + _ENTRIES_BEGIN)
        for start in range(0, len(routing_data), BLOCK):
            entries = routing_data.entries(start, start + BLOCK, env_context=False, decimals=_ROUTING_DECIMALS)
            lines = _json(entries)[1:-1].replace(b'},{"episode":', b'},\n{"episode":')
            file.write((b",\n" if start else b"") + lines)
        file.write((b"\n" if len(routing_data) else b"") + _ENTRIES_END)


def read_routing_cache(path: os.PathLike | str) -> dict:
    """Read a routing cache: its header, `episodes` and, under `routing_data`, a `RoutingData`.

    Caches laid out otherwise are read too, also those whose entries hold their `env_context` and that have no
    `episodes`; only they need memory for all their entries as dicts at once. Metrics that are null become NaN.

    Raises:
        ArtifactError: no such file, damaged, or not a routing cache.
    """
    try:
        require_regular_file(path)
        with garbage_collector_paused():
            cache = _read_cache_by_lines(path)
            if cache is None:
                cache = _read_cache_whole(path)
            _take_logits(cache)
            check_header(cache)
            check_steps(cache["routing_data"], cache.get("expert_hidden_sizes"))
    except OSError as error:
        raise ArtifactError(path, reading_problem(error)) from error
    except RecursionError:
        raise ArtifactError(
            path, "damaged routing cache: it is nested too deeply; evaluate again with --force"
        ) from None
    except ValueError as error:  # of the JSON parsers, of RoutingData, and of cache_format
        raise ArtifactError(path, f"damaged routing cache: {error}; evaluate again with --force") from error
    metrics = cache.get("metrics") or {}
    cache["metrics"] = {name: math.nan if value is None else value for name, value in metrics.items()}
    return cache


def routing_cache_owner(path: os.PathLike | str) -> str | None:
    """Return the `checkpoint_path` that the cache at `path` names in its first lines, None when there is none."""
    match = re.search(rb'"checkpoint_path"\s*:\s*("(?:[^"\\]|\\.)*")', _first_lines(path))
    try:
        return None if match is None else orjson.loads(match[1])
    except ValueError:
        return None


def routing_cache_episodes(path: os.PathLike | str) -> int:
    """Return of how many episodes the cache at `path` is, as its first lines say; 0 when there is none."""
    match = re.search(rb'"num_episodes"\s*:\s*(\d{1,18})\b', _first_lines(path))
    return 0 if match is None else int(match[1])


def _first_lines(path: os.PathLike | str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ArtifactError(path, reading_problem(error)) from error


def _with_logits(data: RoutingData) -> list[dict]:
    """Return the episodes, each with its steps' logits as text."""
    if not data.logits.shape[1]:
        return data.episodes
    order = np.argsort(data.episode, kind="stable")
    ends = np.cumsum(np.bincount(data.episode, minlength=len(data.episodes)))
    parts = np.split(data.logits[order].astype("<f2"), ends[:-1])
    texts = (base64.b64encode(part.tobytes()).decode() for part in parts)
    return [episode | {"logits": text} for episode, text in zip(data.episodes, texts, strict=True)]


def _take_logits(cache: dict) -> dict:
    """Move the logits of a cache's episodes into its routing data.

    Raises:
        ValueError: they are damaged.
    """
    data = cache["routing_data"]
    texts = [episode.pop("logits", None) for episode in data.episodes]
    if None in texts or not texts:
        return cache
    logits = np.frombuffer(b"".join(base64.b64decode(text, validate=True) for text in texts), "<f2")
    if len(data) == 0 or len(logits) % len(data):
        raise ValueError("the number of logits does not fit the number of steps")
    order = np.argsort(data.episode, kind="stable")
    data.logits = np.empty((len(data), len(logits) // len(data)), np.float16)
    data.logits[order] = logits.reshape(len(data), -1)
    return cache


def _json(value) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _read_cache_by_lines(path: os.PathLike | str) -> dict | None:
    """Read a cache that has one entry a line, block by block; None when this one is laid out otherwise.

    Raises:
        ValueError: it is laid out so, but damaged.
    """
    with open(path, "rb") as file:
        header = []
        for line in file:
            if line == _ENTRIES_BEGIN:
                break
            header.append(line)
            if len(header) == 1 and line != b"{\n":
                return None
        else:
            return None
        if file.peek(2)[:2] not in (b'{"', b"]}", b""):
            return None
        cache = orjson.loads(b"".join(header) + b'"routing_data":[]}')
        episodes = cache["episodes"] = read_episodes(cache.get("episodes"))
        blocks, complete, count = [], False, 0
        while not complete:
            lines = file.readlines(_READ_BYTES)
            if not lines:
                raise ValueError("it ends in the middle")
            complete = lines[-1] == _ENTRIES_END
            block = b"".join(lines).removesuffix(_ENTRIES_END) if complete else b"".join(lines)
            entries = orjson.loads(b"[" + block.rstrip().removesuffix(b",") + b"]")
            if entries:
                blocks.append(entry_columns(entries, count))
                count += len(entries)
    cache["routing_data"] = RoutingData.from_columns(blocks, episodes)
    return cache


def _read_cache_whole(path: os.PathLike | str) -> dict:
    content = Path(path).read_bytes()
    try:
        cache = orjson.loads(content)
    except ValueError:
        cache = json.loads(content)  # which also knows NaN
    if not isinstance(cache, dict) or not isinstance(cache.get("routing_data"), list):
        raise ValueError("there is no list of routing_data in it")
    episodes = cache.get("episodes")
    data = RoutingData.from_entries(cache["routing_data"], None if episodes is None else read_episodes(episodes))
    if episodes is None:
        data.episodes = read_episodes(data.episodes)  # their contexts stood in the entries
    cache["routing_data"], cache["episodes"] = data, data.episodes
    for episode, num_steps in zip(data.episodes, np.bincount(data.episode, minlength=len(data.episodes)), strict=True):
        episode["num_steps"] = episode["num_steps"] or int(num_steps)
    return cache
