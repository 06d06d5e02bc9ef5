"""The checkpoints that come with the program: small, readable, and worth the rows that stand beside them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from untrained import save

from eval_mop import evaluate
from policy.agent import load_agent
from results import paths
from results.checkpoints import load_checkpoint
from results.statistics import wilson_interval
from results.tables import read_results

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / paths.PUBLISHED / paths.RESULTS_PATH
REFS = paths.find_checkpoints(ROOT / paths.PUBLISHED)


def test_each_has_its_row_and_is_small():
    rows = read_results(RESULTS).set_index("checkpoint_path")
    assert {ref.path.relative_to(ROOT).as_posix() for ref in REFS} == set(rows.index) != set()
    for ref in REFS:
        assert ref.path.stat().st_size < 1e6
        checkpoint = load_checkpoint(ref.path)
        assert "resume_state" not in checkpoint and checkpoint["config"]["task_id"] == ref.task_id


@pytest.mark.parametrize("ref", REFS[:1], ids=lambda ref: ref.task_id)
def test_one_evaluates_to_its_row_to_the_last_bit(ref):
    row = read_results(RESULTS).set_index("checkpoint_path").loc[ref.path.relative_to(ROOT).as_posix()]
    metrics = evaluate(load_agent(load_checkpoint(ref.path)), ref.task_id, int(row["num_episodes"])).metrics
    for name in ("success_rate", "path_ratio", "mean_lpc"):
        assert metrics[name] == row[name], name


def cells(row, steps):
    """Return what docs/study.md says of a published checkpoint."""
    low, high = wilson_interval(row["success_rate"], row["num_episodes"])
    success = f"{100 * row['success_rate']:.1f} ({100 * low:.0f}-{100 * high:.0f})"
    return [f"{steps / 1e6:.3g}", success, f"{100 * row['success_rate_sampled']:.1f}", f"{row['path_ratio']:.2f}",
            f"{row['mean_lpc']:.0f}"]  # fmt: skip


def test_the_studys_table_is_of_these_rows():
    rows = read_results(RESULTS).set_index(["task_id", "trial"])
    expected = {}
    for ref in REFS:
        config = load_checkpoint(ref.path)["config"]
        steps = config["num_updates"] * config["num_envs"] * config["unroll_len"]
        expected.setdefault(paths.short_task(ref.task_id), {})[ref.trial] = cells(
            rows.loc[ref.task_id, ref.trial], steps
        )
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    table = [line.split("|") for line in text.split("| level | published |")[1].split("\n\n")[0].splitlines()[2:]]
    told = {name.strip(): [cell.strip() for cell in others[1:-1]] for _, name, *others in table}
    assert told == {level: of[0] + of.get(1, [""] * 5) for level, of in expected.items()}


def test_publishing_leaves_out_what_resuming_needs_and_evaluates(tmp_path):
    source = save(tmp_path / "checkpoints", "BabyAI-GoToRedBallGrey-v0", max_steps=4)
    command = [sys.executable, ROOT / "publish.py", source]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    path = paths.checkpoint_path(paths.PUBLISHED, "BabyAI-GoToRedBallGrey-v0", 0)
    checkpoint = load_checkpoint(tmp_path / path)
    assert checkpoint["config"]["checkpoint_dir"] == paths.PUBLISHED
    row = read_results(tmp_path / paths.PUBLISHED / paths.RESULTS_PATH).iloc[0]
    assert row["checkpoint_path"] == path.as_posix() and row["num_episodes"] == 512
    assert 0 <= row["success_rate_sampled"] <= 1
    shutil.copy(source, tmp_path / "checkpoint_final.pt")
    again = subprocess.run([*command, tmp_path / "checkpoint_final.pt"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2 and "one checkpoint for BabyAI-GoToRedBallGrey-v0 already" in again.stderr
