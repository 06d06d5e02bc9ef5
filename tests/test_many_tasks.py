"""Several tasks side by side: in one vector environment, in training, in evaluation."""

import numpy as np
import pytest

from basics.errors import UserError
from fast_babyai import FastBabyAIVectorEnv
from fast_babyai.factory import make_vec_env, sample_missions
from fast_babyai.reference import babyai_tasks, matching_tasks
from fast_babyai.rules import deal_environments

TASKS = ["BabyAI-GoToObj-v0", "BabyAI-UnlockPickup-v0", "BabyAI-MiniBossLevel-v0"]


# ------------------------------------------------------------------------------------------------------ environments


def test_environments_are_dealt_out_by_weight_and_every_task_has_one_of_the_first():
    assert deal_environments(7, [1, 1, 1]).task.tolist() == [0, 1, 2, 0, 1, 2, 0]
    deal = deal_environments(
        8, [3, 1]
    )  # what each has, over its weight, at every turn: 0 0, 1/3 0, 1/3 1, 2/3 1, 1 1, ..
    assert deal.task.tolist() == [0, 1, 0, 0, 0, 1, 0, 0]
    assert deal.place.tolist() == [0, 0, 1, 2, 3, 1, 4, 5]
    assert deal.count.tolist() == [6, 2, 6, 6, 6, 2, 6, 6]
    many = deal_environments(1000, [5, 0.001, 4, 1])
    assert many.task[:4].tolist() == [0, 1, 2, 3] and np.bincount(many.task).tolist() == [499, 1, 400, 100]


@pytest.mark.parametrize("train_levels", [None, 9])
def test_a_task_among_others_is_the_same_as_alone(train_levels):
    together = FastBabyAIVectorEnv(TASKS, 11, train_levels=train_levels, task_weights=[1, 2, 1])
    alone = [FastBabyAIVectorEnv(task, int((together.task_of_env == number).sum()), train_levels=train_levels)
             for number, task in enumerate(TASKS)]  # fmt: skip
    places = [np.flatnonzero(together.task_of_env == number) for number in range(3)]
    assert [len(places_of_task) for places_of_task in places] == [3, 5, 3]
    chooser = np.random.default_rng(0)
    results = [env.reset(seed=5) for env in (together, *alone)]
    ended = np.zeros(11, int)
    for _ in range(150):
        (observations, *outcome, infos), *others = results
        for index, (its_observations, *its_outcome, its_infos) in zip(places, others, strict=True):
            for name, values in its_observations.items():
                np.testing.assert_array_equal(observations[name][index], values)
            for one, other in zip(outcome, its_outcome, strict=True):
                np.testing.assert_array_equal(one[index], other)
            for name in ("mission", "bot_action", "due_action", "bot_steps", "agent_pos", "level_seed"):
                np.testing.assert_array_equal(infos[name][index], its_infos[name])
        ended += 0 if not outcome else outcome[1] | outcome[2]
        actions = np.where(chooser.random(11) < 0.9, infos["bot_action"], chooser.integers(0, 7, 11))
        results = [
            together.step(actions),
            *(env.step(actions[index]) for env, index in zip(alone, places, strict=True)),
        ]
    assert ended[places[0]].min() > 3 and ended.sum() > 30
    assert [context["grid_size"] for context in list(together.env_contexts)[:3]] == [[8, 8], [11, 6], [9, 9]]
    assert together.get_attr("max_steps")[:2] == (64, 72)


def test_both_backends_run_the_same_and_go_on_from_a_saved_state():
    pair = [make_vec_env(TASKS, 5, backend=backend, task_weights=[1, 1, 2]) for backend in ("minigrid", "fast")]
    infos = [env.reset(seed=1)[1] for env in pair]
    for _ in range(60):
        for name in ("mission", "bot_action", "due_action", "level_seed", "bot_plan_failures"):
            np.testing.assert_array_equal(infos[0][name], infos[1][name])
        infos = [env.step(infos[0]["bot_action"])[-1] for env in pair]
    assert pair[0].tasks == pair[1].tasks == tuple(TASKS)
    np.testing.assert_array_equal(pair[0].task_of_env, pair[1].task_of_env)
    twin = FastBabyAIVectorEnv(TASKS, 5, task_weights=[1, 1, 2])
    _, resumed = twin.set_state(pair[0].get_state())
    for _ in range(30):
        for name in ("mission", "bot_action", "level_seed"):
            np.testing.assert_array_equal(resumed[name], infos[1][name])
        resumed, infos[1] = twin.step(resumed["bot_action"])[-1], pair[1].step(infos[1]["bot_action"])[-1]
    assert [picture.shape for picture in twin.render()[:2]] == [(256, 256, 3), (192, 352, 3)]


def test_patterns_stand_for_tasks_by_name():
    assert matching_tasks(["BabyAI-OpenDoor*", "BabyAI-GoTo-v0", "BabyAI-OpenDoor-v0"]) == [
        *sorted(task for task in babyai_tasks() if task.startswith("BabyAI-OpenDoor")),
        "BabyAI-GoTo-v0",
    ]
    with pytest.raises(UserError, match=r"no BabyAI task matches 'BabyAI-Goto\*'. Did you mean 'BabyAI-GoTo-v0'"):
        matching_tasks(["BabyAI-Goto*"])
    with pytest.raises(UserError, match="unknown task 'BabyAI-GoToOb-v0'. Did you mean 'BabyAI-GoToObj-v0'"):
        matching_tasks(["BabyAI-GoToOb-v0"])


def test_missions_of_several_tasks_are_sampled_from_each():
    missions = sample_missions(TASKS, 10)
    assert missions == [mission for task in TASKS for mission in sample_missions(task, 4)]
    assert missions == sample_missions(TASKS, 10, backend="minigrid")


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ({"task_id": TASKS, "num_envs": 2}, "num_envs is 2, but each of 3 tasks needs"),
        ({"task_id": [TASKS[0], TASKS[0]], "num_envs": 2}, "BabyAI-GoToObj-v0 stands among the tasks twice"),
        ({"task_id": [], "num_envs": 2}, "no task to run"),
        ({"task_id": ["BabyAI-GoToOb-v0"], "num_envs": 2}, "Did you mean 'BabyAI-GoToObj-v0'"),
        ({"task_id": TASKS, "num_envs": 4, "task_weights": [1, 2]}, "expected 3 numbers > 0"),
        ({"task_id": TASKS, "num_envs": 4, "task_weights": [1, 2, 0]}, "expected 3 numbers > 0"),
    ],
)
def test_sets_of_tasks_that_cannot_be_run_are_refused(arguments, problem):
    for backend in ("fast", "minigrid"):
        with pytest.raises(UserError, match=problem):
            make_vec_env(**arguments, backend=backend)
