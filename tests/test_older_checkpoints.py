"""Checkpoints that are on users' disks already: one that an earlier version wrote after 20 of 30 updates.

tests/data/older_checkpoint_20.pt is a mixture with seed 3 on BabyAI-GoToObj-v0; that version evaluated it, and went on
with it, as the numbers here say. Its arithmetic differed in last digits.
"""

import shutil
from pathlib import Path

import pytest

from basics.config import legacy_config, load_keys
from eval_mop import evaluate
from policy.agent import load_agent
from results.checkpoints import load_checkpoint
from results.tables import read_metrics
from training.run import train

OLDER = Path(__file__).parent / "data" / "older_checkpoint_20.pt"


def test_it_evaluates_to_the_numbers_of_its_time():
    agent = load_agent(load_checkpoint(OLDER))
    evaluation = evaluate(agent, "BabyAI-GoToObj-v0", 20)
    assert evaluation.metrics["success_rate"] == 0.35
    assert evaluation.metrics["path_ratio"] == 2.75
    assert evaluation.metrics["mean_lpc"] == pytest.approx(42.79, abs=0.005)
    assert len(evaluation.routing_data) == 908


def test_it_is_gone_on_with(tmp_path):
    run = tmp_path / "BabyAI-GoToObj-v0" / "trial_0" / "seed_3"
    run.mkdir(parents=True)
    shutil.copy(OLDER, run / "checkpoint_20.pt")
    config = legacy_config(load_checkpoint(OLDER)["config"]) | {"checkpoint_dir": str(tmp_path)}
    defaults = {name: key.default for name, key in load_keys("mixture").items()}
    assert train(defaults | config, given=["checkpoint_dir"], resume=True) == 0
    row = read_metrics(run / "metrics.csv").iloc[-1]
    assert row["update"] == 30 and row["lr"] == pytest.approx(2.739052315863355e-05, rel=1e-9)
    assert row["loss"] == pytest.approx(0.89, abs=0.05) and row["accuracy"] == pytest.approx(0.6, abs=0.05)
