"""Several tasks side by side: in one vector environment, in training, in evaluation."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_training import config_for, run_folder, train_script, wait_for, weights

from basics.errors import UserError
from fast_babyai import FastBabyAIVectorEnv
from fast_babyai.factory import make_vec_env, sample_missions
from fast_babyai.reference import babyai_tasks, matching_tasks
from fast_babyai.rules import deal_environments
from results import checkpoints, paths, tables
from training.run import train
from training.task_sets import resolve_tasks

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
    with pytest.raises(UserError, match=r"unknown task 'BabyAI-GoToOb-v0'. Did you mean 'BabyAI-GoToObj-v0'"):
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


# ---------------------------------------------------------------------------------------------------------- training

SET = {"tasks": TASKS, "task_id": "Three", "num_envs": 8, "backend": "fast"}


def both_metrics(folder):
    """The two tables of a run on the set Three, without how fast it was."""
    run = run_folder(folder, "Three")
    metrics = tables.read_metrics(run / paths.METRICS_FILE).drop(columns="steps_per_second")
    return metrics, tables.read_metrics_by_task(run / paths.METRICS_BY_TASK_FILE)


@pytest.mark.parametrize("policy", ["mixture", "baseline"])
def test_metrics_by_task_are_the_parts_of_those_of_all(tmp_path, policy):
    train(config_for(tmp_path, policy, **SET, num_updates=20, bot_share=0.0, log_interval=5, task_weights=[2, 1, 1]))
    metrics, by_task = both_metrics(tmp_path)
    assert list(by_task["update"]) == [update for update in (5, 10, 15, 20) for _ in TASKS]
    assert list(by_task["task_id"]) == TASKS * 4
    assert by_task["env_steps"].tail(3).tolist() == [20 * 8 * 4, 20 * 8 * 2, 20 * 8 * 2]
    for update, parts in by_task.groupby("update"):
        whole = metrics[metrics["update"] == update].iloc[0]
        assert parts["env_steps"].sum() == whole["env_steps"]
        share = parts["env_steps"] / whole["env_steps"]
        for name in ("accuracy", "ce", "mean_lpc") if policy == "mixture" else ("accuracy", "ce"):
            assert (share * parts[name]).sum() == pytest.approx(whole[name], rel=1e-5)
        successes = (parts["success_rate"] * parts["episodes"]).sum()
        assert parts["episodes"].sum() == 0 or successes / parts["episodes"].sum() == pytest.approx(
            whole["success_rate"]
        )
    assert by_task["mean_lpc"].isna().all() == (policy == "baseline")
    config = checkpoints.load_checkpoint(run_folder(tmp_path, "Three") / "checkpoint_final.pt")["config"]
    assert config["tasks"] == TASKS and config["task_weights"] == [2, 1, 1]


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    flags = ["--task_id", "Three", "--tasks", ",".join(TASKS), "--backend", "fast", "--num_envs", "6"]
    flags += ["--num_updates", "40", "--log_interval", "7", "--checkpoint_interval", "10"]
    assert train_script("train_mop.py", tmp_path / "straight", *flags).returncode == 0
    killed = train_script("train_mop.py", tmp_path / "killed", *flags, wait=False)
    run = run_folder(tmp_path / "killed", "Three")
    wait_for((run / "checkpoint_20.pt").exists, killed)
    killed.kill()
    killed.communicate()
    for path in (run / "checkpoint_30.pt", run / "checkpoint_final.pt"):  # where it was faster than we are
        path.unlink(missing_ok=True)
    resumed = train_script("train_mop.py", tmp_path / "killed", *flags, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for one, other in zip(*map(both_metrics, (tmp_path / "straight", tmp_path / "killed")), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    first, second = (
        weights(run_folder(tmp_path / name, "Three") / "checkpoint_final.pt") for name in ("straight", "killed")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    (run / "checkpoint_final.pt").unlink()
    config = config_for(tmp_path / "killed", task_id="Three", num_updates=40)
    with pytest.raises(UserError, match="was started with tasks"):
        train(config | {"tasks": TASKS[:2]}, ["tasks"], resume=True)
    assert train(config, resume=True) == 0, "a run that goes on knows its tasks"


def test_both_backends_train_alike(tmp_path):
    for backend in ("fast", "minigrid"):
        train(config_for(tmp_path / backend, **SET | {"backend": backend, "num_envs": 4}, num_updates=6))
    for one, other in zip(*(both_metrics(tmp_path / backend) for backend in ("fast", "minigrid")), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"task_id": "BabyAI-GoTo-v0"}, "task_id is 'BabyAI-GoTo-v0', which is a task: with tasks, it names the set"),
        ({"tasks": ["BabyAI-Goto*"]}, "Did you mean 'BabyAI-GoTo-v0'"),
        ({"num_envs": 2}, "num_envs is 2, but each of 3 tasks"),
        ({"task_weights": [1, 2]}, "expected 3 numbers > 0"),
        ({"task_weights": {"BabyAI-GoToObk-v0": 2}}, "none of the tasks. Did you mean 'BabyAI-GoToObj-v0'"),
        ({"tasks": None}, "unknown task 'Three'"),
        ({"tasks": None, "task_id": "BabyAI-GoTo-v0", "task_weights": [1]}, "task_weights is set, but not tasks"),
    ],
)
def test_sets_that_cannot_be_trained_leave_no_trace(tmp_path, changes, problem):
    with pytest.raises(UserError, match=problem):
        train(config_for(tmp_path, **SET | changes))
    assert not any(tmp_path.iterdir())


def test_weights_by_name_and_pattern(tmp_path):
    config = config_for(tmp_path, task_id="Set", tasks=["BabyAI-OpenRed*", "BabyAI-GoTo-v0"])
    assert resolve_tasks(config)["task_weights"] is None
    weights = {"BabyAI-Open*": 2, "BabyAI-OpenRedDoor-v0": 5}
    resolved = resolve_tasks(config | {"task_weights": weights})
    assert dict(zip(resolved["tasks"], resolved["task_weights"], strict=True)) == {
        "BabyAI-OpenRedBlueDoors-v0": 2,
        "BabyAI-OpenRedBlueDoorsDebug-v0": 2,
        "BabyAI-OpenRedDoor-v0": 5,
        "BabyAI-GoTo-v0": 1,
    }
