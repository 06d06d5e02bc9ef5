"""The compiled environment as any program that knows gymnasium would use it."""

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers.vector import DictInfoToList, NormalizeReward, RecordEpisodeStatistics

from fast_babyai import FastBabyAIVectorEnv
from fast_babyai.factory import make_vec_env

TASK = "BabyAI-GoToRedBall-v0"


@pytest.fixture
def env():
    env = FastBabyAIVectorEnv(TASK, 5, max_steps=12)
    yield env
    env.close()


def test_masks_and_metadata_are_those_of_gymnasiums_own_vector_environment(env):
    plain = make_vec_env(TASK, 5, backend="minigrid", max_steps=12)
    assert env.metadata["render_fps"] == plain.metadata["render_fps"] == 10
    (_, infos), (_, expected) = env.reset(seed=3), plain.reset(seed=3)
    for _ in range(30):
        assert infos.keys() == expected.keys()
        for name in infos:
            if name.startswith("_"):
                np.testing.assert_array_equal(infos[name], expected[name])
        actions = infos["bot_action"]
        *_, infos = env.step(actions)
        *_, expected = plain.step(actions)
    plain.close()


@pytest.mark.parametrize("wrapper", [RecordEpisodeStatistics, NormalizeReward, DictInfoToList])
def test_gymnasiums_wrappers_of_vector_environments_work(env, wrapper):
    wrapped = wrapper(env)
    wrapped.reset(seed=0)
    action = np.zeros(5, np.int64)
    ended = 0
    for _ in range(26):
        _, rewards, terminated, truncated, infos = wrapped.step(action)
        ended += int((terminated | truncated).sum())
    assert ended == 10 and len(rewards) == 5
    if wrapper is DictInfoToList:
        assert len(infos) == 5 and "mission" in infos[0]


def test_attributes_are_minigrids(env):
    plain = make_vec_env(TASK, 5, backend="minigrid", max_steps=12)
    env.reset(seed=[1, 2, 3, 4, 5])
    plain.reset(seed=[1, 2, 3, 4, 5])
    for _ in range(4):
        for name in ("agent_dir", "step_count", "max_steps", "mission", "agent_pos"):
            expected = [getattr(single.env.unwrapped, name) for single in plain.envs]
            assert list(env.get_attr(name)) == [tuple(each) if name == "agent_pos" else each for each in expected]
            assert env.call(name) == env.get_attr(name)
        actions = np.array([0, 1, 2, 2, 1])
        env.step(actions)
        plain.step(actions)
    np.testing.assert_array_equal(env.call("render"), env.render())
    with pytest.raises(AttributeError, match="no attribute 'grid', but mission"):
        env.get_attr("grid")
    with pytest.raises(AttributeError, match="cannot be set"):
        env.set_attr("max_steps", 3)
    plain.close()


def test_what_makes_no_sense_is_refused(env):
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(5, np.int64))
    for seed in (-1, [0, 1, 2, 3, -1]):
        with pytest.raises(gymnasium.error.Error, match="whole numbers >= 0"):
            env.reset(seed=seed)
