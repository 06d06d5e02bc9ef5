"""Train and evaluate on Modal: the same scripts, one container per run, all of them at once.

    python modal_app.py --dry-run --task-ids BabyAI-GoToObj-v0 --trials 0,1    # what would run; needs no account
    modal run modal_app.py --task-ids BabyAI-GoToObj-v0,BabyAI-GoToLocal-v0 --trials 0,1,2 --seeds 0,1,2
    modal run modal_app.py --task-ids BabyAI-GoToLocal-v0 --sweep "lpc_alpha=0,1e-5,1e-4; lr=1e-3,3e-4" \\
        --script train_mop.py --extra-args "--num_updates 5000"
    modal run modal_app.py --task-ids GoTos --tasks "BabyAI-GoTo*"    # one policy of many tasks; GoTos: its name
    modal run modal_app.py::evaluate
    modal run modal_app.py::download

The Volume `rl-mop` is laid out like the folder you work in (modal_checkpoints/, evaluation_cache/, and results/ with
one CSV per checkpoint, as containers cannot share a file), so that every path means the same there and here. The same
command again, once the first has ended, resumes what did not finish and leaves alone what did.
"""

import argparse
import collections
import contextlib
import csv
import dataclasses
import inspect
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import modal

from basics import files
from basics.config import (
    OWN_ENCODERS,
    POLICIES,
    Parser,
    config_parser,
    is_name,
    load_keys,
    near_keys,
    parse_config,
    shown,
)
from basics.errors import UserError, did_you_mean, run_script, warn
from basics.plain_yaml import MOST_DIGITS, parse_yaml
from results import paths, tables
from results.eval_options import NUM_ENVS, NUM_EPISODES, Lesion

ROOT = Path(__file__).parent
VOLUME_FOLDER = "/rl-mop"  # where containers see the Volume
CHECKPOINT_DIR = "modal_checkpoints"
RESULTS_DIR = "results"  # on the Volume only
LOG_FILE = "log.txt"  # beside a run's checkpoints: what the script printed
ENCODER_FILE = Path("/root/lang_encoder")  # in the image: the name of the encoder that its weights belong to
SCRIPTS = {script: policy for policy, script in POLICIES.items()}  # what each trains
GRID_KEYS = ("task_id", "tasks", "trial", "seed", "checkpoint_dir")  # set by the grid, never by --extra-args or --sweep
CODE = ("*.py", "basics/*.py", "fast_babyai/*.py", "policy/*.py", "training/*.py", "results/*.py", "config.yaml")
ENCODER_CODE = ("basics/*.py", "policy/__init__.py", "policy/language.py", "policy/missions.py")

CPUS, MEMORY_MIB = 2.0, 4096
DAY = 24 * 60 * 60  # seconds: the longest that Modal lets one attempt run
COMMIT_SECONDS = 30.0  # between commits of a growing metrics.csv; checkpoints are committed at once
POLL_SECONDS = 15.0  # between looks at a sweep
STOP_SECONDS = 25.0  # a preempted container has 30 s left

# For the estimate of a dry run: US dollars per second, of Modal's price list as of 2026 (modal.com/pricing decides).
CORE_PRICE, GIB_PRICE = 0.0000131, 0.00000222
GPU_PRICES = {"T4": 0.000164, "L4": 0.000222, "A10": 0.000306, "L40S": 0.000542, "A100": 0.000583, "H100": 0.001097}
STEPS_PER_SECOND = 30_000  # env-steps of the default mixture on one core, roughly (benchmarks/throughput.py)
STEPS_PER_SECOND_ON_GPU = 3_000  # without the compiled policy, on an H100 (docs/architecture.md)

BAKE = (
    "import sys; from pathlib import Path; from policy.language import find_encoder;"
    " Path(sys.argv[3]).write_text(find_encoder(sys.argv[1], sys.argv[2] or None)[0])"
)


def bake_command(encoder: str, fallback: str | None, target: Path | str = ENCODER_FILE) -> list[str]:
    """Return the command that fetches an encoder's weights, or settles for the fallback, and notes which in `target`.

    It runs once, while the image is built: all containers find the same encoder, and none asks the hub.
    """
    return ["python", "-c", BAKE, encoder, fallback or "", str(target)]


def only(*patterns: str) -> Callable[[Path], bool]:
    """Return what `add_local_dir` is to ignore so that only these files are added."""
    return ~modal.FilePatternMatcher(*patterns)


KEYS = load_keys()
DEFAULT_ENCODER = KEYS["lang_encoder"].default
BAKED: list[str] = [
    name for name in (DEFAULT_ENCODER, KEYS["lang_fallback"].default) if name not in (None, *OWN_ENCODERS)
]
BAKE_STEPS = [f"cd /encoder && {shlex.join(bake_command(BAKED[0], ''.join(BAKED[1:])))}"] if BAKED else []
image = (
    modal.Image.debian_slim(python_version="3.12")
    .pip_install_from_requirements(str(ROOT / "requirements.txt"))
    .add_local_dir(ROOT, "/encoder", copy=True, ignore=only(*ENCODER_CODE))
    .run_commands(*BAKE_STEPS)
    .env({"HF_HUB_OFFLINE": "1"})
    .add_local_dir(ROOT, "/root", ignore=only(*CODE))
)
volume = modal.Volume.from_name("rl-mop", create_if_missing=True)
CONTAINER = {
    "volumes": {VOLUME_FOLDER: volume},
    "cpu": CPUS,
    "memory": MEMORY_MIB,
    "timeout": DAY,
    "retries": modal.Retries(max_retries=8, initial_delay=10.0),
    "single_use_containers": True,  # a container that is reused may see an old state of the Volume
}
# `modal run modal_app.py::NAME` runs the App of that name; without a name, the one entrypoint bound below: main.
app = modal.App("rl-mop", image=image, include_source=False)
evaluate = modal.App("rl-mop-evaluate", image=image, include_source=False)
download = modal.App("rl-mop-download", image=image, include_source=False)


# ------------------------------------------------------------------------------------------------------------- the grid


class Run(NamedTuple):
    """One training run.

    Attributes:
        arguments: the script's command line, nothing but `--key=value`.
        config: what the script makes of them.
        swept: the values that `--sweep` gave it.
    """

    script: str
    arguments: list[str]
    config: dict[str, Any]
    swept: dict[str, Any]

    @property
    def folder(self) -> Path:
        return paths.run_dir(*(self.config[key] for key in ("checkpoint_dir", "task_id", "trial", "seed")))


class Outcome(NamedTuple):
    """What became of a run or of an evaluation: `state` is done or failed, `reason` says why it failed."""

    state: str
    reason: str = ""


def names(text: str, flag: str) -> list[str]:
    """Return the words of a comma-separated list; a UserError when there are none, or one twice."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError(f"{flag} is empty, so there is nothing to run: expected a list such as a,b,c")
    for word in words:
        if words.count(word) > 1:
            raise UserError(f"{flag} names {word} twice: both runs would write to the same folder")
    return words


def numbers(text: str, flag: str) -> list[int]:
    """As `names`, of whole numbers >= 0."""
    words = names(text, flag)
    if not all(word.isascii() and word.isdecimal() and len(word) < MOST_DIGITS for word in words):
        raise UserError(f"{flag} {text[:100]}: expected whole numbers >= 0 such as 0,1,2")
    return [int(word) for word in names(",".join(str(int(word)) for word in words), flag)]


def combinations(sweep: str) -> list[dict[str, Any]]:
    """Return every combination of `key=value,value; key=value,...`; one empty combination for an empty text.

    Raises:
        UserError: no such key, a value it does not allow, a value twice, or a key that the grid itself sets.
    """
    values = {}
    for part in filter(None, (part.strip() for part in sweep.split(";"))):
        name, _, text = (piece.strip() for piece in part.partition("="))
        if name not in KEYS:
            raise UserError(f"--sweep: unknown key {name!r}.{near_keys(name, KEYS)} All keys: {', '.join(KEYS)}")
        if name in values:
            raise UserError(f"--sweep names {name} twice: give it one list")
        try:
            listed = parse_yaml(f"[{text}]")
        except ValueError:
            listed = []
        if not listed:
            raise UserError(f"--sweep {part}: expected values, as in {name}=a,b")
        try:
            values[name] = [KEYS[name].check(value) for value in listed]
        except UserError as error:
            raise UserError(f"--sweep: {error}") from None
        if any(values[name].count(value) > 1 for value in values[name]):
            raise UserError(f"--sweep {part}: a value stands there twice, which would be the same run twice")
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def flags(values: Mapping[str, Any]) -> list[str]:
    """Return config values as the training scripts read them on their command line."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]


def parse_command(script: str, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what a training script makes of its command line: its config, and the keys that were given.

    Raises:
        UserError: the script itself would refuse it.
    """
    policy = SCRIPTS[script]
    return parse_config(config_parser(script, policy).parse_args(list(arguments)), policy)


def make_grid(
    task_ids: str,
    trials: str = "0",
    seeds: str = "",
    script: str = POLICIES["mixture"],
    extra_args: str = "",
    sweep: str = "",
    tasks: str = "",
) -> list[Run]:
    """Return the runs of every task x trial x seed x combination of `sweep`, each checked as its script would.

    With C combinations, combination c of trial t becomes trial t * C + c. With `tasks`, names or patterns, every run is
    on all of these, and `task_ids` names the set.

    Raises:
        UserError: unknown script, task, key or flag, impossible value, nothing to run, or two runs in one folder.
    """
    from training.task_sets import resolve_tasks

    if script not in SCRIPTS:
        raise UserError(f"--script {script}: expected {' or '.join(SCRIPTS)}.{did_you_mean(script, SCRIPTS)}")
    task_id_list = names(task_ids, "--task-ids")
    if tasks and len(task_id_list) > 1:
        raise UserError(f"--task-ids {task_ids}: with --tasks it is the name of one set of tasks")
    try:
        extra = shlex.split(extra_args)
    except ValueError as error:
        raise UserError(f"--extra-args {extra_args}: {error}") from None
    config, given = parse_command(script, extra)
    combos = combinations(sweep)
    for name in [*given, *combos[0]]:
        if name in GRID_KEYS:
            flag = "--tasks sets" if name == "tasks" else "--task-ids, --trials and --seeds set"
            raise UserError(f"{name} has no place in --extra-args or --sweep: {flag} it")
        if name in given and name in combos[0]:
            raise UserError(f"{name} stands in both --extra-args and --sweep: which one is meant?")
    runs = []
    for task_id, trial in itertools.product(task_id_list, numbers(trials, "--trials")):
        for seed in numbers(seeds, "--seeds") if seeds else [None]:
            for place, combo in enumerate(combos):
                place_keys = {"task_id": task_id, "trial": trial * len(combos) + place, "seed": seed}
                if tasks:
                    place_keys["tasks"] = tasks
                values = {name: config[name] for name in given} | combo | place_keys
                arguments = flags(values | {"checkpoint_dir": CHECKPOINT_DIR})
                runs.append(Run(script, arguments, resolve_tasks(parse_command(script, arguments)[0]), combo))
    check_grid(runs)
    return runs


def check_grid(runs: Sequence[Run]) -> None:
    """Raise a UserError where two runs share a folder, or one wants an encoder that the image does not hold."""
    folders = collections.Counter(run.folder for run in runs)
    for run in runs:
        if folders[run.folder] > 1:
            raise UserError(f"{folders[run.folder]} runs would write to {run.folder}: give them other trials or seeds")
        if run.config["lang_encoder"] not in (*BAKED, *OWN_ENCODERS):
            raise UserError(
                f"lang_encoder {run.config['lang_encoder']!r}: the image holds {' and '.join(BAKED) or 'none'}, as"
                " config.yaml says; name another one there"
            )


def parse_gpu(gpu: str) -> tuple[str, int]:
    """Return the kind and the number of GPUs that `--gpu H100:2` asks of Modal; no GPU is ("", 0).

    Raises:
        UserError: it says something else.
    """
    match = re.fullmatch(r"(?P<kind>[A-Za-z][A-Za-z0-9-]*!?)(?::(?P<count>[1-8]))?", gpu)
    if gpu and match is None:
        raise UserError(f"--gpu {gpu}: expected a kind of GPU such as L4, or with how many of them, L4:2 (at most 8)")
    return (match["kind"], int(match["count"] or 1)) if match else ("", 0)


def estimate(run: Run, gpu: str = "") -> tuple[float, float | None]:
    """Return roughly how long a run takes, in hours, and what it costs, in US dollars (None: no price known)."""
    config = run.config
    steps_per_second = STEPS_PER_SECOND_ON_GPU if gpu and config["device"] != "cpu" else STEPS_PER_SECOND
    seconds = config["num_updates"] * config["num_envs"] * config["unroll_len"] / steps_per_second
    kind, count = parse_gpu(gpu)
    price = CPUS * CORE_PRICE + MEMORY_MIB / 1024 * GIB_PRICE
    if gpu:
        if kind not in GPU_PRICES:
            return seconds / 3600, None
        price += GPU_PRICES[kind] * count
    return seconds / 3600, seconds * price


def grid_text(runs: Sequence[Run], gpu: str = "") -> str:
    """Return the grid for people: which trial is which, every command, and the estimate."""
    lines = []
    for run in runs:
        swept = " ".join(f"{name}={value}" for name, value in run.swept.items())
        lines += [f"{run.folder}  {swept}".rstrip(), f"    python {shlex.join([run.script, *run.arguments])}"]
    hours, dollars = zip(*(estimate(run, gpu) for run in runs), strict=True)
    cost = "no price known for this GPU" if None in dollars else f"about ${sum(dollars):.2f} in all"
    lines.append(f"{len(runs)} runs at once on {gpu or 'CPU'}: about {max(hours):.2f} h, {cost} (a guess)")
    if gpu and any(run.config["device"] == "cpu" for run in runs):
        lines.append(f"{gpu} would be paid for and stand idle: runs with `device: cpu` do not use it")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ inside the containers


def resume_flags(config: dict[str, Any], given: Sequence[str]) -> list[str] | None:
    """Return what to add to a run's command: `--resume` where an unfinished run lies; None when it is finished.

    Raises:
        UserError: what lies there is a run with other settings, or cannot be read.
    """
    from training.resuming import newest_checkpoint, resumed_config, updates_done

    newest = newest_checkpoint(config)
    if newest is None:
        return []
    path, checkpoint = newest
    resumed_config(config, given, checkpoint, path)
    return ["--resume"] if updates_done(checkpoint) < config["num_updates"] else None


def settled_encoder(config: Mapping[str, Any]) -> list[str]:
    """Return the flags that pin a run to the encoder in the image, and forbid it to look for another."""
    encoder = config["lang_encoder"]
    if encoder == DEFAULT_ENCODER and encoder not in OWN_ENCODERS and ENCODER_FILE.exists():
        encoder = ENCODER_FILE.read_text(encoding="utf-8")
    return flags({"lang_encoder": encoder, "lang_fallback": None})


def watch(process: subprocess.Popen, folder: Path, commit: Callable[[], object], poll_seconds: float = 1.0) -> int:
    """Wait for a training process and return its exit status; `commit` at every new checkpoint, and now and then for
    metrics.csv. When this container has to go, the process is told to save, and that is committed too."""
    committed, committed_at = {}, 0.0
    try:
        while True:
            status = process.poll()
            metrics = (paths.METRICS_FILE, paths.METRICS_BY_TASK_FILE)
            written = [*folder.glob("checkpoint_*.pt"), *itertools.chain(*map(folder.glob, metrics))]
            state = {path.name: path.stat().st_mtime_ns for path in written}
            changed = {name for name, changed_at in state.items() if committed.get(name) != changed_at}
            due = time.monotonic() - committed_at > COMMIT_SECONDS
            if changed and (due or changed != {paths.METRICS_FILE}):
                commit()
                committed, committed_at = state, time.monotonic()
            if status is not None:
                return status
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(poll_seconds)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
        commit()


def commit_volume() -> None:
    """Make what this container wrote lasting, and visible to others. Outside of Modal there is no Volume mounted."""
    if not modal.is_local():
        volume.commit()


def failure(log: str, status: int) -> str:
    """Return why a script ended badly: the error in its log, else its last line, else its exit status."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = re.findall(r"error: .+|\b[\w.]+(?:Error|Exception)\b.*", log)  # maybe behind a progress bar
    return next(iter([*errors[-1:], *lines[-1:]]), f"exit status {status}")


@app.function(**CONTAINER)
def train_run(script: str, arguments: list[str], folder: str = VOLUME_FOLDER) -> Outcome:
    """Train one run, from where it stands in `folder`, with the script itself in a process of its own.

    Raises:
        RuntimeError: the process was killed (preempted, out of memory): Modal tries again, and that attempt resumes.
    """
    from training.task_sets import resolve_tasks

    with contextlib.chdir(folder):
        try:
            config, _ = parse_command(script, arguments)
            arguments = [*arguments, *settled_encoder(config)]
            config, given = parse_command(script, arguments)
            resume = resume_flags(resolve_tasks(config), given)
        except UserError as error:
            return Outcome("failed", str(error))
        if resume is None:
            return Outcome("done")
        place = paths.run_dir(CHECKPOINT_DIR, config["task_id"], config["trial"], config["seed"])
        place.mkdir(parents=True, exist_ok=True)
        with open(place / LOG_FILE, "a", encoding="utf-8") as log:
            begins = log.tell()
            command = [sys.executable, str(ROOT / script), *arguments, *resume]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            status = watch(process, place, commit_volume)
        if status == 0:
            return Outcome("done")
        reason = failure((place / LOG_FILE).read_bytes()[begins:].decode(errors="replace"), status)
    if status < 0 or status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise RuntimeError(f"stopped with status {status}: {reason}")
    return Outcome("failed", reason)


def result_path(ref: paths.CheckpointRef) -> Path:
    """Return the CSV of one checkpoint's rows, one of each task that it was trained on: each checkpoint has its own, as
    the last container to write a file wins."""
    return Path(RESULTS_DIR, *ref.path.parts[1:]).with_suffix(".csv")


def evaluate_checkpoint(path: str, num_episodes: int, backend: str = "fast", folder: str = VOLUME_FOLDER) -> Outcome:
    """Evaluate one checkpoint in `folder`, on each task that it was trained on: rows go to results/, routing caches to
    evaluation_cache/."""
    import batch_eval
    from results.checkpoints import on_each_task

    with contextlib.chdir(folder):
        ref = paths.checkpoint_ref(path)
        if ref is None:
            return Outcome("failed", f"{path}: not a place for checkpoints (<task_id>/trial_<N>/checkpoint_final.pt)")
        settings = batch_eval.Settings(result_path(ref), num_episodes, NUM_ENVS, backend, None, Lesion())
        for target in on_each_task([ref]):
            job = batch_eval.Job(target, paths.routing_cache_path(paths.CACHE_DIR, target))
            reason = batch_eval.attempt(job, settings, lambda episodes: None)
            if reason is not None:
                break
        commit_volume()
    return Outcome("done") if reason is None else Outcome("failed", reason)


# Not bound to a name of this module: `modal run modal_app.py::evaluate` would take it for what is to run.
REMOTE = {"evaluate": evaluate.function(**CONTAINER)(evaluate_checkpoint)}


# ---------------------------------------------------------------------------------------------------- bringing it home


class Files(NamedTuple):
    """What lies on a Volume.

    Attributes:
        changed_at: path -> when it was last changed, in seconds since 1970.
        read: returns a file's bytes, in pieces.
    """

    changed_at: dict[str, int]
    read: Callable[[str], Iterable[bytes]]


def volume_files() -> Files:
    """Return the files of the Modal Volume."""
    entries = volume.iterdir("/", recursive=True)
    return Files({e.path.lstrip("/"): e.mtime for e in entries if e.type.name == "FILE"}, volume.read_file)


def unevaluated(there: Files, final_only: bool = False) -> list[str]:
    """Return the checkpoints without a row, or whose row is older than they are."""
    waiting = []
    for path, changed_at in sorted(there.changed_at.items()):
        ref = paths.checkpoint_ref(path)
        if ref is None or not path.startswith(f"{CHECKPOINT_DIR}/") or (final_only and ref.update is not None):
            continue
        if there.changed_at.get(result_path(ref).as_posix(), -1) < changed_at:
            waiting.append(path)
    return waiting


def fetch(there: Files, source: str, target: Path | str) -> None:
    """Copy one file here, with the time of its last change."""
    with files.atomic_write(target, "wb") as file:
        file.writelines(there.read(source))
    changed_at = there.changed_at[source]
    os.utime(target, (changed_at, changed_at))


def merge(there: Files) -> tuple[int, int]:
    """Bring checkpoints, metrics, results and routing caches into the working folder; what is newer here stays.

    Returns:
        how many files of runs, and how many results, were new.
    """
    from batch_eval import choose_cache_paths

    new_files = new_results = 0
    for path, changed_at in sorted(there.changed_at.items()):
        if not path.startswith(f"{CHECKPOINT_DIR}/") or Path(path).name.startswith(".") or ".." in Path(path).parts:
            continue
        if not Path(path).exists() or Path(path).stat().st_mtime < changed_at:
            fetch(there, path, path)
            new_files += 1
    ours = {tables.result_key(row): row for row in tables.read_result_rows(paths.RESULTS_PATH)}
    with tempfile.TemporaryDirectory() as temporary:
        for path in sorted(path for path in there.changed_at if path.startswith(f"{RESULTS_DIR}/")):
            if not path.endswith(".csv"):
                continue
            fetch(there, path, Path(temporary, "row.csv"))
            for row in tables.read_result_rows(Path(temporary, "row.csv")):
                ref = paths.checkpoint_ref(row["checkpoint_path"])
                if ref is None or not is_name(ref.task_id) or not is_name(row.get("task_id")):
                    warn(f"{path}: passed over, as {shown(row['checkpoint_path'])} is no checkpoint's path")
                    continue
                ref = dataclasses.replace(ref, evaluated_on=row["task_id"] if row["task_id"] != ref.task_id else None)
                known = ours.get(tables.result_key(row))
                if known is not None and known.get("evaluated_at", "") >= row.get("evaluated_at", ""):
                    continue
                cache = row.get("routing_cache", "")
                if cache in there.changed_at:
                    here = choose_cache_paths([ref], Path(paths.CACHE_DIR), Lesion())[ref]
                    fetch(there, cache, here)
                    row["routing_cache"] = str(here)
                tables.upsert_result(paths.RESULTS_PATH, row)
                new_results += 1
    return new_files, new_results


# ------------------------------------------------------------------------------------------------- watching and telling


def last_metrics(content: bytes) -> dict[str, str]:
    """Return the last row of a metrics.csv; empty when it has none yet."""
    rows = list(csv.DictReader(content.decode(errors="replace").splitlines()))
    return rows[-1] if rows else {}


def table(names_: Sequence[str], outcomes: Mapping[int, Outcome], metrics: Mapping[int, Mapping[str, str]]) -> str:
    """Return a table of all runs: state, last metrics, and why those failed that did."""

    def number(value: str) -> str:
        return f"{float(value):.4g}" if value else "-"

    width = max(map(len, names_))
    lines = [f"{'run':<{width}}  {'state':<8} {'update':>8} {'success':>8} {'loss':>8} {'LPC':>8}"]
    for index, name in enumerate(names_):
        row = metrics.get(index, {})
        state = outcomes[index].state if index in outcomes else "running" if row else "waiting"
        numbers_ = " ".join(f"{number(row.get(key, '')):>8}" for key in ("update", "success_rate", "loss", "mean_lpc"))
        reason = outcomes[index].reason.strip().split("\n")[-1] if index in outcomes else ""
        lines.append(f"{name:<{width}}  {state:<8} {numbers_}  {reason}".rstrip())
    states = collections.Counter(outcome.state for outcome in outcomes.values())
    lines.append(f"{states['done']} done, {states['failed']} failed, {len(names_) - len(outcomes)} to go")
    return "\n".join(lines)


def poll(call: modal.FunctionCall, index: int) -> Outcome | None:
    """Return what became of one input of a call, None while it is under way."""
    try:
        return call.get(timeout=0, index=index)
    except (modal.exception.FunctionTimeoutError, modal.exception.OutputExpiredError) as error:
        return Outcome("failed", f"{type(error).__name__}: out of time, and of retries. The same command again resumes")
    except (TimeoutError, modal.exception.TimeoutError):
        return None
    except modal.exception.ConnectionError as error:
        warn(f"Modal does not answer, asking again: {error}")
        return None
    except Exception as error:  # whatever a container died of, the other runs go on
        return Outcome("failed", f"{type(error).__name__}: {error}")


def follow(call: modal.FunctionCall, names_: Sequence[str], metrics_paths: Sequence[str]) -> dict[int, Outcome]:
    """Show the table whenever something has changed, until every input of `call` is done or failed."""
    outcomes: dict[int, Outcome] = {}
    metrics: dict[int, dict[str, str]] = {}
    shown = ""
    while True:
        for index in range(len(names_)):
            if index not in outcomes:
                outcome = poll(call, index)
                if metrics_paths:
                    with contextlib.suppress(FileNotFoundError, modal.exception.Error):
                        metrics[index] = last_metrics(b"".join(volume.read_file(metrics_paths[index])))
                if outcome is not None:
                    outcomes[index] = outcome
        text = table(names_, outcomes, metrics)
        if text != shown:
            print(f"\n{text}", flush=True)
            shown = text
        if len(outcomes) == len(names_):
            return outcomes
        time.sleep(POLL_SECONDS)


def save_table(path: Path, runs: Sequence[Run], outcomes: Mapping[int, Outcome]) -> None:
    """Write which run is which, and what became of it, as a CSV."""
    swept = list(runs[0].swept)
    with files.atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["folder", "task_id", "trial", "seed", *swept, "state", "reason", "command"])
        for index, run in enumerate(runs):
            place = [run.folder, *(run.config[key] for key in ("task_id", "trial", "seed"))]
            command = shlex.join([run.script, *run.arguments])
            writer.writerow([*place, *run.swept.values(), *outcomes.get(index, Outcome("launched")), command])


def sweep_runs(runs: Sequence[Run], gpu: str, bring_home: bool) -> int:
    """Launch the runs on Modal and follow them; return 1 when some failed, else 0."""
    saved = Path(CHECKPOINT_DIR, f"sweep_{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}.csv")
    print(f"{grid_text(runs, gpu)}\nwhich is which: {saved}", flush=True)
    save_table(saved, runs, {})
    remote = train_run.with_options(gpu=gpu) if gpu else train_run
    # One call for all runs: it is the last one that --detach keeps alive, and it lives until all of them ended.
    call = remote.experimental_spawn_map([run.script for run in runs], [run.arguments for run in runs])
    outcomes = follow(call, [str(run.folder) for run in runs], [f"{run.folder}/metrics.csv" for run in runs])
    save_table(saved, runs, outcomes)
    if bring_home:
        print_merged()
    return int(any(outcome.state == "failed" for outcome in outcomes.values()))


def evaluate_all(num_episodes: int, final_only: bool, bring_home: bool) -> int:
    """Evaluate what the Volume holds and has no results yet; return 1 when some failed, else 0."""
    if num_episodes < 1:
        raise UserError(f"--num-episodes {num_episodes}: expected a whole number >= 1")
    waiting = unevaluated(volume_files(), final_only)
    print(f"{len(waiting)} checkpoint{'s' * (len(waiting) != 1)} to evaluate", flush=True)
    outcomes = {}
    if waiting:
        call = REMOTE["evaluate"].experimental_spawn_map(waiting, [num_episodes] * len(waiting))
        outcomes = follow(call, waiting, [])
    if bring_home:
        print_merged()
    return int(any(outcome.state == "failed" for outcome in outcomes.values()))


def print_merged() -> None:
    new_files, new_results = merge(volume_files())
    print(f"brought home: {new_files} files to {CHECKPOINT_DIR}/, {new_results} results to {paths.RESULTS_PATH}")


# --------------------------------------------------------------------------------------------------------- command line


def leave(body: Callable[[], int | None]) -> None:
    """Run an entrypoint's body; bad input ends with one line and status 2. Ctrl-C is left to Modal, as is success:
    it then says how to go on following a detached App."""
    try:
        status = body()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    if status:
        sys.exit(status)


@app.local_entrypoint()
def main(
    task_ids: str,
    trials: str = "0",
    seeds: str = "",
    script: str = POLICIES["mixture"],
    extra_args: str = "",
    sweep: str = "",
    tasks: str = "",
    gpu: str = "",
    download: bool = True,
    dry_run: bool = False,
):
    """Train a grid of runs."""

    def launch() -> int:
        parse_gpu(gpu)
        runs = make_grid(task_ids, trials, seeds, script, extra_args, sweep, tasks)
        if dry_run:
            print(grid_text(runs, gpu))
            return 0
        return sweep_runs(runs, gpu, download)

    leave(launch)


def evaluate_main(num_episodes: int = NUM_EPISODES, final_only: bool = False, download: bool = True):
    """Evaluate every checkpoint on the Volume that has no results yet."""
    leave(lambda: evaluate_all(num_episodes, final_only, download))


def download_main():
    """Bring checkpoints, results and routing caches home."""
    leave(print_merged)


evaluate.local_entrypoint()(evaluate_main)
download.local_entrypoint()(download_main)


def dry_run_from_command_line() -> None:
    """Take the arguments that `modal run modal_app.py` takes, and say what that would do, without Modal."""
    parser = Parser(description=__doc__)
    for parameter in inspect.signature(main.info.raw_f).parameters.values():  # pyright: ignore[reportArgumentType]
        flag = f"--{parameter.name.replace('_', '-')}"
        if parameter.annotation is bool:
            parser.add_argument(flag, default=parameter.default, action=argparse.BooleanOptionalAction)
        else:
            required = parameter.default is inspect.Parameter.empty
            parser.add_argument(flag, required=required, default=None if required else parameter.default)
    arguments = parser.parse_args()
    if not arguments.dry_run:
        raise UserError("to launch this, run `modal run modal_app.py ...` with the same arguments; here, add --dry-run")
    main(**vars(arguments))


if __name__ == "__main__":
    run_script(dry_run_from_command_line)
