"""The compiled environment as any program that knows gymnasium would use it."""

import gymnasium
import numpy as np
import pytest
from differential import differences
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import (
    DictInfoToList,
    FlattenObservation,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
)
from minigrid.wrappers import (
    FullyObsWrapper,
    ImgObsWrapper,
    OneHotPartialObsWrapper,
    PositionBonus,
    RGBImgObsWrapper,
    RGBImgPartialObsWrapper,
    SymbolicObsWrapper,
    ViewSizeWrapper,
)

from fast_babyai import FastBabyAIVectorEnv
from fast_babyai.factory import make_vec_env
from fast_babyai.reference import babyai_tasks

TASK = "BabyAI-GoToRedBall-v0"
ID = f"rl_mop/{TASK}"


@pytest.fixture(params=[TASK, [TASK, "BabyAI-GoToObjS4-v0", "BabyAI-OpenRedDoor-v0"]], ids=["one_task", "several"])
def env(request):
    env = FastBabyAIVectorEnv(request.param, 5, max_steps=12)
    yield env
    env.close()


def test_masks_and_metadata_are_those_of_gymnasiums_own_vector_environment(env):
    plain = make_vec_env(env.tasks, 5, backend="minigrid", max_steps=12)
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
    plain = make_vec_env(env.tasks, 5, backend="minigrid", max_steps=12)
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
    for called, rendered in zip(env.call("render"), env.render(), strict=True):
        np.testing.assert_array_equal(called, rendered)
    with pytest.raises(AttributeError, match="no attribute 'grid', but mission"):
        env.get_attr("grid")
    with pytest.raises(AttributeError, match="cannot be set"):
        env.set_attr("max_steps", 3)
    plain.close()


def test_what_makes_no_sense_is_refused(env):
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(5, np.int64))
    with pytest.raises(ValueError, match="NextYear"):
        FastBabyAIVectorEnv(TASK, 5, autoreset_mode="NextYear")


@pytest.mark.parametrize("backend", ["fast", "minigrid"])
def test_negative_seeds_and_steps_where_no_episode_runs_are_refused(backend):
    env = make_vec_env(TASK, 3, backend=backend, max_steps=4, autoreset_mode="Disabled")
    for seed in (-1, [0, 1, -1]):
        with pytest.raises(gymnasium.error.Error, match="whole numbers >= 0"):
            env.reset(seed=seed)
    with pytest.raises(gymnasium.error.ResetNeeded, match="before its first step"):
        env.step(np.zeros(3, np.int64))
    env.reset(seed=[0, 1, 2])
    for _ in range(4):
        _, _, terminated, truncated, infos = env.step(np.zeros(3, np.int64))
    assert truncated.all() and not terminated.any() and (infos["bot_action"] == -1).all()
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"environments \[0, 1, 2\] have ended"):
        env.step(np.zeros(3, np.int64))
    env.reset(seed=[5, 6, 7], options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"environments \[1\] have ended"):
        env.step(np.zeros(3, np.int64))
    env.reset(seed=[5, 6, 7], options={"reset_mask": np.array([False, True, False])})
    _, _, _, truncated, _ = env.step(np.zeros(3, np.int64))
    assert not truncated.any()
    env.close()


@pytest.mark.parametrize("task", [TASK, "BabyAI-UnlockPickup-v0", "BabyAI-PutNextLocal-v0"])
@pytest.mark.parametrize("expert", [True, False])
def test_next_step_is_that_of_gymnasiums_own_vector_environment_over_minigrid(task, expert):
    settings = {"autoreset_mode": AutoresetMode.NEXT_STEP, "max_steps": 25, "expert": expert, "train_levels": 9}
    pair = [make_vec_env(task, 4, backend=backend, **settings) for backend in ("minigrid", "fast")]
    assert all(env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP for env in pair)
    (observations, infos), (compiled, compiled_infos) = (env.reset(seed=5) for env in pair)
    chooser, ended, done = np.random.default_rng(0), 0, np.zeros(4, bool)
    for step in range(90):
        assert not differences(observations, compiled) and infos.keys() == compiled_infos.keys()
        assert not differences(infos, compiled_infos)
        labels = infos.get("bot_action", np.full(4, 2))
        actions = np.where((chooser.random(4) < 0.7) | done, labels, chooser.integers(0, 7, 4))
        levels = infos["level_seed"]
        if step == 60:  # both go on where the other was, also where the last step ended an episode
            states = [env.get_state() for env in pair]
            for env, state in zip(pair, reversed(states), strict=True):
                env.set_state(state)
        (observations, *outcome, infos), (compiled, *compiled_outcome, compiled_infos) = (
            env.step(actions) for env in pair
        )
        for one, other in zip(outcome, compiled_outcome, strict=True):
            np.testing.assert_array_equal(one, other)
        rewards, terminated, truncated = outcome
        assert ((infos["level_seed"] != levels) <= done).all(), "a level changes only in the step after an end"
        assert not rewards[done].any() and not (terminated | truncated)[done].any(), "which ends nothing"
        done = terminated | truncated
        ended += int(done.sum())
        if expert:
            np.testing.assert_array_equal(infos["bot_action"] == -1, done)
    assert ended > 9 and "final_obs" not in infos
    for env in pair:
        env.close()


def test_gymnasiums_wrappers_of_observations_work_with_next_step():
    with pytest.raises(ValueError, match="NEXT_STEP"):
        NormalizeObservation(FlattenObservation(FastBabyAIVectorEnv(TASK, 5)))
    env = FastBabyAIVectorEnv(TASK, 5, max_steps=12, autoreset_mode=AutoresetMode.NEXT_STEP)
    wrapped = RecordEpisodeStatistics(NormalizeObservation(FlattenObservation(env)))
    wrapped.reset(seed=0)
    lengths = []
    for _ in range(39):
        observations, _, terminated, truncated, infos = wrapped.step(np.zeros(5, np.int64))
        ended = terminated | truncated
        lengths += infos["episode"]["l"][ended].tolist() if ended.any() else []
    assert observations.shape == (5, 152) and np.isfinite(observations).all()
    assert lengths == [12] * 15  # 12 steps and one that begins the next episode


@pytest.mark.parametrize("mode", AutoresetMode)
def test_tensors_by_numpy_to_torch(mode):
    pytest.importorskip("array_api_compat")
    import torch
    from gymnasium.wrappers.vector import NumpyToTorch

    env = FastBabyAIVectorEnv(TASK, 5, max_steps=3, autoreset_mode=mode)
    plain = FastBabyAIVectorEnv(TASK, 5, max_steps=3, autoreset_mode=mode)
    wrapped = NumpyToTorch(env)
    (observations, infos), (expected, expected_infos) = wrapped.reset(seed=2), plain.reset(seed=2)
    for _ in range(2 if mode is AutoresetMode.DISABLED else 5):
        np.testing.assert_array_equal(observations["image"].numpy(), expected["image"])
        assert infos["bot_action"].dtype == torch.int64
        assert infos["mission"].tolist() == expected_infos["mission"].tolist()
        actions = infos["bot_action"].clamp(0)
        observations, rewards, _, _, infos = wrapped.step(actions)
        expected, expected_rewards, *_, expected_infos = plain.step(actions.numpy())
        np.testing.assert_array_equal(rewards.numpy(), expected_rewards)


def test_every_task_is_registered_under_an_id_of_its_own():
    assert all(f"rl_mop/{task_id}" in gymnasium.registry for task_id in babyai_tasks())
    env = gymnasium.make_vec(ID, num_envs=3, autoreset_mode="NextStep", max_steps=9, render_mode="rgb_array")
    assert isinstance(env, FastBabyAIVectorEnv) and env.num_envs == 3 and env.spec.id == ID
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    readable = gymnasium.make_vec(ID, num_envs=3, backend="minigrid")
    (_, infos), (_, expected) = env.reset(seed=4), readable.reset(seed=4)
    assert env.get_attr("max_steps") == (9, 9, 9)
    assert not differences({name: infos[name] for name in ("mission", "level_seed")}, expected)
    several = gymnasium.make_vec(ID, num_envs=2, vectorization_mode="sync")  # of the single ones
    assert several.reset(seed=[4, 5])[1]["mission"][0] == several.get_attr("mission")[0]
    with pytest.raises(gymnasium.error.Error, match="expected 'rgb_array'"):
        gymnasium.make_vec(ID, num_envs=2, render_mode="human")
    for each in (env, readable, several):
        each.close()


def test_the_single_environment_passes_gymnasiums_checks():
    env = gymnasium.make(ID)
    check_env(env.unwrapped)
    observation, info = env.reset(seed=3)
    expected = gymnasium.make(TASK)
    image = expected.reset(seed=3)[0]["image"]
    np.testing.assert_array_equal(observation["image"], image)
    assert info["mission"] == expected.unwrapped.mission and info["bot_action"] >= 0
    assert env.render().shape == env.unwrapped.get_frame(tile_size=32).shape


@pytest.mark.parametrize(
    "wrapper",
    [
        FullyObsWrapper,
        ImgObsWrapper,
        OneHotPartialObsWrapper,
        PositionBonus,
        RGBImgObsWrapper,
        RGBImgPartialObsWrapper,
        SymbolicObsWrapper,
        ViewSizeWrapper,
    ],
)
def test_minigrids_wrappers_show_of_the_single_environment_what_they_show_of_minigrids(wrapper):
    env, expected = wrapper(gymnasium.make(ID)), wrapper(gymnasium.make(TASK))
    (observation, info), (expected_observation, _) = env.reset(seed=3), expected.reset(seed=3)
    for _ in range(4):
        if wrapper is not ImgObsWrapper:
            observation, expected_observation = observation["image"], expected_observation["image"]
        np.testing.assert_array_equal(observation, expected_observation)
        action = info["bot_action"]
        observation, reward, _, _, info = env.step(action)
        expected_observation, expected_reward, *_ = expected.step(action)
        assert reward == expected_reward


def test_record_video_films_the_single_environment(tmp_path):
    pytest.importorskip("moviepy")
    env = gymnasium.wrappers.RecordVideo(gymnasium.make(ID, max_steps=5), str(tmp_path), episode_trigger=bool)
    for _ in range(2):
        env.reset(seed=0)
        while not any(env.step(0)[2:4]):
            pass
    env.close()
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["rl-video-episode-1.mp4"]
