"""The study of docs/study.md: trains many runs side by side, evaluates them, and prints the table.

    python study.py levels --budget 2e6 --seeds 2      # 21 levels: mixture without and with a price, and the baseline
    python study.py settings --budget 5e5 --seeds 3    # three levels: one setting of config.yaml changed at a time
    python study.py price --budget 1e6 --seeds 2       # three levels: what a price on experts or dropping some changes
    python study.py levels --tasks BabyAI-GoTo-v0 BabyAI-Open-v0 --budget 5e6 --seeds 1
    python study.py pathways --budget 5e6 --seeds 10   # twelve levels in one network: do pathways form?
    python study.py reward --budget 2e7 --seeds 3      # four levels from reward alone: how soon 95 and 99 % succeed
    python study.py reward_after --init_from study/levels/checkpoints       # what reward changes after imitation

It is a loop over train_mop.py and train.py, then batch_eval.py, cross_task_viz.py and, for networks of many tasks,
pathways.py; all it makes lies under --folder.
Interrupted, the same command goes on where it stopped: finished runs are passed over, unfinished ones resumed.
"""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from basics.config import OBJECTIVES, POLICIES, Parser, load_keys
from basics.errors import PARENT, UserError, did_you_mean, run_script
from results import paths, routing_caches, tables
from results.eval_options import positive
from results.paths import short_task
from results.statistics import seed_agreement, wilson_interval

HERE = Path(__file__).parent
SCRIPTS = {script: policy for policy, script in POLICIES.items()}  # what each trains
LEVELS = [
    "GoToObj", "GoToRedBallGrey", "GoToRedBall", "GoToLocal", "PutNextLocal", "PickupLoc", "GoToObjMaze", "GoTo",
    "Pickup", "UnblockPickup", "Open", "Unlock", "PutNextS7N4", "Synth", "SynthLoc", "GoToSeq", "SynthSeq",
    "GoToImpUnlock", "BossLevel", "UnlockPickup", "OpenTwoDoors",
]  # fmt: skip
TWELVE_LEVELS = [  # from one room and one look to all there is
    "GoToObj", "GoToRedBall", "GoToLocal", "PickupLoc", "PutNextLocal", "OpenTwoDoors", "UnlockPickup", "GoToObjMaze",
    "GoTo", "Open", "GoToSeq", "BossLevel",
]  # fmt: skip
THREE_LEVELS = ["GoToLocal", "PutNextLocal", "GoToObjMaze"]  # which object; two, in order; doors and what lay behind


class Variant(NamedTuple):
    """One way to train: a script and what it is told besides the defaults of config.yaml."""

    name: str
    script: str
    flags: Mapping[str, str]


def mixture(name: str, **flags) -> Variant:
    return Variant(name, "train_mop.py", {key: str(value) for key, value in flags.items()})


def setting(name: str, **flags) -> Variant:
    """Return a mixture that differs in `flags` from the study of settings' reference, which config.yaml once was."""
    reference = {"num_envs": 16, "lr": 3e-3, "train_lang_proj": "true", "bot_share": 0.5, "normalize_layers": "false"}
    reference |= {"lang_fusion": "attention", "lang_encoder": "distilbert-base-uncased", "repetition_penalty": 0}
    return mixture(name, **(reference | flags))


# The first networks of many levels were trained before there were these; those that follow are to be like them.
FIRST_SEEDS = {"match_keys": "false", "repetition_penalty": "0"}


def of_many(name: str, **flags) -> Variant:
    """Return a mixture that learns many levels at once, in enough environments for several of each, as the first seeds
    did (`FIRST_SEEDS`)."""
    return mixture(name, num_envs=128, **FIRST_SEEDS, **flags)


AFTER_IMITATION = {  # reward for a policy that can do something already, and has no value head yet
    "objective": "ppo", "num_envs": 128, "value_warmup": 60, "gamma": 0.997, "entropy_coef": 0, "lr": 1e-4,
}  # fmt: skip


class Study(NamedTuple):
    """What is trained: every variant on every level. A variant's place is its trial number: append, never insert.

    Attributes:
        pathways: whether routing is recorded, and success without the largest experts measured.
        together: the name of the set of levels that one mixture learns at once; baselines still learn one each. Empty:
            every variant learns one level at a time.
        after: whether runs begin with the weights that another study has trained.
    """

    levels: list[str]
    variants: list[Variant]
    pathways: bool
    together: str = ""
    after: bool = False


STUDIES = {
    "levels": Study(
        LEVELS,
        [
            mixture("mixture, free", lpc_alpha=0),
            mixture("mixture, priced", lpc_alpha=1e-5),
            Variant("GRU", "train.py", {}),
        ],
        pathways=True,
    ),
    "settings": Study(
        THREE_LEVELS,
        [
            setting("reference"),
            setting("student alone", bot_share=0),
            setting("bot_share 0.25", bot_share=0.25),
            setting("bot_share 0.75", bot_share=0.75),
            setting("concat", lang_fusion="concat"),
            setting("film", lang_fusion="film"),
            setting("raw", obs_encoding="raw"),
            setting("lang_proj fixed", train_lang_proj="false"),
            setting("8 envs", num_envs=8),
            setting("64 envs", num_envs=64),
            setting("unroll 10", unroll_len=10),
            setting("unroll 40", unroll_len=40),
            setting("lr 1e-3", lr=1e-3),
            setting("lr 1e-2", lr=1e-2),
            setting("constant lr", lr_schedule="constant"),
            setting("no clipping", max_grad_norm="null"),
            setting("routers at lr", router_lr_factor=1),
            setting("lang_proj fixed, lr 1e-2", train_lang_proj="false", lr=1e-2),
            setting("lang_proj fixed, 64 envs, lr 1e-2", train_lang_proj="false", num_envs=64, lr=1e-2),
        ],
        pathways=False,
    ),
    "price": Study(
        THREE_LEVELS,
        [
            mixture("free", lpc_alpha=0),
            mixture("1e-6", lpc_alpha=1e-6),
            mixture("1e-5", lpc_alpha=1e-5),
            mixture("1e-4", lpc_alpha=1e-4),
            mixture("1e-6, normalised", lpc_alpha=1e-6, normalize_lpc="detached"),
            mixture("1e-5, normalised", lpc_alpha=1e-5, normalize_lpc="detached"),
            mixture("1e-5, experts dropped", lpc_alpha=1e-5, expert_dropout=0.5),
        ],
        pathways=True,
    ),
    "reward": Study(
        ["GoToObj", "GoToRedBall", "GoToLocal", "PutNextLocal"],
        [  # rows of metrics every 25,600 env-steps, for how soon something is reached
            mixture("mixture", objective="ppo", log_interval=10),
            Variant("GRU", "train.py", {"objective": "ppo", "log_interval": "10"}),
        ],
        pathways=True,
    ),
    "reward_after": Study(
        ["GoTo", "Synth", "GoToSeq", "BossLevel"],
        [
            mixture("reward", **AFTER_IMITATION),
            mixture("reward and imitation", **AFTER_IMITATION, imitation_weight=0.1),
            mixture("more imitation"),
        ],
        pathways=True,
        after=True,
    ),
    "pathways": Study(
        TWELVE_LEVELS,
        [
            Variant("GRU alone", "train.py", {"log_interval": "5", **FIRST_SEEDS}),  # how hard a level is
            of_many("no price", lpc_alpha=0),
            of_many("price", lpc_alpha=1e-5),
            of_many("price scaled by loss", lpc_alpha=1e-5, normalize_lpc="detached"),
            of_many("price scaled by loss (attached)", lpc_alpha=1e-5, normalize_lpc="attached"),
            of_many("all three", lpc_alpha=1e-5, normalize_lpc="attached", expert_dropout=0.8),
        ],
        pathways=True,
        together="pathways",
    ),
}
ALONG = 4  # parts of a run of many levels, at whose ends checkpoints are kept and evaluated
THRESHOLDS = (0.1, 0.2)  # below which experts are switched off, to see whether pathways stand alone


class Run(NamedTuple):
    """One training run of a study.

    Attributes:
        task_id: the level, or the name of a set of levels.
        levels: of the set.
    """

    task_id: str
    trial: int
    seed: int
    variant: Variant
    levels: tuple[str, ...] = ()
    init_from: Path | None = None

    def __str__(self) -> str:
        return f"{self.task_id}, {self.variant.name}, seed {self.seed}"

    def train(self, checkpoint_dir: Path, budget: float, running: set[subprocess.Popen]) -> str:
        """Train, resume, or see that it is done; return what went wrong, if something did.

        Args:
            running: where to note the process while it runs.
        """
        folder = paths.run_dir(checkpoint_dir, self.task_id, self.trial, self.seed)
        if (folder / "checkpoint_final.pt").exists():
            return ""
        keys = load_keys(SCRIPTS[self.variant.script], self.variant.flags.get("objective", OBJECTIVES[0]))
        shape = [int(self.variant.flags.get(name, keys[name].default)) for name in ("num_envs", "unroll_len")]
        num_updates = max(1, round(budget / (shape[0] * shape[1])))
        flags = dict(self.variant.flags) | {
            "task_id": self.task_id,
            "trial": self.trial,
            "seed": self.seed,
            "num_updates": num_updates,
            "checkpoint_dir": checkpoint_dir,
        }
        if self.levels:
            flags |= {"tasks": json.dumps(self.levels), "checkpoint_interval": math.ceil(num_updates / ALONG)}
        if self.init_from is not None:
            flags["init_from"] = self.init_from
        command = [sys.executable, HERE / self.variant.script]
        command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        if any(folder.glob("checkpoint_*.pt")):
            command.append("--resume")
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=child_environment()
        )
        running.add(process)
        _, errors = process.communicate()
        running.discard(process)
        return "" if process.returncode == 0 else (errors.strip().splitlines() or [f"status {process.returncode}"])[-1]


def starting_point(checkpoint_dir: Path, task_id: str, seed: int) -> Path:
    """Return the checkpoint that a run of a study `after` begins with: trial 0 there, of the same seed; seed 0 has no
    folder of its own where a single run was trained."""
    of_seed = paths.run_dir(checkpoint_dir, task_id, 0, seed)
    return (of_seed if seed or of_seed.exists() else paths.run_dir(checkpoint_dir, task_id, 0)) / "checkpoint_final.pt"


def child_environment() -> dict[str, str]:
    """Return the environment of a script that is to end, and save what it has, when this process is gone."""
    return os.environ | {PARENT: str(os.getpid())}


def train_all(runs: list[Run], checkpoint_dir: Path, budget: float, jobs: int, alone: float = math.inf) -> list[str]:
    """Train `runs`, `jobs` at a time; return what went wrong.

    Args:
        alone: where networks learn many levels, the budget of a baseline on one of them.
    """

    def budget_of(run: Run) -> float:
        return budget if run.levels else min(budget, alone)

    failures, running = [], set()
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(runs), unit="run", dynamic_ncols=True) as progress:
        waiting = {pool.submit(run.train, checkpoint_dir, budget_of(run), running): run for run in runs}
        try:
            for future in as_completed(waiting):
                if problem := future.result():
                    failures.append(f"{waiting[future]}: {problem}")
                    progress.write(failures[-1])
                progress.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()  # it saves first
            raise
    return failures


def largest_experts() -> str:
    """Return each layer's largest expert, of config.yaml's mixture, as `--disable_experts` takes them."""
    layers = load_keys("mixture")["expert_hidden_sizes"].default
    return ",".join(f"{layer}:{sizes.index(max(sizes))}" for layer, sizes in enumerate(layers))


def evaluate_all(study: Study, folder: Path, num_episodes: int, jobs: int) -> bool:
    """Evaluate what is trained and not yet evaluated, save figures, and return whether all went well."""
    results = ["--results_path", folder / "evaluation_results.csv"]
    batch_eval = [sys.executable, HERE / "batch_eval.py", "--checkpoint_dir", folder / "checkpoints", *results]
    batch_eval += ["--num_episodes", str(num_episodes), "--workers", str(jobs)]
    whole = ["--cache_dir", folder / "evaluation_cache"] if study.pathways else ["--skip_routing"]
    drawn = ["--sampled"] if learns_from_reward(study) else []
    commands = [[*batch_eval, "--final_only", *whole, *drawn]]
    if study.pathways:
        mixtures = [trial for trial, variant in enumerate(study.variants) if variant.script == "train_mop.py"]
        lesion = ["--final_only", "--skip_routing", "--disable_experts", largest_experts()]
        commands += [[*batch_eval, *lesion, "--trial", str(trial)] for trial in mixtures]
    if study.together:
        along = ["--skip_routing", "--task", study.together]
        for flag, threshold in itertools.product(("--min_router_weight", "--own_pathway"), THRESHOLDS):
            commands.append([*batch_eval, "--final_only", *along, flag, str(threshold)])
        refs = paths.find_checkpoints(folder / "checkpoints", study.together)
        updates = sorted({ref.update for ref in refs if ref.update is not None})
        commands += [[*batch_eval, *along, "--update", str(update)] for update in updates]
        commands += [[sys.executable, HERE / "pathways.py", *results, "--plots_dir", folder / "plots"]]
    else:
        commands += [[sys.executable, HERE / "cross_task_viz.py", *results, "--plots_dir", folder / "plots"]]
    statuses = []
    for command in commands:
        shown = None if command[1].name == "pathways.py" else subprocess.DEVNULL
        statuses.append(subprocess.run(command, stdout=shown, env=child_environment()).returncode)
    return not any(statuses)


def learns_from_reward(study: Study) -> bool:
    """Return whether a variant does: such a policy may need its actions drawn, as it learned to act."""
    return any(variant.flags.get("objective") == "ppo" for variant in study.variants)


def table(study: Study, folder: Path) -> str:
    """Return the results as a Markdown table, one row per level and variant, all numbers means over seeds.

    Success: with the 95 % Wilson interval of one evaluation's levels and, after it, the range over seeds. Minutes: of
    training.
    """

    results_path = folder / "evaluation_results.csv"
    results = tables.read_results(results_path).sort_values(["task_id", "trial", "seed"])
    results = results[[Path(path).exists() for path in results["checkpoint_path"]]]  # others are to be trained again
    lesions_path = paths.lesion_results_path(results_path)
    lesions = tables.read_results(lesions_path).set_index("checkpoint_path") if lesions_path.exists() else None
    order = {f"BabyAI-{level}-v0": place for place, level in enumerate(LEVELS)}
    rows = []
    for _, runs in results.groupby(["task_id", "trial"]):
        task_id, trial = runs["task_id"].iloc[0], int(runs["trial"].iloc[0])
        success = runs["success_rate"]
        low, high = wilson_interval(success.mean(), runs["num_episodes"].astype(float).min())
        steps, minutes = zip(*map(training_cost, runs["checkpoint_path"]), strict=True)
        row = {
            "level": short_task(task_id),
            "policy": study.variants[trial].name,
            "seeds": str(len(runs)),
            "success, %": f"{percent(success.mean())} ({percent(low)}-{percent(high)};"
            f" {percent(success.min())}-{percent(success.max())})",
            **({"drawn, %": percent(runs["success_rate_sampled"].mean())} if learns_from_reward(study) else {}),
            "path ratio": shown(runs["path_ratio"].mean(), ".2f"),
            "LPC": shown(runs["mean_lpc"].mean(), ".0f"),
            "env-steps": f"{sum(steps) / len(steps) / 1e6:.2f} M",
            "minutes": f"{sum(minutes) / len(minutes):.1f}",
        }
        if study.variants[trial].flags.get("objective") == "ppo" and not study.after:
            row |= {f"to {share:.0%}": shown_times(runs["checkpoint_path"], share) for share in (0.95, 0.99)}
        if study.pathways:
            caches = [path for path in runs["routing_cache"].dropna() if Path(path).exists()]
            without = (
                lesions["success_rate"].reindex(runs["checkpoint_path"]).mean() if lesions is not None else math.nan
            )
            row["without the largest, %"] = shown(100 * without, ".1f")
            row["seeds agree"] = shown(agreement(caches), ".2f")
        rows.append((order.get(task_id, len(order)), task_id, trial, row))
    rows = [row for *_, row in sorted(rows, key=lambda item: item[:3])]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def shown(number: float, form: str) -> str:
    return "" if math.isnan(number) else format(number, form)


def training_cost(checkpoint_path: str) -> tuple[float, float]:
    """Return the env-steps and the minutes that training took, by the metrics.csv beside a checkpoint."""
    metrics = tables.read_metrics(Path(checkpoint_path).parent / paths.METRICS_FILE)
    steps = metrics["env_steps"]
    return steps.iloc[-1], (steps.diff().fillna(steps) / metrics["steps_per_second"]).sum() / 60


def time_to(checkpoint_path: str, share: float) -> tuple[float, float] | None:
    """Return after how many env-steps and episodes, by the metrics.csv beside a checkpoint, that share of a row's
    episodes was first solved while learning; None: never."""
    metrics = tables.read_metrics(Path(checkpoint_path).parent / paths.METRICS_FILE)
    solved = (metrics["success_rate"] >= share).to_numpy()
    if not solved.any():
        return None
    first = int(solved.argmax())
    return metrics["env_steps"].iloc[first], metrics["episodes"].iloc[: first + 1].sum()


def shown_times(checkpoint_paths: Iterable[str], share: float) -> str:
    """Return `time_to` of several runs: env-steps in millions and thousands of episodes, `-` for never."""
    times = [time_to(path, share) for path in checkpoint_paths]
    return "; ".join("-" if time is None else f"{time[0] / 1e6:.2f} M, {time[1] / 1e3:.0f} k" for time in times)


def agreement(caches: list[str]) -> float:
    """Return how far seeds find the same levels expensive: the mean of `seed_agreement` over their pairs, or NaN."""

    data = [routing_caches.read_routing_cache(path)["routing_data"] for path in caches]
    pairs = [seed_agreement(first, second) for first, second in itertools.combinations(data, 2)]
    return sum(pairs) / len(pairs) if pairs else math.nan


def chosen_variants(study: Study, names: list[str] | None) -> dict[int, Variant]:
    """Return by trial number the variants of these names, all of them where none are given.

    Raises:
        UserError: the study has no such variant.
    """
    known = [variant.name for variant in study.variants]
    for name in names or ():
        if name not in known:
            raise UserError(
                f"--forms {name}: no such variant.{did_you_mean(name, known)} There are: {', '.join(known)}"
            )
    return {trial: variant for trial, variant in enumerate(study.variants) if names is None or variant.name in names}


def runs_of_seed(
    study: Study, variants: Mapping[int, Variant], tasks: list[str], seed: int, init_from: Path | None = None
) -> list[Run]:
    """Return the runs of one seed: a first answer for all before a second for any."""
    if not study.together:
        starts = {task_id: init_from and starting_point(init_from, task_id, seed) for task_id in tasks}
        return [
            Run(task_id, trial, seed, variant, init_from=starts[task_id])
            for task_id in tasks
            for trial, variant in variants.items()
        ]
    runs = []
    for trial, variant in variants.items():
        if variant.script == "train_mop.py":
            runs.append(Run(study.together, trial, seed, variant, tuple(tasks)))
        else:
            runs += [Run(task_id, trial, seed, variant) for task_id in tasks]
    return runs


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--budget", type=float, default=2e6, help="env-steps per run [%(default)g]")
    parser.add_argument("--seeds", type=positive, default=2, help="runs of each kind [%(default)s]")
    parser.add_argument("--num_episodes", type=positive, default=512, help="levels per evaluation [%(default)s]")
    parser.add_argument("--tasks", nargs="+", help="other levels than the study's own")
    parser.add_argument("--forms", nargs="+", metavar="NAME", help="only these variants, by their names")
    parser.add_argument(
        "--alone", type=float, default=5e5, help="of `pathways`: env-steps of a baseline on one level [%(default)g]"
    )
    parser.add_argument(
        "--init_from", type=Path, metavar="DIR", help="of a reward_after study: where mixtures were trained"
    )
    parser.add_argument(
        "--jobs", "--workers", type=positive, default=os.cpu_count(), help="runs side by side [%(default)s]"
    )
    parser.add_argument("--folder", type=Path, help="where it all goes [study/<study>]")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it in the background
    if not 1 <= arguments.budget < 1e15:
        raise UserError(f"--budget {arguments.budget}: expected a number of env-steps such as 2e6")
    if arguments.tasks is not None:
        from fast_babyai.reference import check_task

        for task_id in arguments.tasks:
            check_task(task_id)

    study = STUDIES[arguments.study]
    if study.after != (arguments.init_from is not None):
        raise UserError(f"{arguments.study} {'needs' if study.after else 'takes no'} --init_from")
    tasks = arguments.tasks or [f"BabyAI-{level}-v0" for level in study.levels]
    folder = arguments.folder or Path("study") / arguments.study
    chosen = chosen_variants(study, arguments.forms)
    seeds = range(arguments.seeds)
    runs = [run for seed in seeds for run in runs_of_seed(study, chosen, tasks, seed, arguments.init_from)]
    alone = arguments.alone if study.together else math.inf
    began = time.monotonic()
    print(
        f"{len(runs)} runs of {arguments.budget:,.0f} env-steps, {arguments.jobs} side by side, into {folder}",
        flush=True,
    )
    failures = train_all(runs, folder / "checkpoints", arguments.budget, arguments.jobs, alone)
    print(f"trained in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    evaluated = evaluate_all(study, folder, arguments.num_episodes, arguments.jobs)
    if not study.together:
        print(table(study, folder))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 0 if evaluated and not failures else 1


if __name__ == "__main__":
    run_script(main)
