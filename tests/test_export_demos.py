"""Demonstrations as a Minari dataset, read back by Minari and played again in minigrid itself."""

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from untrained import save

import export_demos
from fast_babyai.reference import make_level_env, reset_level

minari = pytest.importorskip("minari")
ROOT = Path(__file__).parent.parent
TASK = "BabyAI-GoToLocal-v0"


@pytest.fixture(autouse=True)
def own_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def export(*flags):
    command = [sys.executable, ROOT / "export_demos.py", "--task_id", TASK, *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True)


def level_seeds(dataset):
    return [int(metadata["seed"]) for metadata in dataset.storage.get_episode_metadata(dataset.episode_indices)]


def assert_is_what_minigrid_plays(episode, seed, max_steps=None):
    env = make_level_env(TASK, max_steps)
    observation = reset_level(env, seed)
    for step, action in enumerate([*episode.actions, None]):
        np.testing.assert_array_equal(episode.observations["image"][step], observation["image"])
        assert episode.observations["direction"][step] == observation["direction"]
        assert episode.observations["mission"][step] == env.mission
        if action is not None:
            observation, reward, terminated, truncated, _ = env.step(action)
            assert episode.rewards[step] == pytest.approx(reward)
            assert (episode.terminations[step], episode.truncations[step]) == (terminated, truncated)
    assert terminated or truncated


def test_the_bots_demonstrations_are_read_back_by_minari(monkeypatch):
    monkeypatch.setattr(export_demos, "EPISODES_AT_ONCE", 8)  # several blocks
    monkeypatch.setattr(sys, "argv", ["export_demos.py", "--task_id", TASK, "--episodes", "20", "--num_envs", "6"])
    export_demos.main()
    dataset = minari.load_dataset("babyai/GoToLocal-bot-v0")
    assert dataset.total_episodes == 20
    assert isinstance(dataset.recover_environment().unwrapped, type(gym.make(TASK).unwrapped))
    seeds = level_seeds(dataset)
    assert sorted(seeds) == list(range(20))
    for episode, seed in zip(dataset, seeds, strict=True):
        assert episode.rewards[-1] > 0 and dataset.observation_space["image"].contains(episode.observations["image"][0])
        assert_is_what_minigrid_plays(episode, seed)


def test_a_checkpoints_episodes(tmp_path):
    path = save(tmp_path, TASK, max_steps=10)
    flags = ["--episodes", "5", "--checkpoint", path, "--max_steps", "10", "--dataset_id", "mine/x-v3"]
    done = export(*flags, "--first_level", "77")
    assert done.returncode == 0, done.stderr
    dataset = minari.load_dataset("mine/x-v3")
    seeds = level_seeds(dataset)
    assert sorted(seeds) == [77, 78, 79, 80, 81]
    for episode, seed in zip(dataset, seeds, strict=True):
        assert_is_what_minigrid_plays(episode, seed, max_steps=10)
    again = export(*flags)
    assert again.returncode == 2 and "there is a dataset mine/x-v3 already" in again.stderr


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--task_id", "BabyAI-GoToLocl-v0"], "BabyAI-GoToLocal-v0"),
        (["--dataset_id", "../x-v0"], "expected an id such as"),
        (["--dataset_id", "x"], "expected an id such as"),
        (["--first_level", "1000000000"], "are for evaluation"),
        (["--episodes", "0"], "whole number >= 1"),
        (["--checkpoint", "none.pt"], "no such file"),
    ],
)
def test_bad_input_is_one_line(flags, problem):
    done = export("--episodes", "2", *flags)
    assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr, done.stderr
