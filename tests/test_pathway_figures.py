"""Figures of networks of many tasks, on networks made so that the answers are known; pathways.py as users start it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bot_routing import bot_routing_data
from matplotlib.text import Text
from untrained import save

import cross_task_viz
import pathways
from plotting.data import NothingToShow
from plotting.style import EXPERT_COLORS
from plotting_utils import numbers_of, page, pathway_figures
from results import paths, tables
from results.pathways import STEPS_TO, pathway_columns
from results.routing_caches import write_routing_cache

ROOT = Path(__file__).parent.parent
TASKS = [f"BabyAI-{name}-v0" for name in ("GoToObj", "GoToLocal", "UnlockPickup", "GoTo", "BossLevel")]
SIZES = [[0, 16, 32]] * 3
LARGEST = "0-2_1-2_2-2"
NEEDS_MEASURES = ["Information", "Cost and difficulty", "Phases of tasks", "Decisions of tasks"]


def routing_of(task, trial, seed):
    """Weights [3][3]: in trial 1 the harder the task, the larger the experts; in trial 0 each seed has its own way."""
    if trial == 1:
        large = 0.1 + 0.15 * task + 0.01 * seed
        return [[0.9 - large, 0.1, large]] * 3
    return np.random.default_rng([task, seed]).dirichlet([1, 1, 1], 3).tolist()


@pytest.fixture
def tables_of_networks():
    """Return results, lesions and measures of two forms, three seeds each, with a checkpoint halfway."""
    results, lesions, measures = [], [], []
    for trial, seed, update in [(t, s, u) for t in (0, 1) for s in (0, 1, 2) for u in (500, None)]:
        path = f"checkpoints/all/trial_{trial}/seed_{seed}/checkpoint_{update or 'final'}.pt"
        for task, task_id in enumerate(TASKS):
            routing = routing_of(task, trial, seed)
            lpc = float(sum(np.square(sizes) @ weights for sizes, weights in zip(SIZES, routing, strict=True)))
            row = {"checkpoint_path": path, "task_id": task_id, "trained_on": "all", "trial": trial, "seed": seed}
            row |= {"update": update, "num_updates": 1000, "num_episodes": 64, "expert_hidden_sizes": json.dumps(SIZES)}
            row |= {"success_rate": 0.9 - 0.1 * task - 0.05 * trial, "mean_lpc": lpc, "routing": json.dumps(routing)}
            row |= {"lpc_alpha": 1e-5 * trial, "normalize_lpc": "attached", "expert_dropout": 0.0}
            row["pathways"] = json.dumps({"0-0-0": 1 - 0.2 * task, "2-2-2": 0.2 * task})
            if update is not None:
                results.append(row | {"mean_lpc": lpc + 100 * task})
                measures.append((path, task_id, "same expert, layer 0", 0.5))
                continue
            results.append(row)
            lesions += [
                row | {"lesion": f"min{w:g}", "success_rate": row["success_rate"] * (1 - w)} for w in (0.1, 0.5)
            ]
            lesions.append(row | {"lesion": "own0.2", "success_rate": row["success_rate"] / 2})
            lesions.append(row | {"lesion": LARGEST, "success_rate": row["success_rate"] - 0.02 * task})
            measures += [(path, task_id, name, lpc * sign) for name, sign in (("H(A|S)", 1), ("policy entropy", -1))]
            measures += [(path, task_id, f"LPC, {name}", 100.0 * task) for name in ("before the key", "with the key")]
            measures.append((path, task_id, "I(action;pathway)", 0.1 * task))
        if update is None:
            measures += [(path, None, "I(task;pathway)", 0.5 + seed / 10), (path, None, "task told by chance", 0.2)]
            measures.append((path, None, "task told from routing", 0.6))
    for task, task_id in enumerate(TASKS):
        for seed in (0, 1, 2):  # the hardest was reached by one of three
            steps = 1000.0 * 2**task if task < 4 or seed == 0 else None
            measures.append((f"checkpoints/{task_id}/trial_2/seed_{seed}", task_id, f"{STEPS_TO}0.75", steps))
    whole = {"trial": "Int64", "seed": "Int64", "update": "Int64"}
    measured = pd.DataFrame(measures, columns=list(tables.MEASURE_TYPES))
    return pd.DataFrame(results).astype(whole), pd.DataFrame(lesions).astype(whole), measured


def made(tables_of_networks, name):
    figure = pathway_figures(*tables_of_networks)[name][1]()
    figure.draw_without_rendering()
    return figure, numbers_of(figure)


def row_of(numbers, **which):
    (row,) = [row for row in numbers if all(row.get(name) == value for name, value in which.items())]
    return row


FREE, PRICED = "no price", "price 10⁻⁵, scaled by loss (attached)"


def test_runs_that_route_tasks_alike_are_consistent_and_others_are_not(tables_of_networks):
    _, numbers = made(tables_of_networks, "Consistency")
    priced = row_of(numbers, form=PRICED, centred=True)
    assert priced["mean"] == pytest.approx(1) and priced["null_high"] < 0.9 and priced["p"] < 0.05
    free = row_of(numbers, form=FREE, centred=True)
    assert abs(free["mean"]) < 0.5 and free["low"] < 0 < free["high"] and free["p"] > 0.05
    assert len(free["pairs"].split()) == 3


def test_success_over_thresholds_is_the_mean_over_tasks_with_a_dot_per_seed(tables_of_networks):
    figure, numbers = made(tables_of_networks, "Self-sufficiency")
    whole = np.mean([0.9 - 0.1 * task for task in range(5)])
    assert row_of(numbers, form=FREE, lesion="min", threshold=0.5)["mean"] == pytest.approx(whole / 2)
    assert row_of(numbers, form=FREE, lesion="min", threshold=0.0)["mean"] == pytest.approx(whole)
    assert row_of(numbers, form=PRICED, lesion="own", threshold=0.2)["mean"] == pytest.approx((whole - 0.05) / 2)
    lines = [line for line in figure.axes[0].lines if line.get_label() == FREE]
    assert lines[0].get_xdata().tolist() == [0, 0.1, 0.5]


def test_no_point_lies_outside_its_axes(tables_of_networks):
    results, lesions, measures = tables_of_networks
    costly = measures["measure"].str.startswith("LPC, ") & (measures["task_id"] == TASKS[2])
    measures = measures.assign(value=measures["value"].where(~costly, 3000.0))  # of a panel that is not the first
    drawn = 0
    for name, (_, make) in pathway_figures(results, lesions, measures).items():
        try:
            figure = make()
        except NothingToShow:
            continue
        lines = [line for panel in figure.axes for line in panel.lines if line.get_transform() == panel.transData]
        for line in lines:
            points = np.array(line.get_data(), float)  # [2, N]
            points = points[:, np.isfinite(points).all(0)]
            low, high = np.sort([line.axes.get_xlim(), line.axes.get_ylim()], 1).T[..., None]
            assert (low <= points).all() and (points <= high).all(), (name, points, low, high)
            drawn += points.size
    assert drawn > 100


def test_tasks_are_clustered_by_their_pathways(tables_of_networks):
    figure, numbers = made(tables_of_networks, "Pathways of tasks")
    order = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert [paths.short_task(task) for task in TASKS] in (order, order[::-1])
    assert row_of(numbers, form=FREE, task=TASKS[2], pathway="2-2-2")["share"] == pytest.approx(0.4)


def test_hard_tasks_cost_more_where_they_were_made_to(tables_of_networks):
    _, numbers = made(tables_of_networks, "Cost and difficulty")
    rho = row_of(numbers, form=PRICED, task="rank correlation")
    assert rho["mean"] == pytest.approx(1) and rho["low"] > 0.8
    hard = row_of(numbers, form=PRICED, task=TASKS[4])
    assert math.isinf(hard["difficulty"]) and row_of(numbers, form=PRICED, task=TASKS[1])["difficulty"] == 2000
    free = row_of(numbers, form=FREE, task="rank correlation")
    assert abs(free["mean"]) < 0.8 and free["low"] < 0 < free["high"]


def test_what_changes_over_training_and_what_lesions_cost_is_ranked_by_difficulty(tables_of_networks):
    _, numbers = made(tables_of_networks, "Change of cost")
    assert row_of(numbers, form=PRICED, task="rank correlation")["mean"] == pytest.approx(-1)
    assert row_of(numbers, form=PRICED, task=TASKS[3])["mean"] == pytest.approx(-300)
    results, lesions, measures = tables_of_networks
    some = results, lesions[(lesions["lesion"] != LARGEST) | (lesions["seed"] < 2)], measures
    _, numbers = made(some, "Lesions and difficulty")  # a seed whose lesions are missing costs only itself
    assert row_of(numbers, form=FREE, task="rank correlation")["mean"] == pytest.approx(1)
    assert row_of(numbers, form=FREE, task=TASKS[3])["mean"] == pytest.approx(0.06)


def test_a_run_that_a_lesion_costs_nothing_has_no_ranks_and_costs_only_itself(tables_of_networks):
    results, lesions, measures = tables_of_networks
    lesions = lesions.copy()
    spared = (lesions["lesion"] == LARGEST) & (lesions["seed"] == 1)
    whole = results.drop_duplicates(["trial", "task_id"]).set_index(["trial", "task_id"])["success_rate"]
    lesions.loc[spared, "success_rate"] = [
        whole[key] for key in lesions.loc[spared, ["trial", "task_id"]].itertuples(index=False, name=None)
    ]
    _, numbers = made((results, lesions, measures), "Lesions and difficulty")
    rho = row_of(numbers, form=FREE, task="rank correlation")
    assert rho["mean"] == pytest.approx(1) and rho["low"] > 0.8 and "nan" in rho["seeds"].split()


def test_along_training_the_final_network_agrees_with_itself(tables_of_networks):
    _, numbers = made(tables_of_networks, "Pathways over training")
    halfway = [row for row in numbers if row["form"] == PRICED and row["share_of_training"] == 0.5]
    assert [row["same"] for row in halfway] == [0.5] * 3 and halfway[0]["rho"] == pytest.approx(1)
    assert {row["same"] for row in numbers if row["share_of_training"] == 1} == {1}


def test_the_price_is_the_difference_to_the_first_form_in_the_same_seed(tables_of_networks):
    _, numbers = made(tables_of_networks, "Price of pathways")
    assert row_of(numbers, form=PRICED, measure="difference")["mean"] == pytest.approx(-0.05)
    assert not [row for row in numbers if row["form"] == FREE and row["measure"] == "difference"]


def test_measures_of_routing_are_means_over_seeds_and_tasks(tables_of_networks):
    _, numbers = made(tables_of_networks, "Information")
    assert row_of(numbers, form=FREE, measure="I(task;pathway)")["mean"] == pytest.approx(0.6)
    assert row_of(numbers, form=FREE, measure="I(action;pathway)")["mean"] == pytest.approx(0.2)
    assert row_of(numbers, form=FREE, measure="task told from routing")["chance"] == pytest.approx(0.2)
    _, numbers = made(tables_of_networks, "Decisions of tasks")
    assert row_of(numbers, form=PRICED, measure="H(A|S)")["mean"] == pytest.approx(1, abs=1e-4)
    assert row_of(numbers, form=PRICED, measure="policy entropy")["mean"] == pytest.approx(-1, abs=1e-4)
    _, numbers = made(tables_of_networks, "Phases of tasks")
    assert row_of(numbers, task=TASKS[3], form=FREE, phase="with the key")["mean"] == pytest.approx(300)


@pytest.mark.parametrize("width", ["column", "page", "screen"])
def test_figures_fit_the_page_with_legible_text_and_no_experts_colors(tables_of_networks, width):
    with page(width) as chosen:
        for name, (_, make) in pathway_figures(*tables_of_networks).items():
            figure = make()
            figure.draw_without_rendering()
            assert chosen.width in (None, figure.get_figwidth()), name
            texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
            assert min(text.get_fontsize() for text in texts) >= 7, name
            assert not {line.get_color() for panel in figure.axes for line in panel.lines} & set(EXPERT_COLORS), name
            assert numbers_of(figure), name


def test_what_is_missing_is_said(tables_of_networks):
    results, lesions, measures = tables_of_networks
    for _, make in pathway_figures(results.drop(columns="routing"), lesions, measures).values():
        with pytest.raises(NothingToShow, match="several tasks"):
            make()
    figures = pathway_figures(results, lesions.head(0), measures.head(0))
    for name in NEEDS_MEASURES:
        with pytest.raises(NothingToShow, match=r"pathways\.py"):
            figures[name][1]()
    with pytest.raises(NothingToShow, match="own_pathway"):
        figures["Self-sufficiency"][1]()
    damaged = results.assign(routing=results["routing"].str[:-3])
    with pytest.raises(NothingToShow, match=r"checkpoint_final\.pt holds .* evaluate it again"):
        pathway_figures(damaged, lesions, measures)["Consistency"][1]()
    alone = pathway_figures(results[results["seed"] == 0], lesions, measures)
    with pytest.raises(NothingToShow, match="two seeds"):
        alone["Consistency"][1]()
    final = pathway_figures(results[results["update"].isna()], lesions, measures)
    for name in ("Change of cost", "Pathways over training"):
        with pytest.raises(NothingToShow, match="along the way"):
            final[name][1]()


def test_the_table_of_claims_has_means_and_intervals_of_the_figures(tables_of_networks):
    numbers = {name: numbers_of(make()) for name, make in pathway_figures(*tables_of_networks).values()}
    lines = pathways.claims(numbers).splitlines()
    assert lines[0] == f"| measure | {FREE} | {PRICED} |"
    cells = {line.split(" | ")[0].removeprefix("| "): line.removesuffix(" |").split(" | ")[1:] for line in lines}
    assert cells["LPC and difficulty, rho"][1] == "1.00 (1.00 to 1.00)"
    assert cells["difference"] == ["", "-0.05 (-0.05 to -0.05)"]
    assert cells["success, own pathway above 0.2 left"][0].startswith("0.35 (")


def test_the_notebook_saves_them_where_networks_do_many_tasks_and_opens_without(tables_of_networks, tmp_path):
    results, _, measures = tables_of_networks
    path = tmp_path / "evaluation_results.csv"
    results = results.assign(name=results["checkpoint_path"], folder="", has_cache=False)
    saved = cross_task_viz.saved_figures(results, [], "", str(path), print)
    assert {"consistency", "price_of_pathways"} <= saved.keys()
    with pytest.raises(NothingToShow, match=r"pathways\.py"):
        saved["information"]()
    tables.write_measures(paths.measures_path(path), measures.to_dict("records"))
    assert numbers_of(cross_task_viz.saved_figures(results, [], "", str(path), print)["information"]())
    older = results.drop(columns=["routing", "pathways", "trained_on"])
    assert "consistency" not in cross_task_viz.saved_figures(older, [], "", str(path), print)
    with pytest.raises(NothingToShow, match="no network here does several tasks"):
        cross_task_viz.pathway_views(older, str(path))["Consistency"][1]()


# ------------------------------------------------------------------------------------------------------- the script


def test_networks_are_measured_from_their_caches_and_checkpoints(tmp_path, monkeypatch):
    """Three tasks, one untrained network with a checkpoint halfway, a baseline: all that can be measured is."""
    monkeypatch.chdir(tmp_path)
    tasks, rows = TASKS[:3], []
    routing = {task: bot_routing_data(task, 6, seed=len(task)) for task in tasks}
    for update in (None, 5):
        path = save("checkpoints", "all", 0, seed=1, update=update, num_updates=10, max_steps=30)
        for task, data in routing.items():
            cache = paths.routing_cache_path("evaluation_cache", paths.CheckpointRef(path, task, 0, 1, update))
            write_routing_cache(cache, {"checkpoint_path": str(path)}, data)
            row = {"checkpoint_path": path, "task_id": task, "trial": 0, "num_episodes": 6, "success_rate": 1}
            row |= {"mean_lpc": 100, "seed": 1, "update": update, "trained_on": "all", "routing_cache": cache}
            rows.append(row | {"num_updates": 10, "lpc_alpha": 0, **pathway_columns(data)})
    baseline = Path("checkpoints", tasks[0], "trial_1", "seed_0", "checkpoint_final.pt")
    baseline.parent.mkdir(parents=True)
    tables.write_metrics(
        baseline.parent / "metrics.csv", [{"update": u, "env_steps": 100 * u, "accuracy": 0.2 * u} for u in range(1, 5)]
    )
    rows.append({"checkpoint_path": baseline, "task_id": tasks[0], "trial": 1, "num_episodes": 6, "success_rate": 0.5})
    tables.write_result_rows(
        "evaluation_results.csv", [{name: tables._cell(v) for name, v in row.items()} for row in rows]
    )
    flags = ["--num_episodes", "2", "--export", "exported"]
    done = subprocess.run([sys.executable, ROOT / "pathways.py", *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = tables.read_measures("evaluation_results_pathways.csv")
    of = measured.groupby("measure")["value"]
    assert of.get_group(f"{STEPS_TO}0.75").tolist() == [400]
    assert len(of.get_group("same expert, layer 2")) == len(of.get_group("H(A|S)")) == 3
    assert of.get_group("same expert, layer 0").tolist() == pytest.approx([1, 1, 1]), (
        "both checkpoints have the same weights"
    )
    assert len(of.get_group("LPC, with the key")) == 1 and 0 <= of.get_group("task told from routing").iloc[0] <= 1
    saved = {path.stem for path in Path("plots/pathways").glob("*.png")}
    assert {"task_pathways", "information", "price_of_pathways", "phases_of_tasks"} <= saved
    assert "no consistency: consistency compares runs" in done.stderr and "Traceback" not in done.stderr

    drawn = ["--results_path", "exported/results.csv", "--figures", "again"]
    again = subprocess.run([sys.executable, ROOT / "pathways.py", *drawn], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout.split("\n", 1)[1], "what was exported gives the same table"
    for path in Path("again").glob("*.csv"):
        assert path.read_bytes() == Path("plots/pathways", path.name).read_bytes()


def test_the_numbers_of_the_docs_are_those_of_its_data(tmp_path):
    docs = ROOT / "docs" / "pathways"
    table = pathways.draw(docs / "results.csv", tmp_path, [], "screen")
    assert table in (ROOT / "docs" / "pathways.md").read_text(encoding="utf-8")
    made = sorted(path.name for path in tmp_path.glob("*.csv"))
    kept = {path.name for path in docs.glob("*.csv")} - {path.name for path in docs.glob("results*.csv")}
    assert set(made) == kept
    for name in made:
        again, first = (pd.read_csv(folder / name) for folder in (tmp_path, docs))
        pd.testing.assert_frame_equal(again, first, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "run batch_eval.py first"),
        (["--accuracy", "2"], "--accuracy 2"),
        (["--figure", "x"], "--figures"),
        (["--results_path", "old.csv"], "several tasks"),
        (["--results_path", "bad.csv"], "not a results CSV"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(tmp_path, flags, problem):
    row = {"checkpoint_path": "a.pt", "task_id": TASKS[0], "trial": 0, "success_rate": 1, "mean_lpc": 5}
    tables.write_result_rows(tmp_path / "old.csv", [row])
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    command = [sys.executable, ROOT / "pathways.py", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_file_of_other_numbers_is_no_file_of_measures(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(tables.ArtifactError, match="no measures of pathways"):
        tables.read_measures(tmp_path / "x.csv")
    assert tables.read_measures(tmp_path / "none.csv").empty
