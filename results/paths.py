"""Where everything lies: checkpoints, results, routing caches, training curves, plots."""

import fnmatch
import math
import operator
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from basics.config import is_name, shown
from basics.errors import UserError

PUBLISHED = "published"  # checkpoints that come with the program, and their own results CSV
CHECKPOINT_ROOTS = ("checkpoints", "modal_checkpoints", PUBLISHED)
RESULTS_PATH = "evaluation_results.csv"
CACHE_DIR = "evaluation_cache"
PLOTS_DIR = "plots"
METRICS_FILE = "metrics.csv"  # beside a run's checkpoints
METRICS_BY_TASK_FILE = "metrics_by_task.csv"  # beside it, of a run on several tasks
ROUTING_FILE = "routing_data.json"


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint file and what its place says about it.

    Attributes:
        task_id: what it was trained on, a task or a set of tasks.
        seed: None where training was given no seed of its own folder.
        update: None for `checkpoint_final.pt`.
        evaluated_on: the task that this is about, where it is not `task_id`: one of a set's, or another one.
    """

    path: Path
    task_id: str
    trial: int
    seed: int | None = None
    update: int | None = None
    evaluated_on: str | None = None

    @property
    def task(self) -> str:
        """The task that it plays."""
        return self.evaluated_on or self.task_id

    def __str__(self) -> str:
        seed = "" if self.seed is None else f" seed {self.seed}"
        update = "" if self.update is None else f" update {self.update}"
        task = "" if self.evaluated_on is None else f": {self.evaluated_on}"
        return f"{self.task_id}{task} trial {self.trial}{seed}{update}"


def _run_folder(task_id: str, trial: int, seed: int | None) -> Path:
    """Return a run's folder below a root, and nothing outside of that root, whatever the names are.

    Raises:
        UserError: they cannot name a folder.
    """
    _check_name(task_id)
    trial, seed = operator.index(trial), None if seed is None else operator.index(seed)
    return Path(task_id, f"trial_{trial}", *([] if seed is None else [f"seed_{seed}"]))


def _check_name(task_id: str) -> None:
    if not is_name(task_id):
        raise UserError(f"{shown(task_id)} cannot name a folder, so it is no task")


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
    if match is None or match["task_id"] in (".", "..") or any(len(number or "") > 19 for number in match.groups()[1:]):
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
        task: a task_id (of a set of tasks: its name), or a pattern such as `BabyAI-GoTo*`.
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


def lesion_results_path(results_path: os.PathLike | str) -> Path:
    """Return where the results of lesioned policies go: apart from the normal ones, one row per lesion."""
    return _beside(results_path, "lesions")


def measures_path(results_path: os.PathLike | str) -> Path:
    """Return where the measures of pathways go that need more than a results CSV holds."""
    return _beside(results_path, "pathways")


def _beside(results_path: os.PathLike | str, what: str) -> Path:
    path = Path(results_path)
    return path.with_name(f"{path.stem}_{what}{path.suffix}")


def routing_cache_path(cache_dir: os.PathLike | str, ref: CheckpointRef, variant: str = "") -> Path:
    """Return where the routing cache of a checkpoint lies; what it does on another task than `task_id`, such as each of
    a set's, has a folder of its own, and so has a `variant` (such as `lesion_0-2`)."""
    folder = Path(cache_dir) / _run_folder(ref.task_id, ref.trial, ref.seed)
    if ref.update is not None:
        folder /= f"update_{ref.update}"
    if ref.evaluated_on is not None:
        _check_name(ref.evaluated_on)
        folder /= ref.evaluated_on
    return folder / variant / ROUTING_FILE


def plot_path(
    task_id: str,
    trial: int,
    name: str,
    seed: int | None = None,
    plots_dir: os.PathLike | str = PLOTS_DIR,
    evaluated_on: str | None = None,
) -> Path:
    """Return where the plot called `name` of a run lies, e.g. plots/BabyAI-GoToObj-v0/trial_1/routing_heatmap.png; what
    a run does on another task than `task_id`, such as each of a set's, has a folder of that task in it."""
    folder = Path(plots_dir) / _run_folder(task_id, trial, seed)
    if evaluated_on is not None:
        _check_name(evaluated_on)
        folder /= evaluated_on
    return folder / f"{name}.png"


def cross_task_plot_path(name: str, plots_dir: os.PathLike | str = PLOTS_DIR) -> Path:
    """Return where a plot that compares runs lies."""
    return Path(plots_dir) / "cross_task" / f"{name}.png"


def short_task(task_id: str) -> str:
    """Return `GoToLocal` for `BabyAI-GoToLocal-v0`, and `GoTos: GoToLocal` for `GoTos: BabyAI-GoToLocal-v0`."""
    trained_on, colon, task_id = task_id.rpartition(": ")
    return trained_on + colon + task_id.removeprefix("BabyAI-").removesuffix("-v0")
