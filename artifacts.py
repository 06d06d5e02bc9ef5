"""Where everything lies and how it is written: checkpoints, results, routing caches, training curves, plots.

The only module that knows paths and file formats (see the design, section 6). Every write is atomic: a killed process
leaves the old file or the new one. Whatever is damaged is reported as an `ArtifactError` with its path and the reason.

It stays light: PyTorch and pandas are imported by the functions that need them, so that deciding what is left to do
takes no time.
"""

import contextlib
import csv
import datetime
import errno
import fnmatch
import io
import json
import math
import os
import pickle
import re
import secrets
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import orjson
from filelock import FileLock

from cli import UserError
from routing_data import BLOCK, RoutingData, entry_columns, garbage_collector_paused

if TYPE_CHECKING:
    import pandas as pd

CHECKPOINT_ROOTS = ("checkpoints", "modal_checkpoints")
RESULTS_PATH = "evaluation_results.csv"
CACHE_DIR = "evaluation_cache"
PLOTS_DIR = "plots"
METRICS_FILE = "metrics.csv"  # beside a run's checkpoints

RESULT_COLUMNS = [  # every results CSV starts with these; further columns follow
    "checkpoint_path",
    "task_id",
    "trial",
    "num_episodes",
    "success_rate",
    "path_ratio",
    "mean_lpc",
    "bot_plan_failures",
    "num_updates",
    "unroll_len",
    "lr",
    "lpc_alpha",
    "expert_hidden_sizes",
    "intermediate_dim",
    "router_hidden_size",
    "max_steps",
    "lang_dim",
    "evaluated_at",
]
METRICS_COLUMNS = [  # of metrics.csv beside a checkpoint
    "update",
    "env_steps",
    "loss",
    "ce",
    "penalty",
    "accuracy",
    "success_rate",
    "path_ratio",
    "mean_lpc",
    "bot_plan_failures",
    "lr",
    "steps_per_second",
]
_INTEGER_COLUMNS = ("trial", "seed", "update", "num_episodes", "bot_plan_failures")
_NUMBER_COLUMNS = ("success_rate", "path_ratio", "mean_lpc")

_ZIP = b"PK"
_DAMAGED_CHECKPOINT = "damaged or cut short: copy it again, or train again"
_ROUTING_FILE = "routing_data.json"
_ROUTING_DECIMALS = 5
_ENTRIES_BEGIN = b'"routing_data":[\n'  # these two lines surround the entries, one a line, of a cache we wrote
_ENTRIES_END = b"]}\n"
_READ_BYTES = 1 << 22
_ABANDONED_AFTER = 60.0  # seconds without a write until a temporary file is what a killed process left behind


def cache_folder() -> Path:
    """Return the user's cache folder for this program: $RL_MOP_CACHE, or rl-mop in $XDG_CACHE_HOME or ~/.cache."""
    if "RL_MOP_CACHE" in os.environ:
        return Path(os.environ["RL_MOP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rl-mop"


class ArtifactError(UserError):
    """A file that cannot be read or written; the message names its path and the reason."""

    def __init__(self, path: os.PathLike | str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self):  # worker processes send it home
        return ArtifactError, (self.path, self.reason)


# ---------------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def atomic_write(path: os.PathLike | str, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` for writing; it becomes `path` when the block ends without an exception.

    Args:
        path: the target; missing folders are made.
        mode: "w" (UTF-8 text, newlines as given) or "wb".

    Raises:
        ArtifactError: the file cannot be written (full disk, no permission); what was there before stays.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        try:
            with open(temporary, mode.replace("w", "x"), **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(path, f"cannot be written: {error.strerror or error}") from error


def _remove_abandoned(target: Path) -> None:
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER:
                leftover.unlink()


def _read_bytes(path: os.PathLike | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(path, _reading_problem(error)) from error


def _reading_problem(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file"
    return f"cannot be read: {error.strerror or error}"


# ------------------------------------------------------------------------------------------------------ checkpoints


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint file and what its place says about it.

    Attributes:
        seed: None where training was given no seed of its own folder.
        update: None for `checkpoint_final.pt`.
    """

    path: Path
    task_id: str
    trial: int
    seed: int | None = None
    update: int | None = None

    def __str__(self) -> str:
        seed = "" if self.seed is None else f" seed {self.seed}"
        update = "" if self.update is None else f" update {self.update}"
        return f"{self.task_id} trial {self.trial}{seed}{update}"


def _run_folder(task_id: str, trial: int, seed: int | None) -> Path:
    return Path(task_id, f"trial_{trial}", *([] if seed is None else [f"seed_{seed}"]))


def run_dir(checkpoint_dir: os.PathLike | str, task_id: str, trial: int, seed: int | None = None) -> Path:
    """Return the folder of one training run."""
    return Path(checkpoint_dir) / _run_folder(task_id, trial, seed)


def checkpoint_path(
    checkpoint_dir: os.PathLike | str, task_id: str, trial: int, seed: int | None = None, update: int | None = None
) -> Path:
    """Return where the checkpoint of an update (None: the final one) of a run lies."""
    name = "final" if update is None else update
    return run_dir(checkpoint_dir, task_id, trial, seed) / f"checkpoint_{name}.pt"


_CHECKPOINT_PATTERN = re.compile(
    r"(?:^|.*/)(?P<task_id>[^/]+)/trial_(?P<trial>\d+)/(?:seed_(?P<seed>\d+)/)?checkpoint_(?P<update>final|\d+)\.pt"
)


def checkpoint_ref(path: os.PathLike | str) -> CheckpointRef | None:
    """Return what a checkpoint's path says about it, None when it is not laid out as `checkpoint_path` does."""
    match = _CHECKPOINT_PATTERN.fullmatch(Path(path).as_posix())
    if match is None:
        return None
    seed, update = match["seed"], match["update"]
    return CheckpointRef(
        path=Path(path),
        task_id=match["task_id"],
        trial=int(match["trial"]),
        seed=None if seed is None else int(seed),
        update=None if update == "final" else int(update),
    )


def find_checkpoints(
    roots: Iterable[os.PathLike | str] | os.PathLike | str = CHECKPOINT_ROOTS,
    task: str | None = None,
    trial: int | None = None,
    seed: int | None = None,
    update: int | None = None,
    final_only: bool = False,
) -> list[CheckpointRef]:
    """Return the checkpoints under the given folders, by root, task, trial, seed and update (the final one last).

    Args:
        roots: checkpoint folders; those that do not exist are passed over.
        task: a task_id, or a pattern such as `BabyAI-GoTo*`.
        trial, seed, update: only these, where given.
        final_only: leave out numbered checkpoints.
    """
    found = []
    for place, root in enumerate([roots] if isinstance(roots, (str, os.PathLike)) else roots):
        for folder in ("*/trial_*/checkpoint_*.pt", "*/trial_*/seed_*/checkpoint_*.pt"):
            found += [(place, ref) for ref in map(checkpoint_ref, Path(root).glob(folder)) if ref is not None]
    chosen = [
        (place, ref)
        for place, ref in found
        if (task is None or fnmatch.fnmatchcase(ref.task_id, task))
        and (trial is None or ref.trial == trial)
        and (seed is None or ref.seed == seed)
        and (update is None or ref.update == update)
        and not (final_only and ref.update is not None)
    ]

    def order(item):
        place, ref = item
        seed = -1 if ref.seed is None else ref.seed
        return place, ref.task_id, ref.trial, seed, math.inf if ref.update is None else ref.update

    return [ref for _, ref in sorted(chosen, key=order)]


def save_checkpoint(path: os.PathLike | str, payload: dict) -> None:
    """Write a checkpoint: tensors, plain values, and dicts and lists of them.

    Raises:
        ArtifactError: the file cannot be written; what was there before stays.
    """
    import torch

    with atomic_write(path, "wb") as file:
        torch.save(payload, file)


def load_checkpoint(
    path: os.PathLike | str, required: Iterable[str] = ("policy_state_dict", "config", "lang_proj_state_dict")
) -> dict:
    """Read a checkpoint onto the CPU. Only tensors and plain values are read; nothing in the file is ever executed.

    Raises:
        ArtifactError: no such file, damaged, not a checkpoint, or one that holds code; the message says which.
    """
    import torch

    content = _read_bytes(path)
    if content.startswith(_ZIP) and not _is_whole_zip(content):
        raise ArtifactError(path, _DAMAGED_CHECKPOINT)
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickle protocols; the error says all there is to say
            checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail with any exception there is
        raise ArtifactError(path, _checkpoint_problem(content, error)) from error
    if not isinstance(checkpoint, dict):
        raise ArtifactError(path, f"not a checkpoint of this project: it holds a {type(checkpoint).__name__}")
    missing = [key for key in required if key not in checkpoint]
    if missing:
        raise ArtifactError(path, f"not a checkpoint of this project: it lacks {', '.join(missing)}")
    if "config" in checkpoint and not isinstance(checkpoint["config"], dict):
        raise ArtifactError(path, "not a checkpoint of this project: its config is not a dict")
    return checkpoint


def _is_whole_zip(content: bytes) -> bool:
    """Tell whether a zip archive (a checkpoint is one) agrees with its own checksums; PyTorch does not look at them."""
    try:
        return zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error, zlib.error):
        return False


def _checkpoint_problem(content: bytes, error: Exception) -> str:
    refused = re.search(r"nsupported (?:global: )?GLOBAL ([\w.]+)", str(error))
    if refused:
        return f"refused, and not executed: it holds the Python object {refused[1]}; only tensors and values are read"
    if not content:
        return "the file is empty"
    if content.startswith(_ZIP):
        return _DAMAGED_CHECKPOINT
    if content.startswith(b"\x80") and isinstance(error, pickle.UnpicklingError):
        return "refused, and not executed: a Python pickle, not a PyTorch checkpoint"
    return "not a PyTorch checkpoint"


# -------------------------------------------------------------------------------------------------- training curves


def write_metrics(path: os.PathLike | str, rows: Iterable[dict[str, float]]) -> None:
    """Write `metrics.csv`, one row per log interval; a number that does not exist (nan) is an empty cell."""
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, METRICS_COLUMNS)
        writer.writeheader()
        writer.writerows({name: "" if value != value else value for name, value in row.items()} for row in rows)


def read_metrics(path: os.PathLike | str) -> "pd.DataFrame":
    """Read the `metrics.csv` that training writes beside its checkpoint (columns: `METRICS_COLUMNS`).

    Raises:
        ArtifactError: no such file, or damaged.
    """
    columns, rows = _parse_csv(path, _read_bytes(path))
    missing = [name for name in METRICS_COLUMNS if name not in columns]
    if missing:
        raise ArtifactError(path, f"damaged: the columns {', '.join(missing)} are missing")
    return _frame(path, columns, rows, numeric=METRICS_COLUMNS)


# ---------------------------------------------------------------------------------------------------------- results


def read_result_rows(path: os.PathLike | str) -> list[dict[str, str]]:
    """Return the rows of a results CSV as text, without pandas; no rows where there is no file yet.

    Raises:
        ArtifactError: damaged, or not a results CSV.
    """
    return _read_results_table(path)[1]


def read_results(path: os.PathLike | str = RESULTS_PATH) -> "pd.DataFrame":
    """Read a results CSV, one row per checkpoint (`trial`, `seed` and `update` are nullable integers).

    Raises:
        ArtifactError: no such file, damaged, or not a results CSV.
    """
    if not Path(path).exists():
        raise ArtifactError(path, "no such file; batch_eval.py writes it")
    columns, rows = _read_results_table(path)
    frame = _frame(path, columns, rows, numeric=_NUMBER_COLUMNS + _INTEGER_COLUMNS)
    frame = frame.reindex(columns=list(dict.fromkeys([*RESULT_COLUMNS, *columns])))
    integers = [name for name in _INTEGER_COLUMNS if name in frame]
    for name in integers:
        if (frame[name].dropna() % 1 != 0).any():
            raise ArtifactError(path, f"damaged: the column {name} holds something other than whole numbers")
    return frame.astype(dict.fromkeys(integers, "Int64"))


def lesion_results_path(results_path: os.PathLike | str) -> Path:
    """Return where the results of lesioned policies go: apart from the normal ones, one row per lesion."""
    path = Path(results_path)
    return path.with_name(f"{path.stem}_lesions{path.suffix}")


def upsert_result(path: os.PathLike | str, row: dict) -> None:
    """Write one row into a results CSV; it replaces the row of the same checkpoint (and lesion, where there is one).

    Other rows keep their text, and their further columns, as they are. Processes that write at the same time wait for
    each other.

    Raises:
        ArtifactError: the file is damaged (it is left as it is), or cannot be written.
    """
    with _locked(path):
        columns, rows = _read_results_table(path)
        cells = {name: _cell(value) for name, value in row.items()}
        columns = list(dict.fromkeys([*RESULT_COLUMNS, *columns, *cells]))
        key = result_key(cells)
        places = [place for place, other in enumerate(rows) if result_key(other) == key]
        if places:
            rows[places[0]] = cells
            rows = [other for place, other in enumerate(rows) if place not in places[1:]]
        else:
            rows.append(cells)
        with atomic_write(path) as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


@contextlib.contextmanager
def _locked(path: os.PathLike | str) -> Iterator[None]:
    """Keep other processes from writing `path` meanwhile; a killed process holds no lock."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{os.fspath(path)}.lock").acquire()
    except OSError as error:
        raise ArtifactError(path, f"cannot be written: {error.strerror or error}") from error
    with lock:
        yield


def result_key(row: dict[str, str]) -> tuple[str, str]:
    """Return what makes a row of a results CSV the only one of its kind: its checkpoint, and its lesion."""
    return os.path.abspath(row["checkpoint_path"]), row.get("lesion", "")


def _cell(value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value)
    return str(value)


def _read_results_table(path: os.PathLike | str) -> tuple[list[str], list[dict[str, str]]]:
    if not Path(path).exists():
        return [], []
    columns, rows = _parse_csv(path, _read_bytes(path))
    if columns and "checkpoint_path" not in columns:
        raise ArtifactError(path, "not a results CSV: it has no column checkpoint_path; move it away or repair it")
    return columns, rows


def _parse_csv(path: os.PathLike | str, content: bytes) -> tuple[list[str], list[dict[str, str]]]:
    """Return header and rows of a CSV as text, blank lines left out."""
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        table = [(lines.line_num, cells) for cells in lines if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(path, f"damaged: {error}; repair it or move it away") from error
    if not table:
        return [], []
    header = table[0][1]
    if len(set(header)) < len(header) or "" in header[1:] or b"\0" in content:
        raise ArtifactError(path, "damaged: its first line does not name the columns; repair it or move it away")
    for line, cells in table[1:]:
        if len(cells) != len(header):
            raise ArtifactError(
                path, f"damaged: line {line} has {len(cells)} cells instead of {len(header)}; repair it or move it away"
            )
    return header, [dict(zip(header, cells, strict=True)) for _, cells in table[1:]]


def _frame(path: os.PathLike | str, columns: list[str], rows: list[dict[str, str]], numeric: Iterable[str]):
    """Return text rows as a DataFrame; columns that hold only numbers are numbers, empty cells are NaN."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    for name in columns:
        filled = frame[name].where(frame[name] != "")
        try:
            frame[name] = pd.to_numeric(filled)
        except ValueError:
            if name in numeric:
                raise ArtifactError(path, f"damaged: the column {name} holds something other than numbers") from None
            frame[name] = filled
    return frame


# --------------------------------------------------------------------------------------------------- routing caches


@dataclass(frozen=True)
class RoutingCacheRef:
    """A routing cache and what its place says about it; `variant` names the folders below the run's (of a lesion, or
    of a second checkpoint of the same task, trial and seed)."""

    path: Path
    task_id: str
    trial: int
    seed: int | None = None
    update: int | None = None
    variant: str = ""


def routing_cache_path(cache_dir: os.PathLike | str, ref: CheckpointRef, variant: str = "") -> Path:
    """Return where the routing cache of a checkpoint lies; a `variant` (such as `lesion_0-2`) has its own folder."""
    folder = Path(cache_dir) / _run_folder(ref.task_id, ref.trial, ref.seed)
    if ref.update is not None:
        folder /= f"update_{ref.update}"
    return folder / variant / _ROUTING_FILE


_CACHE_PATTERN = re.compile(
    r"(?P<task_id>[^/]+)/trial_(?P<trial>\d+)/(?:seed_(?P<seed>\d+)/)?(?:update_(?P<update>\d+)/)?"
    r"(?:(?P<variant>.+)/)?" + re.escape(_ROUTING_FILE)
)


def find_routing_caches(cache_dir: os.PathLike | str = CACHE_DIR, lesions: bool = False) -> list[RoutingCacheRef]:
    """Return the routing caches under a folder, sorted by path; those of lesioned policies only on request."""
    found = []
    for path in sorted(Path(cache_dir).glob(f"*/trial_*/**/{_ROUTING_FILE}")):
        match = _CACHE_PATTERN.fullmatch(path.relative_to(cache_dir).as_posix())
        if match is not None and (lesions or "lesion_" not in (match["variant"] or "")):
            numbers = {name: None if match[name] is None else int(match[name]) for name in ("trial", "seed", "update")}
            found.append(RoutingCacheRef(path, match["task_id"], variant=match["variant"] or "", **numbers))
    return found


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
    header = {"checkpoint_path": header.pop("checkpoint_path", None)} | header  # first, for `routing_cache_owner`
    with atomic_write(path, "wb") as file, garbage_collector_paused():
        file.write(b"{\n")
        for name, value in header.items():
            file.write(_json(str(name)) + b":" + _json(value) + b",\n")
        file.write(b'"episodes":[\n' + b",\n".join(map(_json, routing_data.episodes)) + b"\n],\n" + _ENTRIES_BEGIN)
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
        with garbage_collector_paused():
            cache = _read_cache_by_lines(path)
            if cache is None:
                cache = _read_cache_whole(path)
    except OSError as error:
        raise ArtifactError(path, _reading_problem(error)) from error
    except ValueError as error:  # of the JSON parsers and of RoutingData
        raise ArtifactError(path, f"damaged routing cache: {error}; evaluate again with --force") from error
    metrics = cache.get("metrics")
    if isinstance(metrics, dict):
        cache["metrics"] = {name: math.nan if value is None else value for name, value in metrics.items()}
    return cache


def routing_cache_owner(path: os.PathLike | str) -> str | None:
    """Return the `checkpoint_path` that the cache at `path` names in its first lines, None when there is none."""
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(path, _reading_problem(error)) from error
    match = re.search(rb'"checkpoint_path"\s*:\s*("(?:[^"\\]|\\.)*")', start)
    try:
        return None if match is None else orjson.loads(match[1])
    except ValueError:
        return None


def timestamp() -> str:
    """Return the time now, as `evaluated_at` has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


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
        episodes = cache.get("episodes")
        if not _are_episodes(episodes):
            return None
        blocks, complete = [], False
        while not complete:
            lines = file.readlines(_READ_BYTES)
            if not lines:
                raise ValueError("it ends in the middle")
            complete = lines[-1] == _ENTRIES_END
            block = b"".join(lines).removesuffix(_ENTRIES_END) if complete else b"".join(lines)
            entries = orjson.loads(b"[" + block.rstrip().removesuffix(b",") + b"]")
            if entries:
                blocks.append(entry_columns(entries))
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
    if episodes is not None and not _are_episodes(episodes):
        raise ValueError("its episodes are not a list of dicts with an env_context")
    cache["routing_data"] = RoutingData.from_entries(cache["routing_data"], episodes)
    cache["episodes"] = cache["routing_data"].episodes
    return cache


def _are_episodes(episodes) -> bool:
    return isinstance(episodes, list) and all(isinstance(each, dict) and "env_context" in each for each in episodes)


# ------------------------------------------------------------------------------------------------------------ plots


def plot_path(
    task_id: str, trial: int, name: str, seed: int | None = None, plots_dir: os.PathLike | str = PLOTS_DIR
) -> Path:
    """Return where the plot called `name` of a run lies, e.g. plots/BabyAI-GoToObj-v0/trial_1/routing_heatmap.png."""
    return Path(plots_dir) / _run_folder(task_id, trial, seed) / f"{name}.png"


def cross_task_plot_path(name: str, plots_dir: os.PathLike | str = PLOTS_DIR) -> Path:
    """Return where a plot that compares runs lies."""
    return Path(plots_dir) / "cross_task" / f"{name}.png"
