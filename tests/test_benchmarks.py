"""The benchmarks run: no test says how fast anything is, but what cannot be measured any more is found."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def throughput(*arguments):
    command = [sys.executable, ROOT / "benchmarks" / "throughput.py", "--rounds", "1", "--seconds", "0.01", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_every_part_of_a_table_is_measured():
    parts = ["training", "forms", "reward", "definition", "evaluation", "env"]  # levels play each of 2,048 once: slow
    finished = throughput("--tasks", "BabyAI-GoToObj-v0", "--parts", *parts)
    assert finished.returncode == 0, finished.stderr
    rows = [line for line in finished.stdout.splitlines() if line.startswith("BabyAI-GoToObj-v0")]
    assert len(rows) == 2 + 6 + 1 + 1 + 1 + 1  # two sizes of training, six forms
    for row in rows:
        assert len(re.findall(r"\d[\d,.]*x|\d[\d,.]+", row)) >= 2 and "nan" not in row, row


def test_mistakes_end_with_status_2():
    no_task = ("--tasks", "BabyAI-Nowhere-v0", "--parts", "training")
    for wrong, named in ((("--parts", "nothing"), "invalid choice"), (no_task, "unknown task")):
        finished = throughput(*wrong)
        assert finished.returncode == 2 and named in finished.stderr and "Traceback" not in finished.stderr
