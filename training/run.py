"""Managing a training run: its folder, starting and resuming it, stopping it, saving it.

What is computed stands in training/trainer.py; which checkpoint a run goes on from, in training/resuming.py.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from basics.config import config_parser, parse_config
from basics.errors import UserError, say, warn
from basics.files import ArtifactError
from results import checkpoints, paths
from training.metrics import MetricsLog
from training.resuming import newest_checkpoint, resume, resumed_config, run_checkpoints, updates_done

if TYPE_CHECKING:
    from training.trainer import Trainer

SHOWN = {  # beside the progress bar, as many as fit: metrics, and what they are called there
    "success_rate": "success",
    "mean_lpc": "LPC",
    "loss": "loss",
    "accuracy": "accuracy",
    "path_ratio": "path ratio",
    "steps_per_second": "steps/s",
}
NARROWEST_BAR = 10  # columns, the frame included
LOCK_FILE = ".lock"


class RunFolder:
    """The folder of one run, which one process at a time may write to.

    A run that lies there already and is to be replaced stays until the new one has saved its first checkpoint.

    Attributes:
        path: of the folder.
        replaced: files of that other run.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.path = paths.run_dir(*(config[name] for name in ("checkpoint_dir", "task_id", "trial", "seed")))
        self.replaced: list[Path] = []

    @contextlib.contextmanager
    def owned(self) -> Iterator["RunFolder"]:
        """Make the folder and keep it from other processes while inside; a killed process owns nothing.

        Raises:
            UserError: another process trains there, or it cannot be written to.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK_FILE)
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process is training in {self.path}: wait for it, or choose another --trial or --seed"
            ) from None
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot write to {self.path}: {reason}. Choose another --checkpoint_dir") from None
        with lock:
            try:
                yield self
            finally:
                if made and os.listdir(self.path) == [LOCK_FILE]:  # it has come to nothing: leave no trace
                    (self.path / LOCK_FILE).unlink()
                    with contextlib.suppress(OSError):
                        for folder in made:
                            folder.rmdir()

    def save(self, checkpoint: dict, update: int | None) -> Path:
        """Save the checkpoint of an update (None: the final one); then the run that it replaces, if any, is removed.

        Raises:
            ArtifactError: it cannot be written; nothing has changed.
        """
        path = self.path / f"checkpoint_{'final' if update is None else update}.pt"
        checkpoints.save_checkpoint(path, checkpoint)
        for old in self.replaced:
            if old != path:
                old.unlink(missing_ok=True)
        self.replaced = []
        return path


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """While inside, Ctrl-C, SIGTERM and the end of the terminal are noted in the list that this yields; a second one
    acts as usual."""
    received: list[int] = []

    def note(number, frame):
        received.append(number)
        signal.signal(number, previous[number])

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Screen:
    """Standard error for the progress bar. Where nobody reads it any more (`train_mop.py 2>&1 | head`), that is a
    request to stop like any other: what is learned is saved first."""

    def __init__(self, stops: list[int]):
        self.stops = stops

    def write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
        except BrokenPipeError:
            self.stops.append(signal.SIGPIPE)
        except OSError:  # the terminal is gone; SIGHUP says what to do about that
            pass

    def flush(self) -> None:
        try:
            sys.stderr.flush()
        except BrokenPipeError:
            self.stops.append(signal.SIGPIPE)
        except OSError:
            pass

    def __getattr__(self, name: str):
        return getattr(sys.stderr, name)


def room_for_metrics(progress: tqdm) -> int | None:
    """Return how many columns of the terminal metrics can have beside a short bar; None where there is no terminal."""
    state = {**progress.format_dict}
    if not state["ncols"]:
        return None
    everything_else = tqdm.format_meter(**(state | {"ncols": 0, "postfix": "-"}))  # 0: without the bar itself
    return state["ncols"] - NARROWEST_BAR - len(everything_else) + 1


def shown_metrics(row: Mapping[str, float], room: int | None) -> str:
    """Return as many of the metrics as fit into `room` columns, always the first; None: there is room for all."""
    text = ""
    for name, label in SHOWN.items():
        number = f"{row[name]:,.0f}" if row[name] >= 10_000 else f"{row[name]:.4g}"
        longer = f"{text} {label} {number}".lstrip()
        if text and room is not None and len(longer) > room:
            break
        text = longer
    return text


def open_run(
    config: dict[str, Any], given: Iterable[str], resuming: bool, overwrite: bool, folder: RunFolder
) -> tuple[dict, tuple[Path, dict] | None]:
    """Decide what becomes of the run's folder; nothing in it changes yet.

    Returns:
        the config to train with, and the path and the content of the checkpoint to go on from (None: from the start).

    Raises:
        UserError: there is something that must not be lost, or nothing that could be resumed.
    """
    if resuming:
        newest = newest_checkpoint(config)
        if newest is None:
            raise UserError(f"{folder.path} holds no checkpoint to resume from; leave --resume out to start there")
        path, checkpoint = newest
        return resumed_config(config, given, checkpoint, path), newest
    refs = run_checkpoints(config)
    if refs and not overwrite:
        finished = refs[-1].update is None
        state, hint = ("a finished", "") if finished else ("an unfinished", "--resume it, ")
        raise UserError(f"{folder.path} holds {state} run: {hint}choose another --trial or --seed, or --overwrite it")
    folder.replaced = [ref.path for ref in refs]
    return config, None


def train(config: dict[str, Any], given: Iterable[str] = (), resume: bool = False, overwrite: bool = False) -> int:
    """Train one policy and return the exit status: 0 when finished, 128 + its number when stopped by a signal.

    Args:
        config: every key of config.yaml that concerns this kind of policy; `tasks` may hold patterns.
        given: the keys that the user set, which a resumed run must not contradict.
        resume: go on with the unfinished run in this config's folder; a finished one is left as it is.
        overwrite: begin anew where a run exists.

    Raises:
        UserError: bad input, see `open_run` and `training.trainer.Trainer`.
    """
    from training.task_sets import resolve_tasks

    folder = RunFolder(config)
    if config["tasks"] is not None or not (resume and folder.path.exists()):  # a run that goes on knows its tasks
        config = resolve_tasks(config)
    with folder.owned(), stop_requests() as stops:
        config, start = open_run(config, given, resume, overwrite, folder)
        if start is not None and updates_done(start[1]) >= config["num_updates"]:
            say(f"{start[0]} is finished after {updates_done(start[1])} updates; nothing to resume")
            return 0
        if start is None and config["init_from"] is not None:
            from training.init_from import policy_of_start

            config = policy_of_start(config, given)
        return _train(config, start, folder, stops)


def make_trainer(config: dict[str, Any]) -> "Trainer":
    """Return what trains by the config's objective, at its beginning.

    Raises:
        UserError: see `training.trainer.Trainer`.
    """
    # PyTorch takes seconds to import: --help and bad input come without it
    from training.imitation import ImitationTrainer
    from training.ppo import PPOTrainer

    return {"imitation": ImitationTrainer, "ppo": PPOTrainer}[config["objective"]](config)


def _train(config: dict[str, Any], start: tuple[Path, dict] | None, folder: RunFolder, stops: list[int]) -> int:
    try:
        trainer = make_trainer(config)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise UserError(f"there is not enough memory for these sizes: {' '.join(str(error).split())[:200]}") from None
    if start is None:
        trainer.start()
    else:
        resume(trainer, start[1], start[0])
    _tell_whose_success_is_counted(trainer)
    log = MetricsLog(trainer.config, folder.path, trainer.update)
    logged_at, logged_update = time.perf_counter(), trainer.update
    with tqdm(
        total=config["num_updates"],
        initial=trainer.update,
        unit="update",
        desc=config["task_id"],
        dynamic_ncols=True,
        file=_Screen(stops),
        mininterval=0.1 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines than a screen
    ) as progress:
        while trainer.update < config["num_updates"] and not stops:
            trainer.learn(trainer.collect())
            progress.update()

            if trainer.update % config["log_interval"] == 0 or trainer.update == config["num_updates"]:
                row = trainer.metrics(time.perf_counter() - logged_at, logged_update)
                logged_at, logged_update = time.perf_counter(), trainer.update
                if folder.replaced:
                    _save_if_possible(folder, trainer, config)
                log.add(row, trainer.metrics_by_task(), write=not folder.replaced)
                progress.set_postfix_str(shown_metrics(row, room_for_metrics(progress)))
            if trainer.update % config["checkpoint_interval"] == 0 and trainer.update < config["num_updates"]:
                _save_if_possible(folder, trainer, config)
    trainer.missions_ahead.close()
    trainer.env.close()
    finished = trainer.update == config["num_updates"]
    path = folder.save(trainer.checkpoint(), None if finished else trainer.update)
    log.close()
    if finished:
        say(f"saved {path}")
        return 0
    say(f"stopped at update {trainer.update}, saved {path}; the same command with --resume goes on from there")
    return 128 + stops[0]


def _tell_whose_success_is_counted(trainer) -> None:
    """Say of how many tasks metrics will tell success, where the student walks alone in environments of some only."""
    num_tasks, counted = len(trainer.env.tasks), len(set(trainer.env.task_of_env[trainer.alone].tolist()))
    if counted < num_tasks:
        say(
            f"success while training is counted in {trainer.alone.sum()} environments, so of {counted} of {num_tasks}"
            f" tasks; with num_envs {8 * num_tasks} it is of all. Evaluation tells it of each"
        )


def _save_if_possible(folder: RunFolder, trainer, config: Mapping[str, Any]) -> None:
    """Save a checkpoint on the way; a disk that is full now may not be when the run has ended."""
    try:
        folder.save(trainer.checkpoint(), None if trainer.update == config["num_updates"] else trainer.update)
    except ArtifactError as error:
        warn(f"{error}; training goes on")


def train_from_command_line(description: str | None, policy: str) -> int:
    """Read the command line of the script that trains `policy` (`baseline` or `mixture`), and train."""
    parser = config_parser(description, policy)
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished run in this folder")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where a run exists already")
    arguments = parser.parse_args()
    if arguments.resume and arguments.overwrite:
        raise UserError("--resume and --overwrite contradict each other")
    config, given = parse_config(arguments, policy)
    return train(config, given, arguments.resume, arguments.overwrite)
