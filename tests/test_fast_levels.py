"""Levels from compiled code: the random stream against numpy; every task, and tasks of one's own, against minigrid."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from differential import compare_generation
from minigrid.envs import babyai
from minigrid.envs.babyai.core.levelgen import LevelGen
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc
from numba import njit

from basics.errors import UserError
from fast_babyai.factory import make_vec_env, sample_missions
from fast_babyai.generator import LevelGenerator
from fast_babyai.random_stream import RANDOM, integers, seed_stream, uniform
from fast_babyai.reference import babyai_tasks, make_level_env, reset_level
from fast_babyai.rules import EVAL_SEED_OFFSET
from fast_babyai.state import LEVEL

SPANS = np.array([[0, 6], [3, 9], [0, 2], [0, 1], [5, 5 + 2**31 + 1], [0, 2**32 - 1], [1, 22], [-7, -4]])

NUMBERS = itertools.count()


@njit
def draw(randoms, seed, spans, floats, numbers):
    """Write integers of the given spans, and every so often a float: after an odd and an even number of integers."""
    random = randoms[0]
    seed_stream(random, seed)
    for i in range(numbers.shape[0]):
        low, high = spans[i % spans.shape[0]]
        numbers[i] = integers(random, low, high)
        floats[i] = uniform(random) if i % 11 == 0 else 0.0


@pytest.mark.parametrize("seed", [0, 1, EVAL_SEED_OFFSET, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 2**63 - 1])
def test_the_random_stream_is_numpys(seed):
    count = 150_000
    floats, numbers = np.zeros(count), np.zeros(count, np.int64)
    draw(np.zeros(1, RANDOM), seed, SPANS, floats, numbers)
    generator, _ = gym.utils.seeding.np_random(seed)
    for i in range(count):
        assert numbers[i] == generator.integers(*SPANS[i % len(SPANS)])
        if i % 11 == 0:
            assert floats[i] == generator.uniform(0, 1)


@pytest.mark.parametrize("task", babyai_tasks())
def test_every_tasks_levels_are_minigrids(task):
    assert compare_generation(task, [0, 1, EVAL_SEED_OFFSET, EVAL_SEED_OFFSET + 1, 2**35]) == []
    assert compare_generation(task, [2], max_steps=17) == []


def test_a_level_that_minigrid_would_try_forever_to_generate_is_begun_anew():
    assert compare_generation("BabyAI-SynthS5R2-v0", [1_000_436]) == []  # the agent finds no place in its room


@pytest.fixture
def register():
    """A function that registers a level class as a BabyAI task for the time of a test, and returns its id."""
    registered = []

    def register_task(level_class, **kwargs) -> str:
        task_id = f"BabyAI-Own{next(NUMBERS)}-v0"  # a new one each time: a task is told of once
        gym.register(task_id, entry_point=level_class, kwargs=kwargs)
        registered.append(task_id)
        return task_id

    yield register_task
    for task_id in registered:
        del gym.registry[task_id]


@pytest.mark.parametrize(
    ("level_class", "parameters"),
    [
        (babyai.GoToLocal, {"room_size": 11, "num_dists": 15}),
        (babyai.GoTo, {"room_size": 5, "num_rows": 4, "num_cols": 2, "num_dists": 9, "doors_open": True}),
        (babyai.KeyCorridor, {"room_size": 4, "num_rows": 5, "obj_type": "box"}),
        (babyai.OpenDoorsOrder, {"num_doors": 3, "max_steps": 33}),
        (babyai.PutNext, {"room_size": 8, "objs_per_room": 6, "start_carrying": True}),
        (LevelGen, {"room_size": 6, "num_dists": 12, "locked_room_prob": 1, "implicit_unlock": False}),
        (LevelGen, {"action_kinds": ["open", "putnext"], "instr_kinds": ["seq"], "unblocking": False}),
    ],
)
def test_known_classes_with_parameters_of_ones_own_are_minigrids_too(level_class, parameters, register, capfd):
    assert compare_generation(register(level_class, **parameters), range(30)) == []
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("compiling ")]
    assert said == []  # nothing of minigrid's own generator


class GoToTheOnlyBox(babyai.GoToLocal):
    """A level class that the compiled generator cannot know."""

    def gen_mission(self):
        self.place_agent()
        self.add_object(0, 0, "box")
        self.instrs = GoToInstr(ObjDesc("box"))


@pytest.mark.parametrize(
    ("level_class", "parameters"),
    [
        (GoToTheOnlyBox, {}),
        (babyai.GoToLocal, {"room_size": 6, "num_dists": 2, "agent_view_size": 9}),
        (babyai.FindObjS5, {"room_size": 4, "num_cols": 4}),
    ],
)
def test_an_unknown_task_is_generated_by_minigrid_with_one_clear_line(level_class, parameters, register, capfd):
    task_id = register(level_class, **parameters)
    generator, levels = LevelGenerator(task_id), np.zeros(2, LEVEL)
    assert capfd.readouterr().err.count("minigrid generates them") == 1
    env = make_level_env(task_id)
    for level_seed in (3, 4):
        generator.generate(levels, 1, level_seed)
        reset_level(env, level_seed)
        assert generator.mission(levels[1]) == env.mission
        assert (levels["agent_x"][1], levels["agent_y"][1]) == env.agent_pos
        assert levels["seed"][1] == level_seed


@pytest.mark.parametrize("level_class", [babyai.MiniBossLevel, GoToTheOnlyBox])
def test_samples_of_missions_are_the_same_on_both_backends(level_class, register):
    task_id = register(level_class)
    samples = [sample_missions(task_id, 20, backend=backend) for backend in ("minigrid", "fast")]
    assert samples[0] == samples[1] and len(samples[0]) == 20


def test_an_unknown_task_is_the_same_on_both_backends(register):
    task_id = register(GoToTheOnlyBox, room_size=6)
    pair = [make_vec_env(task_id, 2, backend=backend, train_levels=3) for backend in ("minigrid", "fast")]
    infos = [env.reset(seed=0)[1] for env in pair]
    for _ in range(60):
        (rewards, infos), (other_rewards, other_infos) = (
            (result[1], result[-1]) for result in (env.step(infos[0]["bot_action"]) for env in pair)
        )
        assert np.array_equal(rewards, other_rewards)
        for name in ("mission", "bot_action", "bot_steps", "agent_pos", "level_seed"):
            assert np.array_equal(infos[name], other_infos[name])
        infos = [infos, other_infos]


@pytest.mark.parametrize(
    ("level_class", "parameters", "message"),
    [
        (babyai.GoToLocal, {"room_size": 20, "num_dists": 80}, "more than 62 objects.*use backend: minigrid"),
        (babyai.GoToLocal, {"room_size": 30, "num_dists": 2}, "30x30 cells.*use backend: minigrid"),
        (babyai.GoToLocal, {"room_size": 4, "num_dists": 12}, "none of 100000 attempts"),
        (babyai.GoToLocal, {"room_size": 4, "num_dists": 0}, "none of 100000 attempts"),
    ],
)
def test_levels_that_cannot_be_are_an_error_for_people(level_class, parameters, message, register):
    with pytest.raises(UserError, match=message):
        LevelGenerator(register(level_class, **parameters)).generate(np.zeros(1, LEVEL), 0, 5)


def test_a_negative_level_seed_is_refused():
    with pytest.raises(gym.error.Error, match=r"whole numbers >= 0, got \[3, -1\]"):
        make_vec_env("BabyAI-GoToObj-v0", 2, autoreset_mode="Disabled").reset(seed=[3, -1])
