"""study.py as its users start it: a small study trained, evaluated, interrupted, gone on with."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import artifacts
from config import _flag_value, load_keys
from study import SETTINGS_LEVELS, STUDIES, mixture

ROOT = Path(__file__).parent.parent
TASK = "BabyAI-GoToObj-v0"
SMALL = ["--tasks", TASK, "--seeds", "1", "--jobs", "2"]


def study(folder, *arguments, budget="640"):
    command = [sys.executable, ROOT / "study.py", *arguments, *SMALL, "--budget", budget, "--folder", folder]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_study_is_trained_evaluated_and_not_trained_twice(tmp_path):
    first = study(tmp_path, "levels")
    assert first.returncode == 0, first.stderr
    rows = [line for line in first.stdout.splitlines() if line.startswith("| GoToObj |")]
    assert [row.split(" | ")[1] for row in rows] == [variant.name for variant in STUDIES["levels"]]
    results = artifacts.read_results(tmp_path / "evaluation_results.csv")
    assert sorted(results["trial"]) == [0, 1, 2]
    for (_, result), row in zip(results.sort_values("trial").iterrows(), rows, strict=True):
        assert f"| {100 * result['success_rate']:.1f} (" in row

    finals = sorted((tmp_path / "checkpoints").rglob("checkpoint_final.pt"))
    before = [path.stat().st_mtime_ns for path in finals]
    second = study(tmp_path, "levels")
    assert second.returncode == 0, second.stderr
    assert [path.stat().st_mtime_ns for path in finals] == before
    assert rows == [line for line in second.stdout.splitlines() if line.startswith("| GoToObj |")]


def test_interrupted_it_saves_and_goes_on_where_it_stopped(tmp_path):
    command = [sys.executable, ROOT / "study.py", "levels", *SMALL, "--budget", "1e7", "--folder", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics = tmp_path / "checkpoints" / TASK / "trial_0" / "seed_0" / artifacts.METRICS_FILE
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    (saved,) = metrics.parent.glob("checkpoint_*.pt")
    update = int(saved.stem.removeprefix("checkpoint_"))
    reached = update * 16 * 20
    assert study(tmp_path, "levels", budget=str(reached + 640)).returncode == 0
    assert (metrics.parent / "checkpoint_final.pt").exists()
    assert artifacts.read_metrics(metrics)["update"].iloc[-1] == update + 2


def test_what_fails_is_named_and_the_rest_goes_on(tmp_path):
    blocked = tmp_path / "checkpoints" / TASK / "trial_1"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("not a folder")
    result = study(tmp_path, "levels")
    assert result.returncode == 1
    assert f"failed: {TASK}, mixture, priced, seed 0: " in result.stderr
    assert len(artifacts.read_results(tmp_path / "evaluation_results.csv")) == 2


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_names_keys_that_its_script_takes(name):
    for variant in STUDIES[name]:
        for key, value in variant.flags.items():
            _flag_value(load_keys()[key], value)


def test_no_two_variants_have_a_name_in_common():
    for variants in STUDIES.values():
        assert len({variant.name for variant in variants}) == len(variants)
    assert mixture("x", lpc_alpha=0).flags == {"lpc_alpha": "0"}
    assert len(set(SETTINGS_LEVELS)) == 3
