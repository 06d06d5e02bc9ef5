"""Managing a training run: its folder, starting and resuming it, stopping it, saving it.

What is computed stands in training/imitation.py.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from basics.config import config_parser, legacy_config, parse_config
from basics.errors import UserError
from results import checkpoints, paths
from training.metrics import MetricsFile

RESUMABLE_KEYS = {  # what may change when a run is resumed: none of it changes what is computed
    "num_updates", "log_interval", "checkpoint_interval", "wandb_project", "checkpoint_dir", "lang_fallback"
}  # fmt: skip
SHOWN = ("loss", "accuracy", "success_rate", "path_ratio", "mean_lpc", "steps_per_second")  # beside the progress bar


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """While inside, Ctrl-C and SIGTERM are noted in the list that this yields; a second one acts as usual."""
    received: list[int] = []

    def note(number, frame):
        received.append(number)
        signal.signal(number, previous[number])

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def last_checkpoint(config: Mapping[str, Any]) -> paths.CheckpointRef | None:
    """Return the furthest checkpoint of the run that `config` describes, if there is one."""
    task, trial, seed = config["task_id"], config["trial"], config["seed"]
    found = paths.find_checkpoints([config["checkpoint_dir"]], task=task, trial=trial)
    return next((ref for ref in reversed(found) if ref.seed == seed), None)


def resumed_config(config: dict[str, Any], given: Iterable[str], checkpoint: dict, path: Path) -> dict[str, Any]:
    """Return the config to resume a run with: its own, and of the keys now `given` those that may change.

    Raises:
        UserError: a key is given another value than the run was started with.
    """
    saved = legacy_config(checkpoint["config"])
    if "resume_state" not in checkpoint:
        raise UserError(f"{path} holds no state to resume from; start another trial, or --overwrite this one")
    if ("expert_hidden_sizes" in saved) != ("expert_hidden_sizes" in config):
        raise UserError(f"{path} holds the other kind of policy: resume it with the script that started it")
    changed = [
        f"{name} {saved[name]!r} (now {config[name]!r})"
        for name in given
        if name in saved and saved[name] != config[name] and name not in RESUMABLE_KEYS
    ]
    if changed:
        raise UserError(f"{path} was started with {', '.join(changed)}: resume with the same, or start another trial")
    return config | saved | {name: config[name] for name in given}


def open_run(config: dict[str, Any], given: Iterable[str], resume: bool, overwrite: bool) -> tuple[dict, dict | None]:
    """Decide what becomes of the run's folder.

    Returns:
        the config to train with, and the checkpoint to go on from (None: from the start).

    Raises:
        UserError: there is something that must not be lost, or nothing that could be resumed.
    """
    folder = paths.run_dir(config["checkpoint_dir"], config["task_id"], config["trial"], config["seed"])
    last = last_checkpoint(config)
    if resume:
        if last is None:
            raise UserError(f"{folder} holds no checkpoint to resume from; leave --resume out to start there")
        checkpoint = checkpoints.load_checkpoint(last.path)
        config = resumed_config(config, given, checkpoint, last.path)
        if checkpoint["resume_state"]["update"] >= config["num_updates"]:
            raise UserError(f"{last.path} is finished after {config['num_updates']} updates; nothing to resume")
        return config, checkpoint
    if last is not None and not overwrite:
        state, hint = ("a finished", "") if last.update is None else ("an unfinished", "--resume it, ")
        raise UserError(f"{folder} holds {state} run: {hint}choose another --trial or --seed, or --overwrite it")
    if folder.exists() and overwrite:
        for name in [*folder.glob("checkpoint_*.pt"), folder / paths.METRICS_FILE]:
            name.unlink(missing_ok=True)
    return config, None


def train(config: dict[str, Any], given: Iterable[str] = (), resume: bool = False, overwrite: bool = False) -> int:
    """Train one policy and return the exit status: 0 when finished, 130 or 143 when stopped by a signal.

    Args:
        config: see `Trainer`.
        given: the keys that the user set, which a resumed run must not contradict.
        resume: go on with the unfinished run in this config's folder.
        overwrite: begin anew where a run exists.

    Raises:
        UserError: bad input, see `open_run` and `Trainer`.
    """
    from training.imitation import Trainer  # PyTorch takes seconds to import: --help and bad input come without it

    config, checkpoint = open_run(config, given, resume, overwrite)
    folder = paths.run_dir(config["checkpoint_dir"], config["task_id"], config["trial"], config["seed"])
    check_writable(folder)
    with stop_requests() as stops:
        trainer = Trainer(config)
        if checkpoint is None:
            trainer.start()
        else:
            trainer.resume(checkpoint)
        log = MetricsFile(trainer.config, folder, trainer.update)
        logged_at, logged_update = time.perf_counter(), trainer.update
        progress = tqdm(
            total=config["num_updates"],
            initial=trainer.update,
            unit="update",
            desc=config["task_id"],
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines than a screen
        )
        while trainer.update < config["num_updates"] and not stops:
            trainer.learn(trainer.collect())
            progress.update()

            if trainer.update % config["log_interval"] == 0 or trainer.update == config["num_updates"]:
                row = trainer.metrics(time.perf_counter() - logged_at, logged_update)
                logged_at, logged_update = time.perf_counter(), trainer.update
                log.add(row)
                progress.set_postfix_str(" ".join(f"{name} {row[name]:.4g}" for name in SHOWN))
            if trainer.update % config["checkpoint_interval"] == 0 and trainer.update < config["num_updates"]:
                checkpoints.save_checkpoint(folder / f"checkpoint_{trainer.update}.pt", trainer.checkpoint())
        progress.close()
        log.close()
        finished = trainer.update == config["num_updates"]
        path = folder / f"checkpoint_{'final' if finished else trainer.update}.pt"
        checkpoints.save_checkpoint(path, trainer.checkpoint())
        trainer.env.close()
    if finished:
        print(f"saved {path}")
        return 0
    print(f"stopped at update {trainer.update}, saved {path}; the same command with --resume goes on from there")
    return 128 + stops[0]


def check_writable(folder: Path) -> None:
    """Raise a UserError unless files can be written to `folder`, so that no training is lost for want of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}. Choose another --checkpoint_dir") from None


def train_from_command_line(description: str, policy: str) -> int:
    """Read the command line of the script that trains `policy` (`baseline` or `mixture`), and train."""
    parser = config_parser(description, policy)
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished run in this folder")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where a run exists already")
    arguments = parser.parse_args()
    if arguments.resume and arguments.overwrite:
        raise UserError("--resume and --overwrite contradict each other")
    config, given = parse_config(arguments, policy)
    return train(config, given, arguments.resume, arguments.overwrite)
