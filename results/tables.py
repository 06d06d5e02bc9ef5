"""Tables: the results CSV of evaluations, and the metrics.csv beside a run's checkpoints.

pandas is imported by the functions that need it, so that deciding what is left to do takes no time.
"""

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from basics.files import ArtifactError, atomic_write, read_bytes
from results.paths import RESULTS_PATH

if TYPE_CHECKING:
    import pandas as pd

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
    columns, rows = _parse_csv(path, read_bytes(path))
    missing = [name for name in METRICS_COLUMNS if name not in columns]
    if missing:
        raise ArtifactError(path, f"damaged: the columns {', '.join(missing)} are missing")
    return _frame(path, columns, rows, numeric=METRICS_COLUMNS)


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
    columns, rows = _parse_csv(path, read_bytes(path))
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
