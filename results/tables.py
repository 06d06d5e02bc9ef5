"""Tables: the results CSV of evaluations, and the metrics.csv beside a run's checkpoints.

pandas is imported by the functions that need it, so that deciding what is left to do takes no time.
"""

import contextlib
import csv
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from basics.config import Key, is_text, shown
from basics.errors import UserError, warn
from basics.files import ArtifactError, atomic_write, read_bytes, require_regular_file
from results.paths import RESULTS_PATH

if TYPE_CHECKING:
    import pandas as pd

RESULT_TYPES = {  # every results CSV starts with these columns; what config.yaml's types say of their cells
    "checkpoint_path": "str",
    "task_id": "name",
    "trial": "int >= 0 or null",
    "num_episodes": "int >= 1 or null",
    "success_rate": "float in [0, 1] or null",
    "path_ratio": "float > 0 or null",
    "mean_lpc": "float >= 0 or null",
    "bot_plan_failures": "int >= 0 or null",
    "num_updates": "",
    "unroll_len": "",
    "lr": "",
    "lpc_alpha": "",
    "expert_hidden_sizes": "",
    "intermediate_dim": "",
    "router_hidden_size": "",
    "max_steps": "",
    "lang_dim": "",
    "evaluated_at": "",
}
RESULT_COLUMNS = [*RESULT_TYPES]
FURTHER_RESULT_TYPES = {  # of columns that may follow
    "success_rate_sampled": "float in [0, 1] or null",
    "trained_on": "name or null",
    "seed": "int >= 0 or null",
    "update": "int >= 0 or null",
}
MEASURE_TYPES = {  # of the measures of pathways, one number a row
    "checkpoint_path": "str",
    "task_id": "name or null",  # null: of the network as a whole
    "measure": "str",
    "value": "float or null",
}
METRICS_COLUMNS = [  # of metrics.csv beside a checkpoint, all numbers; a metric of your own is one more column
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
METRICS_BY_TASK_COLUMNS = [  # of metrics_by_task.csv
    "update",
    "task_id",
    "env_steps",
    "success_rate",
    "accuracy",
    "ce",
    "mean_lpc",
    "episodes",
]
MISSING = (
    "",
    "nan",
    "na",
    "n/a",
    "null",
    "none",
    "-",
)  # cells without a value, in any case, as spreadsheets write them
LONGEST_CELL = 1 << 30
_NO_TEXT = re.compile("[\udc80-\udcff]")  # bytes that were no UTF-8, as "surrogateescape" decodes them
csv.field_size_limit(LONGEST_CELL)  # else csv refuses to read what it wrote itself


def write_metrics(path: os.PathLike | str, rows: Iterable[dict], known: Sequence[str] = METRICS_COLUMNS) -> None:
    """Write `metrics.csv`, one row per log interval; a number that does not exist (nan) is an empty cell.

    The columns are those of all rows, `known` ones first.
    """
    rows = list(rows)
    columns = list(dict.fromkeys([*known, *(name for row in rows for name in row)]))
    _write_csv(path, columns, rows)


def read_metrics(path: os.PathLike | str) -> "pd.DataFrame":
    """Read the `metrics.csv` that training writes beside its checkpoint.

    Its columns are `METRICS_COLUMNS`, empty (NaN) where an older file has none, and then all others that it has.

    Raises:
        ArtifactError: no such file, damaged, or no metrics.csv.
    """
    problems: list[str] = []
    columns, rows = _parse_csv(path, read_bytes(path), problems)
    if "update" not in columns:
        raise ArtifactError(path, "damaged: the column update is missing")
    types = dict.fromkeys(METRICS_COLUMNS, "float or null") | {"update": "float >= 0"}
    return _frame(path, [*METRICS_COLUMNS, *columns], rows, types, problems)


def read_metrics_by_task(path: os.PathLike | str) -> "pd.DataFrame":
    """Read the `metrics_by_task.csv` of a run on several tasks: one row per log interval and task.

    Raises:
        ArtifactError: no such file, damaged, or no metrics_by_task.csv.
    """
    problems: list[str] = []
    columns, rows = _parse_csv(path, read_bytes(path), problems)
    if not {"update", "task_id"} <= set(columns):
        raise ArtifactError(path, "damaged: the columns update and task_id are missing")
    types = dict.fromkeys(METRICS_BY_TASK_COLUMNS, "float or null") | {"update": "float >= 0", "task_id": "name"}
    return _frame(path, [*METRICS_BY_TASK_COLUMNS, *columns], rows, types, problems)


def read_result_rows(path: os.PathLike | str) -> Sequence[dict[str, str]]:
    """Return the rows of a results CSV as text, without pandas; no rows where there is no file yet.

    Raises:
        ArtifactError: damaged, or not a results CSV.
    """
    return [*_read_results_table(path)[1]]


def write_result_rows(path: os.PathLike | str, rows: Sequence[dict]) -> None:
    """Write a results CSV anew, of rows as `read_result_rows` returns them; its columns are those of all rows."""
    _write_csv(path, list(dict.fromkeys(name for row in rows for name in row)) or RESULT_COLUMNS, rows)


def read_results(path: os.PathLike | str = RESULTS_PATH) -> "pd.DataFrame":
    """Read a results CSV, one row per checkpoint and task (`trial`, `seed` and `update` are nullable integers).

    `task_id` is the task that was played, `trained_on` what the checkpoint was trained on: the same, or its set.

    Rows that cannot be are passed over, with one warning that names the line.

    Raises:
        ArtifactError: no such file, not a results CSV, or none of its rows can be read.
    """
    if not Path(path).exists():
        raise ArtifactError(path, "no such file; batch_eval.py writes it")
    problems: list[str] = []
    columns, rows = _read_results_table(path, problems)
    types = RESULT_TYPES | {name: kind for name, kind in FURTHER_RESULT_TYPES.items() if name in columns}
    frame = _frame(path, [*RESULT_COLUMNS, *columns], rows, types, problems)
    trained_on = frame["trained_on"] if "trained_on" in frame else frame["task_id"]
    frame["trained_on"] = trained_on.where(trained_on.notna(), frame["task_id"])  # of older programs
    return frame.astype({name: "Int64" for name, kind in types.items() if kind.startswith("int")})


def name_sets(results: "pd.DataFrame") -> "pd.DataFrame":
    """Return results with `GoTos: BabyAI-GoTo-v0` for the `task_id` of a checkpoint that was trained on the set GoTos:
    figures tell it from what was trained on the task alone."""
    if "trained_on" not in results:
        return results
    trained_on, task_id = results["trained_on"], results["task_id"]
    return results.assign(task_id=task_id.where(trained_on == task_id, trained_on + ": " + task_id))


def upsert_result(path: os.PathLike | str, row: dict) -> None:
    """Write one row into a results CSV; it replaces the row of the same checkpoint and task (and lesion, if any).

    Other rows keep their text, and their further columns, as they are. Processes that write at the same time wait for
    each other.

    Raises:
        ArtifactError: the file is damaged (it is left as it is), or cannot be written.
    """
    with _locked(path):
        columns, known = _read_results_table(path)
        rows: list[dict[str, str]] = [*known]
        cells = {name: _cell(value) for name, value in row.items()}
        for name in ("checkpoint_path", "task_id"):
            if not is_text(str(row.get(name, "-"))):
                raise UserError(f"its {name} {shown(row[name])} cannot stand in {path}: rename it")
        columns = list(dict.fromkeys([*RESULT_COLUMNS, *columns, *cells]))
        key = result_key(cells)
        places = [place for place, other in enumerate(rows) if result_key(other) == key]
        if places:
            rows[places[0]] = cells
            rows = [other for place, other in enumerate(rows) if place not in places[1:]]
        else:
            rows.append(cells)
        _write_csv(path, columns, rows)


def write_measures(path: os.PathLike | str, rows: Iterable[dict]) -> None:
    """Write measures of pathways, one number a row (`MEASURE_TYPES`); NaN is an empty cell."""
    _write_csv(path, [*MEASURE_TYPES], rows)


def read_measures(path: os.PathLike | str) -> "pd.DataFrame":
    """Read measures of pathways; no rows where there is no such file.

    Raises:
        ArtifactError: damaged, or something else.
    """
    problems: list[str] = []
    columns, rows = _parse_csv(path, read_bytes(path), problems) if Path(path).exists() else ([*MEASURE_TYPES], [])
    missing = [name for name in MEASURE_TYPES if name not in columns]
    if missing:
        raise ArtifactError(path, f"no measures of pathways: it has no column {missing[0]}; move it away or repair it")
    return _frame(path, [*MEASURE_TYPES, *columns], rows, MEASURE_TYPES, problems)


@contextlib.contextmanager
def _locked(path: os.PathLike | str) -> Iterator[None]:
    """Keep other processes from writing `path` meanwhile; a killed process holds no lock."""
    try:
        require_regular_file(path)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{os.fspath(path)}.lock").acquire()
    except OSError as error:
        raise ArtifactError(path, f"cannot be written: {error.strerror or error}") from error
    with lock:
        yield


def result_key(row: dict[str, str]) -> tuple[str, str, str]:
    """Return what makes a row of a results CSV the only one of its kind: its checkpoint, the task where it is another
    than it was trained on (each of a set's), and the lesion."""
    is_own_task = row.get("trained_on", "") in ("", row.get("task_id"))  # rows of older programs do not tell
    return os.path.abspath(row["checkpoint_path"]), "" if is_own_task else row["task_id"], row.get("lesion", "")


def _cell(value) -> str:
    """Return the text of a cell. Whatever `value` holds, what is written can be read: control characters and halves of
    characters, which no table needs and some readers refuse, are escaped."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = json.dumps(value) if isinstance(value, (list, tuple, dict)) else str(value)
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs") else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}"


def _write_csv(path: os.PathLike | str, columns: list[str], rows: Iterable[dict]) -> None:
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _read_results_table(path: os.PathLike | str, problems: list[str] | None = None) -> tuple[list[str], list["_Row"]]:
    if not Path(path).exists():
        return [], []
    columns, rows = _parse_csv(path, read_bytes(path), problems)
    if columns and "checkpoint_path" not in columns:
        raise ArtifactError(path, "not a results CSV: it has no column checkpoint_path; move it away or repair it")
    return columns, rows


def _parse_csv(
    path: os.PathLike | str, content: bytes, problems: list[str] | None = None
) -> tuple[list[str], list["_Row"]]:
    """Return header and rows of a CSV as text, blank lines (also of commas only) left out.

    Args:
        problems: where to note lines that do not fit the header; without it they are an error.
    """
    try:
        table = list(_records(content, problems))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(path, f"damaged: {error}; repair it or move it away") from error
    if not table:
        return [], []
    header = table[0][1]
    while header and header[-1] == "" and not any(len(cells) == len(header) and cells[-1] for _, cells in table):
        header = header[:-1]  # a spreadsheet's empty columns at the right
        table = [(line, cells[:-1] if len(cells) > len(header) else cells) for line, cells in table]
    if len(set(header)) < len(header) or "" in header[1:] or b"\0" in content:
        raise ArtifactError(path, "damaged: its first line does not name the columns; repair it or move it away")
    rows = []
    for line, cells in table[1:]:
        if len(cells) == len(header):
            rows.append(_Row(line, zip(header, cells, strict=True)))
            continue
        problem = f"line {line} has {len(cells)} cells instead of {len(header)}"
        if problems is None:
            raise ArtifactError(path, f"damaged: {problem}; repair it or move it away")
        problems.append(problem)
    return header, rows


def _records(content: bytes, problems: list[str] | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of its (last) line and the cells of each record that is not blank.

    Where problems are to be noted, a line that is no CSV or no text costs only itself, except the first.
    """
    text = content.decode("utf-8-sig", "strict" if problems is None else "surrogateescape")
    lines = list(io.StringIO(text, newline=""))
    passed = 0  # lines read before this reader began
    reader = csv.reader(lines, strict=True)
    start = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if problems is None or start == 0:
                raise
            problems.append(f"line {start + 1}: {error}")
            passed = start = start + 1
            reader = csv.reader(lines[start:], strict=True)
            continue
        is_header, start = start == 0, passed + reader.line_num
        if problems is not None and _NO_TEXT.search("".join(cells)):
            problem = f"line {start} is not UTF-8 text"
            if is_header:
                raise csv.Error(problem)
            problems.append(problem)
        elif any(cells):
            yield start, cells


class _Row(dict[str, str]):
    """The text of a line's cells, by column."""

    def __init__(self, line: int, cells: Iterable[tuple[str, str]]):
        super().__init__(cells)
        self.line = line


def _checked_row(row: Mapping[str, str], types: Mapping[str, str]) -> dict:
    """Return the values of a row: those of columns with a type as that type.

    Raises:
        UserError: a cell holds something else.
    """
    values: dict = {}
    for name, text in row.items():
        text = text.strip()
        values[name] = None if text.lower() in MISSING else text
        kind = types.get(name, "")
        if kind.startswith(("int", "float")) and values[name] is not None:
            with contextlib.suppress(ValueError):
                number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else float(text)
                values[name] = int(number) if kind.startswith("int") and number == number // 1 else number
    for name, kind in types.items():
        if kind:
            Key(name, None, kind, "").check(values.get(name))
    return values


def _frame(
    path: os.PathLike | str,
    columns: list[str],
    rows: Sequence["_Row"],
    types: Mapping[str, str],
    problems: list[str],
) -> "pd.DataFrame":
    """Return the rows that fit `types` as a DataFrame; other columns that hold only numbers are numbers too.

    Raises:
        ArtifactError: there are rows, but none that fits.
    """
    import pandas as pd

    checked = []
    for row in rows:
        try:
            checked.append(_checked_row(row, types))
        except UserError as error:
            problems.append(f"line {row.line}: {str(error).removesuffix('.')}")
    if problems:
        more = f" (and {len(problems) - 1} more lines)" if len(problems) > 1 else ""
        if not checked:
            raise ArtifactError(path, f"damaged: {problems[0]}{more}; repair it or move it away")
        warn(f"{path}: {problems[0]}{more}; passed over")
    frame = pd.DataFrame(checked, columns=list(dict.fromkeys(columns)), dtype=object)
    for name in frame.columns:
        filled = frame[name].where(frame[name].notna())
        try:
            frame[name] = pd.to_numeric(filled)
        except (ValueError, TypeError, OverflowError):
            frame[name] = filled
    return frame
