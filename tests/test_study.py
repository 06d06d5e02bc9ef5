"""study.py as its users start it: a small study trained, evaluated, interrupted, gone on with."""

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from basics.config import _flag_value, load_keys
from results import paths, tables
from study import SCRIPTS, STUDIES, Run, chosen_variants, mixture, runs_of_seed, shown_times, starting_point, time_to

ROOT = Path(__file__).parent.parent
TASK = "BabyAI-GoToObj-v0"
SMALL = ["--tasks", TASK, "--seeds", "1", "--num_episodes", "12"]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """The encoder of config.yaml's choice would be downloaded where there is a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def study(folder):
    flags = ["--jobs", "1", "--budget", "640", "--folder", folder]
    command = [sys.executable, ROOT / "study.py", "levels", *SMALL, *flags]
    return subprocess.run(command, capture_output=True, text=True)


def table_rows(output):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if "| GoToObj |" in line]


def test_what_fails_is_named_the_rest_goes_on_and_nothing_is_trained_twice(tmp_path):
    blocked = tmp_path / "checkpoints" / TASK / "trial_1"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("not a folder")
    first = study(tmp_path)
    assert first.returncode == 1
    assert f"failed: {TASK}, mixture, priced, seed 0: " in first.stderr
    names = [variant.name for variant in STUDIES["levels"].variants]
    assert [row[1] for row in table_rows(first.stdout)] == [names[0], names[2]]
    finals = sorted((tmp_path / "checkpoints").rglob("checkpoint_final.pt"))
    before = [path.stat().st_mtime_ns for path in finals]

    blocked.unlink()
    second = study(tmp_path)
    assert second.returncode == 0, second.stderr
    assert [path.stat().st_mtime_ns for path in finals] == before
    rows = table_rows(second.stdout)
    assert [row[1] for row in rows] == names
    results = tables.read_results(tmp_path / "evaluation_results.csv").sort_values("trial")
    lesions = tables.read_results(tmp_path / "evaluation_results_lesions.csv").sort_values("trial")
    assert (results["num_episodes"] == 12).all()
    assert results["trial"].tolist() == [0, 1, 2] and lesions["trial"].tolist() == [0, 1]
    for row, success, lpc in zip(rows, results["success_rate"], results["mean_lpc"], strict=True):
        assert row[3].startswith(f"{100 * success:.1f} (")
        assert row[5] == ("" if math.isnan(lpc) else f"{lpc:.0f}")
    assert [row[8] for row in rows] == [*(f"{100 * success:.1f}" for success in lesions["success_rate"]), ""]
    figures = {path.stem for path in (tmp_path / "plots").rglob("*.png")}
    assert {"success_against_lpc", "learning_curves", "lpc_against_difficulty", "lesions"} <= figures


def test_interrupted_it_saves_and_goes_on_where_it_stopped(tmp_path):
    command = [
        sys.executable,
        ROOT / "study.py",
        "levels",
        *SMALL,
        "--jobs",
        "2",
        "--budget",
        "1e7",
        "--folder",
        tmp_path,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics = tmp_path / "checkpoints" / TASK / "trial_0" / "seed_0" / paths.METRICS_FILE
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    (saved,) = metrics.parent.glob("checkpoint_*.pt")
    update = int(saved.stem.removeprefix("checkpoint_"))
    keys = load_keys()
    budget = (update + 2) * keys["num_envs"].default * keys["unroll_len"].default
    assert Run(TASK, 0, 0, STUDIES["levels"].variants[0]).train(tmp_path / "checkpoints", budget, set()) == ""
    assert (metrics.parent / "checkpoint_final.pt").exists()
    assert tables.read_metrics(metrics)["update"].iloc[-1] == update + 2


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_names_keys_that_its_script_takes(name):
    for variant in STUDIES[name].variants:
        for key, value in variant.flags.items():
            own = load_keys(SCRIPTS[variant.script], variant.flags.get("objective", "imitation"))
            own[key].check(_flag_value(own[key], value))


def test_networks_learn_all_levels_at_once_and_baselines_one_each():
    study = STUDIES["pathways"]
    tasks = [f"BabyAI-{level}-v0" for level in study.levels]
    runs = runs_of_seed(study, chosen_variants(study, None), tasks, seed=3)
    alone, together = [run for run in runs if not run.levels], [run for run in runs if run.levels]
    assert [run.task_id for run in alone] == tasks and {run.variant.script for run in alone} == {"train.py"}
    assert {run.levels for run in together} == {tuple(tasks)} and {run.task_id for run in together} == {"pathways"}
    assert sorted({run.trial for run in runs}) == list(range(len(study.variants))) and {run.seed for run in runs} == {3}
    chosen = chosen_variants(study, ["all three", "no price"])
    assert [variant.name for variant in chosen.values()] == ["no price", "all three"]
    levels = STUDIES["levels"]
    runs = runs_of_seed(levels, chosen_variants(levels, None), tasks[:2], 0)
    assert [(run.task_id, run.trial, run.levels) for run in runs] == [(t, v, ()) for t in tasks[:2] for v in range(3)]


def test_a_network_of_many_levels_is_kept_at_the_ends_of_its_quarters(tmp_path):
    """Thirteen updates: a fourth checkpoint along the way would be the final one but for an update."""
    levels = (TASK, "BabyAI-GoToRedBallGrey-v0")
    run = Run("pair", 1, 0, mixture("small", num_envs=2, unroll_len=5), levels)
    assert run.train(tmp_path, 130, set()) == ""
    names = {path.name for path in paths.run_dir(tmp_path, "pair", 1, 0).glob("*.pt")}
    assert names == {f"checkpoint_{name}.pt" for name in (4, 8, 12, "final")}


def test_reward_after_begins_with_the_same_seed_and_what_is_published_is_seed_0():
    published = Path(paths.PUBLISHED)
    first = starting_point(published, "BabyAI-BossLevel-v0", 0)
    assert first == published / "BabyAI-BossLevel-v0" / "trial_0" / "checkpoint_final.pt"
    assert starting_point(published, "BabyAI-BossLevel-v0", 1).parent.name == "seed_1"


def test_of_a_study_of_its_own_every_seed_has_its_start(tmp_path):
    (tmp_path / TASK / "trial_0" / "seed_0").mkdir(parents=True)
    assert [starting_point(tmp_path, TASK, seed).parent.name for seed in (0, 1)] == ["seed_0", "seed_1"]


def test_how_soon_a_share_of_episodes_is_solved(tmp_path):
    rows = [{"update": 1, "env_steps": 1000, "success_rate": 0.5, "episodes": 70}]
    rows += [{"update": 2, "env_steps": 2000, "success_rate": 0.96, "episodes": 30}]
    rows += [{"update": 3, "env_steps": 3000, "success_rate": 0.9, "episodes": 40}]
    tables.write_metrics(tmp_path / paths.METRICS_FILE, rows)
    checkpoint = str(tmp_path / "checkpoint_final.pt")
    assert time_to(checkpoint, 0.95) == (2000, 100) and time_to(checkpoint, 0.99) is None
    assert (
        shown_times([checkpoint, checkpoint], 0.95) == "0.00 M, 0 k; 0.00 M, 0 k"
        and shown_times([checkpoint], 1) == "-"
    )


def test_no_two_variants_have_a_name_in_common():
    for study in STUDIES.values():
        assert len({variant.name for variant in study.variants}) == len(study.variants)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--tasks", TASK, "BabyAI-GoToObject-v0"], "BabyAI-GoToObj-v0"),
        (["--budget", "nan"], "--budget nan"),
        (["--budget", "inf"], "--budget inf"),
        (["--budget", "0"], "--budget 0"),
        (["--seeds", "0"], "whole number >= 1"),
        (["--init_from", "study"], "takes no --init_from"),
        (["--task", TASK], "'--tasks'"),
        (["--forms", "mixture, freed"], "Did you mean 'mixture, free'"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_launched(tmp_path, flags, problem):
    command = [sys.executable, ROOT / "study.py", "levels", "--folder", tmp_path / "study", *flags]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2 and problem in process.stderr and process.stderr.count("\n") == 1, process.stderr
    assert process.stdout == "" and not (tmp_path / "study").exists()
