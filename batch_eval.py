"""Evaluate every checkpoint once: a row in the results CSV, and a routing cache, for each; where a checkpoint was
trained on a set of tasks, for each of these tasks.

    python batch_eval.py                                    # whatever is new or has changed
    python batch_eval.py --task 'BabyAI-GoTo*' --final_only --workers 4
    python batch_eval.py --task GoTos --tasks BabyAI-GoTo-v0    # a set's checkpoints on one task, of the set or not
    python batch_eval.py --disable_experts 0:2,1:2          # a lesion: own CSV (..._lesions.csv), own caches
    python batch_eval.py --sampled                          # also by sampled actions: column success_rate_sampled

Checkpoints that are in the CSV and whose file has not changed are passed over, so an interrupted run goes on where it
stopped. An evaluation over fewer episodes replaces one over more only with --force. A checkpoint that cannot be
evaluated is reported and does not stop the others; the exit status is then 1.
"""

import contextlib
import datetime
import functools
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from basics.config import Parser, is_name, is_text, legacy_config
from basics.errors import UserError, did_you_mean, run_script, say, warn
from basics.files import ArtifactError, reading_problem, require_regular_file, timestamp
from results.checkpoints import is_mixture, load_checkpoint, on_each_task
from results.eval_options import NUM_EPISODES, Lesion, add_evaluation_flags, natural, positive
from results.paths import (
    CACHE_DIR,
    CHECKPOINT_ROOTS,
    RESULTS_PATH,
    CheckpointRef,
    find_checkpoints,
    lesion_results_path,
    routing_cache_path,
)
from results.pathways import pathway_columns
from results.routing_caches import routing_cache_episodes, routing_cache_owner, write_routing_cache
from results.tables import read_result_rows, result_key, upsert_result

CONFIG_COLUMNS = (  # of a row: taken from the checkpoint's config, empty where it has no such key
    "num_updates",
    "unroll_len",
    "lr",
    "lpc_alpha",
    "normalize_lpc",
    "expert_dropout",
    "intermediate_dim",
    "router_hidden_size",
    "max_steps",
    "lang_dim",
    "hidden_size",
    "obs_encoding",
    "lang_fusion",
    "lang_encoder",
    "objective",
    "bot_share",
    "normalize_layers",
    "match_keys",
    "repetition_penalty",
)
SAMPLED = "success_rate_sampled"  # the column that --sampled fills
NOT_CACHED = "skipped"  # in the column routing_cache: evaluated with --skip_routing


@dataclass(frozen=True)
class Settings:
    """How all checkpoints of a batch are evaluated."""

    results_path: Path
    num_episodes: int
    num_envs: int
    backend: str
    lang_encoder: str | None
    lesion: Lesion


@dataclass(frozen=True)
class Job:
    """A checkpoint to evaluate on one task.

    Attributes:
        cache_path: where its routing goes; None with --skip_routing.
        num_episodes: None: as many as the settings say.
        known_episodes: over how many it was evaluated before, as it is now.
        sampled: by sampled actions too.
    """

    ref: CheckpointRef
    cache_path: Path | None
    num_episodes: int | None = None
    known_episodes: int = 0
    sampled: bool = False


def evaluate_checkpoint(job: Job, settings: Settings, on_episodes: Callable[[int], object] | None = None) -> dict:
    """Evaluate one checkpoint on one task, write its routing cache and then its row; return the row.

    Raises:
        UserError: the checkpoint cannot be evaluated, or the results cannot be written.
    """
    from eval_mop import evaluate
    from fast_babyai.reference import check_task
    from policy.agent import load_agent  # PyTorch takes seconds to import, and often nothing is left to do

    ref, lesion, num_episodes = job.ref, settings.lesion, job.num_episodes or settings.num_episodes
    if not (is_text(str(ref.path)) and is_name(ref.task_id) and is_name(ref.task)):
        raise ArtifactError(ref.path, "its path holds something that no table can: rename it")
    try:
        require_regular_file(ref.path)
        state = ref.path.stat()  # before reading: if training replaces the file meanwhile, the next run notices
        file_state = {
            "checkpoint_size": state.st_size,
            "checkpoint_mtime_ns": state.st_mtime_ns,
            "checkpoint_sha256": sha256(ref.path),
        }
    except OSError as error:
        raise ArtifactError(ref.path, reading_problem(error)) from error
    checkpoint = load_checkpoint(ref.path)
    config = legacy_config(checkpoint["config"])
    if config.get("task_id", ref.task_id) != ref.task_id:
        raise ArtifactError(
            ref.path,
            f"it was trained on {config['task_id']}, but lies in the folder of {ref.task_id}: move it there, or use"
            " eval_mop.py --task_id to see how it does on another task",
        )
    check_task(ref.task)  # before the sentence encoder, which takes its time
    agent = load_agent(checkpoint, settings.lang_encoder)
    play_levels = functools.partial(
        evaluate,
        agent,
        ref.task,
        num_episodes,
        num_envs=settings.num_envs,
        max_steps=config["max_steps"],
        backend=settings.backend,
        lesion=lesion,
        on_episodes=on_episodes,
    )
    metrics, routing_data = play_levels()
    sampled = {SAMPLED: play_levels(sampled=True).metrics["success_rate"]} if job.sampled else {}
    expert_hidden_sizes = [list(layer) for layer in agent.expert_hidden_sizes]
    evaluated_at = timestamp()
    if job.cache_path is not None and expert_hidden_sizes:
        header = {
            "checkpoint_path": str(ref.path),
            "task_id": ref.task,
            "trained_on": ref.task_id,
            "evaluated_at": evaluated_at,
            "expert_hidden_sizes": expert_hidden_sizes,
            "metrics": metrics,
        }
        write_routing_cache(job.cache_path, header | ({"lesion": lesion.name} if lesion else {}), routing_data)
    row = {
        "checkpoint_path": str(ref.path),
        "task_id": ref.task,
        "trial": ref.trial,
        "num_episodes": num_episodes,
        **metrics,
        **{name: config.get(name) for name in CONFIG_COLUMNS},
        "expert_hidden_sizes": expert_hidden_sizes or None,
        "evaluated_at": evaluated_at,
        **sampled,
        "trained_on": ref.task_id,
        "seed": config["seed"] if ref.seed is None else ref.seed,
        "update": ref.update,
        **({} if lesion else pathway_columns(routing_data)),
        "routing_cache": NOT_CACHED if job.cache_path is None else job.cache_path if expert_hidden_sizes else None,
        **file_state,
    }
    upsert_result(settings.results_path, row | ({"lesion": lesion.name} if lesion else {}))
    return row


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------- what is left to do


def plan(
    refs: Sequence[CheckpointRef],
    rows: dict[tuple[str, str, str], dict[str, str]],
    cache_paths: dict[CheckpointRef, Path | None],
    lesion: Lesion,
    num_episodes: int | None = None,
    sampled: bool = False,
) -> list[Job]:
    """Return a job for each checkpoint that was not evaluated yet, has changed since, or lacks its routing cache.

    Args:
        rows: of the results CSV, by `tables.result_key`.
        cache_paths: where each checkpoint's routing cache belongs; None where none is wanted.
        num_episodes: evaluations over another number of episodes do not count; None: any number will do, and what was
            evaluated over more than the usual number is not evaluated over fewer.
        sampled: evaluations without sampled actions do not count.
    """
    jobs = []
    for ref in refs:
        row = rows.get(key_of(ref, lesion))
        cache_path = cache_paths[ref]
        known = episodes_of(row) if row is not None and is_unchanged(ref.path, row) else None
        was_sampled = row is not None and row.get(SAMPLED, "") != ""
        is_done = known is not None and num_episodes in (None, known) and (was_sampled or not sampled)
        if not row or not is_done or (cache_path is not None and lacks_cache(row, cache_path)):
            most = max(known or 0, cached_episodes(ref.path, cache_path))
            sampled_too = sampled or was_sampled  # or its row would lose that number
            jobs.append(Job(ref, cache_path, num_episodes or max(NUM_EPISODES, most), most, sampled_too))
    return jobs


def key_of(ref: CheckpointRef, lesion: Lesion) -> tuple[str, str, str]:
    """Return the `result_key` of a checkpoint's row."""
    row = {"checkpoint_path": str(ref.path), "task_id": ref.task, "trained_on": ref.task_id, "lesion": lesion.name}
    return result_key(row)


def episodes_of(row: dict[str, str]) -> int:
    """Return over how many episodes a row's evaluation went; 0 where it does not tell."""
    text = row.get("num_episodes", "").removesuffix(".0")
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def cached_episodes(path: Path, cache_path: Path | None) -> int:
    """Return of how many episodes there is a routing cache that is not older than the checkpoint; 0 without one."""
    try:
        if cache_path is None or cache_path.stat().st_mtime < path.stat().st_mtime:
            return 0
    except OSError:
        return 0
    return routing_cache_episodes(cache_path)


def leave_larger(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs that replace no evaluation over more episodes, and say which ones do."""
    smaller = [job for job in jobs if job.num_episodes is not None and job.num_episodes < job.known_episodes]
    if smaller:
        named = ", ".join(f"{job.ref} ({job.known_episodes:,})" for job in smaller[:3])
        more = f" and {len(smaller) - 3} more" if len(smaller) > 3 else ""
        warn(
            f"an evaluation over {smaller[0].num_episodes:,} episodes would replace one over more of {named}{more}: row"
            " and cache stay as they are; add --force to replace them"
        )
    return [job for job in jobs if job not in smaller]


def leave_baselines(refs: Sequence[CheckpointRef]) -> list[CheckpointRef]:
    """Return the mixtures, and say how many baselines there are: a lesion has nothing to switch off in them."""
    mixtures = [ref for ref in refs if is_mixture(ref.path)]
    if len(mixtures) < len(refs):
        left_out = counted(len(refs) - len(mixtures), "baseline")
        say(f"{left_out} passed over: a GRU without experts has nothing that a lesion could switch off")
    return mixtures


def counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def lacks_cache(row: dict[str, str], cache_path: Path) -> bool:
    """Tell whether a row of a mixture has no routing cache to go with it (a baseline has no routing)."""
    is_mixture = row.get("expert_hidden_sizes", "") != ""
    return is_mixture and (row.get("routing_cache") == NOT_CACHED or not cache_path.exists())


def is_unchanged(path: Path, row: dict[str, str]) -> bool:
    """Tell whether a checkpoint is the one that its row was made from.

    Size and time of change tell in an instant; a file that was only touched or copied has the same digest. Rows of
    older programs say nothing of the file but when it was evaluated.
    """
    try:
        require_regular_file(path)
        state = path.stat()
        if not row.get("checkpoint_sha256"):
            evaluated_at = datetime.datetime.fromisoformat(row.get("evaluated_at", ""))
            return state.st_mtime < evaluated_at.timestamp() + 1  # it is rounded down to a second
        recorded = row.get("checkpoint_size"), row.get("checkpoint_mtime_ns")
        return recorded == (str(state.st_size), str(state.st_mtime_ns)) or row["checkpoint_sha256"] == sha256(path)
    except (OSError, ValueError):  # gone, or no date: evaluating it anew will tell
        return False


def choose_cache_paths(refs: Sequence[CheckpointRef], cache_dir: Path, lesion: Lesion) -> dict[CheckpointRef, Path]:
    """Return where each checkpoint's routing cache belongs.

    The same task, trial and seed may exist under two roots (trained here, and on Modal). The first of them has the
    plain path, the other one a folder below it, `from_<root>`.

    Raises:
        UserError: two checkpoints would have the same cache nevertheless.
    """
    owners: dict[Path, str] = {}
    chosen = {}
    for ref in refs:
        if not (is_name(ref.task_id) and is_name(ref.task)):
            chosen[ref] = None  # it is not going to be evaluated
            continue
        root = Path(os.path.abspath(ref.path)).parents[2 if ref.seed is None else 3].name
        lesion_folder = f"lesion_{lesion.name}" if lesion else ""
        for folder in ("", f"from_{root}"):
            path = routing_cache_path(cache_dir, ref, os.path.join(folder, lesion_folder))
            owner = owners.get(path) or routing_cache_owner(path)
            if owner is None or os.path.abspath(owner) == os.path.abspath(ref.path) or not os.path.exists(owner):
                break
        else:
            raise UserError(
                f"{owner} and {ref.path} would share the cache {path}: give one of them another --cache_dir"
            )
        owners[path] = str(ref.path)
        chosen[ref] = path
    return chosen


# --------------------------------------------------------------------------------------------------------- doing it


def attempt(job: Job, settings: Settings, on_episodes: Callable[[int], object]) -> str | None:
    """Evaluate a checkpoint; return None, or the reason why it cannot be."""
    try:
        evaluate_checkpoint(job, settings, on_episodes)
    except UserError as error:
        return str(error).removeprefix(f"{job.ref.path}: ")
    except Exception:  # a mistake of ours, or a file damaged in a way nobody thought of: the others shall go on
        return "unexpected\n" + traceback.format_exc()
    return None


Outcomes = Generator[tuple[Job, str | None], None, None]  # a checkpoint, and why it could not be evaluated or None


def run_here(jobs: Sequence[Job], settings: Settings, on_episodes: Callable) -> Outcomes:
    """Evaluate one checkpoint after the other; yield each with the reason why it failed, or None."""
    for job in jobs:
        yield job, attempt(job, settings, on_episodes)


def _work(connection: multiprocessing.connection.Connection, settings: Settings) -> None:
    """Evaluate the jobs that come in, and report episodes (int) and outcomes (tuple), until the connection closes."""
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            connection.send((attempt(connection.recv(), settings, connection.send),))


def run_in_workers(jobs: Sequence[Job], settings: Settings, on_episodes: Callable, num_workers: int) -> Outcomes:
    """As `run_here`, in `num_workers` processes. A process that dies costs the checkpoint it had, and is replaced."""
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(jobs))
    running: dict = {}  # connection -> (process, job)

    def hand_out(connection, process) -> None:
        if not waiting:
            connection.close()
            process.join()
            return
        job = waiting.pop()
        running[connection] = process, job
        with contextlib.suppress(BrokenPipeError):  # it has died: receiving from it will say so
            connection.send(job)

    def start_worker() -> None:
        connection, far_end = context.Pipe()
        process = context.Process(target=_work, args=(far_end, settings), daemon=True)
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; children inherit this
        process.start()
        signal.signal(signal.SIGINT, previous)
        far_end.close()
        hand_out(connection, process)

    try:
        for _ in range(min(num_workers, len(jobs))):
            start_worker()
        while running:
            ready = multiprocessing.connection.wait(list(running))
            for connection in [each for each in running if each in ready]:
                process, job = running[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    del running[connection]
                    process.join()
                    yield (
                        job,
                        f"the process that evaluated it died with exit code {process.exitcode} (-9: out of memory?)",
                    )
                    if waiting:
                        start_worker()
                    continue
                if isinstance(message, int):
                    on_episodes(message)
                else:
                    del running[connection]
                    hand_out(connection, process)
                    yield job, message[0]
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def run(jobs: Sequence[Job], settings: Settings, num_workers: int) -> dict[CheckpointRef, str]:
    """Evaluate checkpoints with progress bars; return why those failed that did."""
    failures = {}
    total = sum((job.num_episodes or settings.num_episodes) * (1 + job.sampled) for job in jobs)
    with (
        tqdm(total=len(jobs), desc="checkpoints", unit="checkpoint", position=0) as checkpoints,
        tqdm(total=total, desc="episodes", unit="episode", position=1) as episodes,
    ):
        if num_workers == 1:
            outcomes = run_here(jobs, settings, episodes.update)
        else:
            outcomes = run_in_workers(jobs, settings, episodes.update, num_workers)
        with contextlib.closing(outcomes):
            for job, reason in outcomes:
                checkpoints.update()
                if reason is not None:
                    failures[job.ref] = reason
                    tqdm.write(f"failed: {job.ref.path}: {reason}", file=sys.stderr)
    return failures


# -------------------------------------------------------------------------------------------------------- telling it


def summary(refs: Sequence[CheckpointRef], rows: dict, failures: dict[CheckpointRef, str], lesion: Lesion) -> str:
    """Return a table of the selected checkpoints and what is known of them."""

    def number(row: dict[str, str], name: str, digits: int) -> str:
        try:
            return f"{float(row[name]):.{digits}f}"
        except (KeyError, ValueError):
            return row.get(name) or "-"

    width = max(48, *(len(str(ref)) for ref in refs))
    known = {ref: rows.get(key_of(ref, lesion), {}) for ref in refs}
    any_sampled = any(row.get(SAMPLED) for row in known.values())
    lines = [
        f"{'checkpoint':<{width}} {'episodes':>8} {'success':>8} {'sampled ' if any_sampled else ''}{'path ratio':>10}"
        f" {'mean LPC':>9}"
    ]
    for ref, row in known.items():
        sampled = f"{number(row, SAMPLED, 3):>7} " if any_sampled else ""
        numbers = (
            f"{row.get('num_episodes', '-'):>8} {number(row, 'success_rate', 3):>8}"
            f" {sampled}{number(row, 'path_ratio', 2):>10} {number(row, 'mean_lpc', 1):>9}"
        )
        lines.append(f"{ref!s:<{width}} {numbers}" + ("  failed" if ref in failures else ""))
    return "\n".join(lines)


def select_checkpoints(arguments) -> list[CheckpointRef]:
    """Return the checkpoints that the flags choose.

    Raises:
        UserError: there are none.
    """
    roots = arguments.checkpoint_dir or CHECKPOINT_ROOTS
    for root in arguments.checkpoint_dir or ():
        if not Path(root).is_dir():
            raise UserError(f"--checkpoint_dir {root}: no such folder")
    chosen = find_checkpoints(
        roots, arguments.task, arguments.trial, arguments.seed, arguments.update, arguments.final_only
    )
    if chosen:
        return chosen
    everything = find_checkpoints(roots)
    if not everything:
        raise UserError(f"no checkpoints under {' or '.join(map(str, roots))}: train_mop.py and train.py make them")
    near = did_you_mean(arguments.task, {ref.task_id for ref in everything}) if arguments.task else ""
    found = counted(len(everything), "checkpoint")
    raise UserError(f"none of the {found} under {' and '.join(map(str, roots))} fits.{near}")


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--task", help="only this task_id (or set of tasks), or a pattern such as 'BabyAI-GoTo*'")
    parser.add_argument(
        "--tasks",
        help="what the checkpoints play: tasks or patterns, comma-separated [what they were trained on, each of a set]",
    )
    parser.add_argument("--trial", type=natural, help="only this trial")
    parser.add_argument("--seed", type=natural, help="only this seed")
    parser.add_argument("--update", type=natural, help="only the checkpoints of this update")
    parser.add_argument("--final_only", action="store_true", help="leave out the checkpoints made along the way")
    parser.add_argument("--force", action="store_true", help="also those evaluated before, over any number of episodes")
    parser.add_argument("--skip_routing", action="store_true", help="write no routing caches")
    parser.add_argument("--workers", type=positive, default=1, metavar="K", help="processes side by side [%(default)s]")
    parser.add_argument(
        "--checkpoint_dir", nargs="+", metavar="DIR", help=f"where to look [{' '.join(CHECKPOINT_ROOTS)}]"
    )
    parser.add_argument("--results_path", default=RESULTS_PATH, metavar="CSV", help="[%(default)s]")
    parser.add_argument("--cache_dir", default=CACHE_DIR, metavar="DIR", help="routing caches [%(default)s]")
    add_evaluation_flags(parser)
    arguments = parser.parse_args()

    lesion = Lesion.parse(arguments.disable_experts, arguments.min_router_weight, arguments.own_pathway)
    tasks = None
    if arguments.tasks is not None:
        from fast_babyai.reference import named_tasks  # minigrid takes a while to import

        tasks = named_tasks(arguments.tasks)
    refs = select_checkpoints(arguments)
    results_path = Path(arguments.results_path)
    if lesion:
        results_path = lesion_results_path(results_path)
        refs = leave_baselines(refs)
    refs = on_each_task(refs, tasks)
    rows = {result_key(row): row for row in read_result_rows(results_path)}
    cache_paths = choose_cache_paths(refs, Path(arguments.cache_dir), lesion)
    if arguments.skip_routing:
        cache_paths = dict.fromkeys(refs)
    if arguments.force:
        jobs = [Job(ref, cache_paths[ref], sampled=arguments.sampled) for ref in refs]
    else:
        jobs = leave_larger(plan(refs, rows, cache_paths, lesion, arguments.num_episodes, arguments.sampled))
    num_checkpoints = len({ref.path for ref in refs})
    on = "" if len(refs) == num_checkpoints else f" on {counted(len(refs), 'task')} in all"
    print(f"{counted(num_checkpoints, 'checkpoint')}{on}, {len(jobs):,} to evaluate", flush=True)

    failures = {}
    if jobs:
        settings = Settings(
            results_path=results_path,
            num_episodes=arguments.num_episodes or NUM_EPISODES,
            num_envs=arguments.num_envs,
            backend=arguments.backend,
            lang_encoder=arguments.lang_encoder,
            lesion=lesion,
        )
        failures = run(jobs, settings, arguments.workers)
        rows = {result_key(row): row for row in read_result_rows(results_path)}
    print(summary(refs, rows, failures, lesion))
    if failures:
        print(f"\n{len(failures)} of {len(jobs)} could not be evaluated:", file=sys.stderr)
        for ref, reason in failures.items():
            print(f"  {ref.path}: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_script(main)
