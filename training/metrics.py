"""What a training run writes down as it goes: metrics.csv, of several tasks metrics_by_task.csv, and TensorBoard and
Weights & Biases where wanted."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from basics.errors import warn
from basics.files import ArtifactError
from results import paths, tables


class MetricsLog:
    """The rows of metrics.csv and metrics_by_task.csv beside the checkpoints, and copies of the former elsewhere.

    Args:
        since_update: where the run goes on; rows of later updates, of a run that was killed, are dropped. Columns that
            only older rows have are kept.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path, since_update: int):
        self.path, self.path_by_task = folder / paths.METRICS_FILE, folder / paths.METRICS_BY_TASK_FILE
        self.rows = _rows_until(since_update, self.path, tables.read_metrics)
        self.rows_by_task = _rows_until(since_update, self.path_by_task, tables.read_metrics_by_task)
        self.is_written = True
        self.copies = [copy(config, folder, since_update) for name, copy in COPIES.items() if config.get(name)]

    def add(self, row: dict[str, float], by_task: Sequence[dict] = (), write: bool = True) -> None:
        """Add a row, and those of its tasks; `write` says whether the files may be changed already."""
        self.rows.append(row)
        self.rows_by_task += by_task
        self.is_written = False
        if write:
            self._write()
        for log, _ in filter(None, self.copies):
            log(row)

    def _write(self) -> None:
        try:
            tables.write_metrics(self.path, self.rows)
            if self.rows_by_task:
                tables.write_metrics(self.path_by_task, self.rows_by_task, tables.METRICS_BY_TASK_COLUMNS)
            self.is_written = True
        except ArtifactError as error:  # the next row brings this one along
            warn(f"{error}; training goes on")

    def close(self) -> None:
        if not self.is_written:
            self._write()
        for _, close in filter(None, self.copies):
            close()


def _rows_until(update: int, path: Path, read: Callable) -> list[dict[str, Any]]:
    """Return the rows of a run that goes on from an update; none of one that begins anew."""
    if update == 0 or not path.exists():
        return []
    rows = read(path).to_dict("records")
    return [{str(name): row[name] for name in row} for row in rows if row["update"] <= update]


def _tensorboard(config: Mapping[str, Any], folder: Path, since_update: int):
    """Return what logs a row to TensorBoard, in the folder `tensorboard` beside metrics.csv, and what ends that."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warn("not logging to TensorBoard: the package tensorboard is not installed")
        return None
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=since_update + 1)

    def log(row: Mapping[str, float]) -> None:
        with contextlib.suppress(OSError):  # a full disk
            for name, value in row.items():
                if name != "update" and value == value:  # NaN: there is no such number
                    writer.add_scalar(name, value, row["update"])
            writer.flush()

    return log, writer.close


def _wandb(config: Mapping[str, Any], folder: Path, since_update: int):
    """Return what logs a row to Weights & Biases, and what ends that."""
    try:
        import wandb  # pyright: ignore[reportMissingImports]  (optional)
    except ImportError:
        warn(f"not logging to wandb_project {config['wandb_project']!r}: the package wandb is not installed")
        return None
    run = wandb.init(project=config["wandb_project"], name=str(folder), config=dict(config))
    return lambda row: run.log(row, step=row["update"]), run.finish


COPIES = {"tensorboard": _tensorboard, "wandb_project": _wandb}  # by the key of config.yaml that asks for it
