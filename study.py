"""The study of docs/study.md: trains many runs side by side, evaluates them, and prints the table.

    python study.py levels --budget 2e6 --seeds 2      # 21 levels: mixture without and with a price, and the baseline
    python study.py settings --budget 1e6 --seeds 3    # three levels: one setting of config.yaml changed at a time
    python study.py levels --tasks BabyAI-GoTo-v0 BabyAI-Open-v0 --budget 5e6 --seeds 1

It is a loop over train_mop.py and train.py, then batch_eval.py; all it makes lies under --folder. Interrupted, the same
command goes on where it stopped: finished runs are passed over, unfinished ones resumed.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import artifacts
from cli import UserError, run_script
from config import load_keys
from plotting.cross_task import wilson_interval

HERE = Path(__file__).parent
EPISODES = 512
LEVELS = [
    "GoToObj", "GoToRedBallGrey", "GoToRedBall", "GoToLocal", "PutNextLocal", "PickupLoc", "GoToObjMaze", "GoTo",
    "Pickup", "UnblockPickup", "Open", "Unlock", "PutNextS7N4", "Synth", "SynthLoc", "GoToSeq", "SynthSeq",
    "GoToImpUnlock", "BossLevel", "UnlockPickup", "OpenTwoDoors",
]  # fmt: skip
SETTINGS_LEVELS = ["GoToLocal", "PickupLoc", "UnlockPickup"]  # which object; where it lies; several steps with a key


class Variant(NamedTuple):
    """One way to train: a script and what it is told besides the defaults of config.yaml."""

    name: str
    script: str
    flags: Mapping[str, str]


def mixture(name: str, **flags) -> Variant:
    return Variant(name, "train_mop.py", {key: str(value) for key, value in flags.items()})


# The place of a variant in its list is the number of its trial: append, never insert.
STUDIES = {
    "levels": [
        mixture("mixture, free", lpc_alpha=0),
        mixture("mixture, priced", lpc_alpha=1e-5),
        Variant("GRU", "train.py", {}),
    ],
    "settings": [
        mixture("defaults"),
        mixture("concat", lang_fusion="concat"),
        mixture("film", lang_fusion="film"),
        mixture("raw", obs_encoding="raw"),
        mixture("lang_proj fixed", train_lang_proj="false"),
        mixture("8 envs", num_envs=8),
        mixture("64 envs", num_envs=64),
        mixture("unroll 10", unroll_len=10),
        mixture("unroll 40", unroll_len=40),
        mixture("lr 3e-4", lr=3e-4),
        mixture("lr 3e-3", lr=3e-3),
        mixture("constant lr", lr_schedule="constant"),
        mixture("no clipping", max_grad_norm="null"),
        mixture("routers at lr", router_lr_factor=1),
    ],
}


class Run(NamedTuple):
    """One training run of a study."""

    task_id: str
    trial: int
    seed: int
    variant: Variant

    def __str__(self) -> str:
        return f"{self.task_id}, {self.variant.name}, seed {self.seed}"

    def train(self, checkpoint_dir: Path, budget: float, running: set[subprocess.Popen]) -> str:
        """Train, resume, or see that it is done; return what went wrong, if something did.

        Args:
            running: where to note the process while it runs.
        """
        folder = artifacts.run_dir(checkpoint_dir, self.task_id, self.trial, self.seed)
        if (folder / "checkpoint_final.pt").exists():
            return ""
        keys = load_keys()
        shape = [int(self.variant.flags.get(name, keys[name].default)) for name in ("num_envs", "unroll_len")]
        flags = dict(self.variant.flags) | {
            "task_id": self.task_id,
            "trial": self.trial,
            "seed": self.seed,
            "num_updates": max(1, round(budget / (shape[0] * shape[1]))),
            "checkpoint_dir": checkpoint_dir,
        }
        command = [sys.executable, HERE / self.variant.script]
        command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        if any(folder.glob("checkpoint_*.pt")):
            command.append("--resume")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        running.add(process)
        _, errors = process.communicate()
        running.discard(process)
        return "" if process.returncode == 0 else (errors.strip().splitlines() or [f"status {process.returncode}"])[-1]


def train_all(runs: list[Run], checkpoint_dir: Path, budget: float, jobs: int) -> list[str]:
    """Train `runs`, `jobs` at a time; return what went wrong."""
    failures, running = [], set()
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(runs), unit="run", dynamic_ncols=True) as progress:
        waiting = {pool.submit(run.train, checkpoint_dir, budget, running): run for run in runs}
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


def table(results_path: Path, checkpoint_dir: Path, variants: list[Variant]) -> str:
    """Return the results as a Markdown table, one row per level and variant.

    Success is the mean over seeds with the 95 % Wilson interval of EPISODES levels, and the range over seeds.
    """
    results = artifacts.read_results(results_path).sort_values(["task_id", "trial", "seed"])
    lines = [
        "| level | policy | seeds | success, % (95 % interval; range) | path ratio | LPC | env-steps | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (task_id, trial), group in results.groupby(["task_id", "trial"], sort=False):
        mean = group["success_rate"].mean()
        low, high = wilson_interval(mean, EPISODES)
        success = f"{100 * mean:.1f} ({100 * low:.1f}-{100 * high:.1f}"
        success += f"; {100 * group['success_rate'].min():.1f}-{100 * group['success_rate'].max():.1f})"
        steps, minutes = [], []
        for seed in group["seed"]:
            metrics = artifacts.read_metrics(
                artifacts.run_dir(checkpoint_dir, task_id, int(trial), int(seed)) / artifacts.METRICS_FILE
            )
            steps.append(metrics["env_steps"].iloc[-1])
            minutes.append(
                (metrics["env_steps"].diff().fillna(metrics["env_steps"]) / metrics["steps_per_second"]).sum() / 60
            )
        lines.append(
            f"| {task_id.removeprefix('BabyAI-').removesuffix('-v0')} | {variants[int(trial)].name} | {len(group)}"
            f" | {success} | {group['path_ratio'].mean():.2f} | {group['mean_lpc'].mean():.0f}"
            f" | {sum(steps) / len(steps) / 1e6:.1f} M | {sum(minutes) / len(minutes):.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--budget", type=float, default=2e6, help="env-steps per run [%(default)g]")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each kind [%(default)s]")
    parser.add_argument("--tasks", nargs="+", help="other levels than the study's own")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side [%(default)s]")
    parser.add_argument("--folder", type=Path, help="where it all goes [study/<study>]")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it in the background
    if min(arguments.budget, arguments.seeds, arguments.jobs) < 1:
        raise UserError("--budget, --seeds and --jobs must be at least 1")

    levels = SETTINGS_LEVELS if arguments.study == "settings" else LEVELS
    tasks = arguments.tasks or [f"BabyAI-{level}-v0" for level in levels]
    variants = STUDIES[arguments.study]
    folder = arguments.folder or Path("study") / arguments.study
    checkpoint_dir, results_path = folder / "checkpoints", folder / "evaluation_results.csv"
    runs = [
        Run(task_id, trial, seed, variant)
        for seed in range(arguments.seeds)  # a first answer for all before a second for any
        for task_id in tasks
        for trial, variant in enumerate(variants)
    ]
    began = time.monotonic()
    print(
        f"{len(runs)} runs of {arguments.budget:,.0f} env-steps, {arguments.jobs} side by side, into {folder}",
        flush=True,
    )
    failures = train_all(runs, checkpoint_dir, arguments.budget, arguments.jobs)
    print(f"trained in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    command = [
        sys.executable,
        HERE / "batch_eval.py",
        "--final_only",
        "--skip_routing",
        "--num_episodes",
        str(EPISODES),
    ]
    command += ["--checkpoint_dir", checkpoint_dir, "--results_path", results_path, "--workers", str(arguments.jobs)]
    status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    print(table(results_path, checkpoint_dir, variants))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures or status else 0


if __name__ == "__main__":
    run_script(main)
