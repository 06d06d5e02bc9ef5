"""Figures of many runs: what error bars and curves show, checked against plain calculations."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from scipy.stats import spearmanr

import report
from plotting.cross_task import (
    CURVES,
    plot_learning_curves,
    plot_lesions,
    plot_lpc_against_difficulty,
    plot_lpc_alpha,
    plot_metrics_over_updates,
    plot_success_against_lpc,
)
from plotting.data import NothingToShow
from plotting_utils import EXPERT_COLORS, numbers_of, page
from results import tables
from results.routing_data import RoutingData
from results.statistics import seed_agreement, summarise_runs, wilson_interval

LOCAL, MAZE = "BabyAI-GoToLocal-v0", "BabyAI-GoToObjMaze-v0"


def results_of(*rows):
    columns = ["task_id", "trial", "seed", "success_rate", "mean_lpc", "lpc_alpha"]
    frame = pd.DataFrame(rows, columns=columns).assign(num_episodes=100)
    return frame.astype({"trial": "Int64", "seed": "Int64"})


@pytest.fixture
def results():
    return results_of(
        (LOCAL, 0, 1, 0.8, 100.0, 1e-5),
        (LOCAL, 0, 2, 0.9, 140.0, 1e-5),
        (LOCAL, 1, 1, 1.0, 300.0, 0.0),
        (LOCAL, 2, 1, 0.7, np.nan, np.nan),
        (MAZE, 0, None, 0.5, 900.0, 1e-5),
    )


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    assert buffer.getvalue().startswith(b"\x89PNG")
    return buffer.getvalue()


def points_of(axes):
    """Return the points [N, 2] of a panel of error bars, from left to right."""
    points = np.concatenate([container.lines[0].get_xydata() for container in axes.containers])
    return points[points[:, 0].argsort()]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("num_episodes", [1, 10, 500])
def test_wilson_interval_holds_the_rates_whose_score_test_accepts_the_share(share, num_episodes):
    low, high = wilson_interval(share, num_episodes)
    assert 0 <= low < high <= 1
    assert low <= share + 1e-12 and share - 1e-12 <= high
    for bound in (low, high):
        if 1e-9 < bound < 1 - 1e-9:
            score = abs(share - bound) / np.sqrt(bound * (1 - bound) / num_episodes)
            assert score == pytest.approx(1.96, abs=1e-4)


def test_wilson_interval_holds_the_true_rate_about_95_times_of_100():
    true_rate, num_episodes = 0.9, 50
    successes = np.random.default_rng(0).binomial(num_episodes, true_rate, 2000)
    intervals = np.array([wilson_interval(count / num_episodes, num_episodes) for count in successes])
    covered = ((intervals[:, 0] <= true_rate) & (true_rate <= intervals[:, 1])).mean()
    assert 0.92 < covered < 0.98


def test_runs_are_means_over_seeds_with_standard_errors_and_wilson_intervals_of_single_runs(results):
    runs = summarise_runs(results).set_index(["task_id", "trial"])
    assert len(runs) == 4
    two = runs.loc[(LOCAL, 0)]
    error = np.std([0.8, 0.9], ddof=1) / np.sqrt(2)
    assert two["seeds"] == 2 and two["success_rate"] == pytest.approx(0.85)
    assert (two["success_low"], two["success_high"]) == pytest.approx((0.85 - error, 0.85 + error))
    assert two["mean_lpc"] == pytest.approx(120) and two["lpc_error"] == pytest.approx(20)
    one = runs.loc[(MAZE, 0)]
    assert (one["success_low"], one["success_high"]) == pytest.approx(wilson_interval(0.5, 100))
    assert one["lpc_error"] == 0
    assert np.isnan(runs.loc[(LOCAL, 2)]["mean_lpc"])


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("missing", [name for name, kind in tables.RESULT_TYPES.items() if not kind or "null" in kind])
def test_rows_without_one_of_their_values_are_summarised_and_drawn(results, missing, everywhere, tmp_path):
    for place, row in enumerate(results.assign(path_ratio=1.5, bot_plan_failures=0).to_dict("records")):
        empty = {missing: None} if everywhere or place in (0, 4) else {}
        tables.upsert_result(tmp_path / "results.csv", row | {"checkpoint_path": f"{place}.pt"} | empty)
    read = tables.read_results(tmp_path / "results.csv")
    runs = summarise_runs(read)
    single = runs[runs["seeds"] == 1]
    if missing == "num_episodes":
        known = [not everywhere and trial in (1, 2) for trial in single["trial"]]
        assert single["success_rate"].notna().all() and single["success_low"].notna().tolist() == known
    for draw in (plot_success_against_lpc, plot_lpc_alpha, plot_lpc_against_difficulty, plot_metrics_over_updates):
        try:
            png(draw(read))
        except NothingToShow:
            assert draw is not plot_success_against_lpc
    assert "<td>" in report.results_table(read)


def test_checkpoints_along_the_way_are_runs_of_their_own(results):
    results["update"] = pd.array([pd.NA, pd.NA, pd.NA, pd.NA, 50], "Int64")
    both = pd.concat([results, results.tail(1).assign(update=pd.NA, success_rate=0.6)])
    assert len(summarise_runs(both)) == 5
    png(plot_success_against_lpc(both))


def test_success_against_lpc_has_every_mixture_at_its_lpc_and_baselines_in_a_strip(results):
    figure = plot_success_against_lpc(results)
    strip, panel = figure.axes
    assert points_of(panel) == pytest.approx(np.array([[120.0, 0.85], [300.0, 1.0], [900.0, 0.5]]))
    assert points_of(strip)[:, 1].tolist() == [0.7]
    assert "baselines" in strip.get_xlabel() and "Wilson" in figure.get_suptitle()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["GoToLocal", "GoToObjMaze"]
    png(figure)


@pytest.mark.parametrize("kept", ["mixtures", "baselines"])
def test_success_against_lpc_with_one_kind_of_policy_is_one_panel(results, kept):
    is_mixture = results["mean_lpc"].notna()
    figure = plot_success_against_lpc(results[is_mixture if kept == "mixtures" else ~is_mixture])
    assert len(figure.axes) == 1 and figure.axes[0].get_ylabel() == "success rate"
    png(figure)


def test_no_results_are_an_error_that_says_so(results):
    with pytest.raises(ValueError, match="no results"):
        plot_success_against_lpc(results.head(0))
    png(plot_lpc_alpha(results.head(0)))


def test_lpc_alpha_joins_the_runs_of_a_task_and_marks_each_price(results):
    figure = plot_lpc_alpha(results)
    success, lpc = figure.axes
    local = next(container for container in success.containers if container.get_label() == "GoToLocal")
    assert local.lines[0].get_xydata() == pytest.approx(np.array([[0.0, 1.0], [1e-5, 0.85]]))
    assert sorted(points_of(lpc)[:, 1]) == pytest.approx([120, 300, 900])
    png(figure)
    assert {"0", "10⁻⁵"} <= {label.get_text() for label in success.get_xticklabels()}


def curve_of(scale, updates=(20, 40, 60)):
    updates = np.array(updates)
    return pd.DataFrame({"update": updates, "env_steps": updates * 1000, **dict.fromkeys(CURVES, scale * updates)})


def test_learning_curves_are_means_over_the_updates_that_all_seeds_logged_with_bands_of_their_range():
    figure = plot_learning_curves({"GoToLocal trial 0": [curve_of(0.001), curve_of(0.003, (20, 40))]})
    panel = figure.axes[0]
    assert panel.get_lines()[0].get_xydata() == pytest.approx(np.array([[0.02, 0.04], [0.04, 0.08]]))
    thin = [line.get_xydata() for line in panel.get_lines() if line.get_linewidth() < 1]
    assert np.concatenate(thin) == pytest.approx(
        np.array([[0.02, 0.02], [0.04, 0.04], [0.06, 0.06], [0.02, 0.06], [0.04, 0.12]])  # every seed, all of it
    )
    band = panel.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((0.02, 0.12))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["GoToLocal trial 0 (2 seeds)"]
    png(figure)


def test_a_baseline_without_lpc_has_the_other_curves():
    figure = plot_learning_curves({"GoToObj trial 1": [curve_of(0.01).assign(mean_lpc=np.nan)]})
    assert figure.legends[0].get_texts()[0].get_text() == "GoToObj trial 1 (baseline)"
    assert figure.get_suptitle() == "Learning curves"
    assert figure.axes[0].get_lines()[0].get_ydata().tolist() == pytest.approx([0.2, 0.4, 0.6])
    png(figure)


def test_twenty_runs_are_told_apart_by_color_and_line_and_fit_beside_each_other():
    figure = plot_learning_curves({f"run {run}": [curve_of(0.0005 * run)] * 2 for run in range(20)})
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 20 and not figure.axes[0].collections
    png(figure)
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.y0 <= legend.y0 and legend.x1 <= figure.bbox.x1 + 1
    assert all(panel.get_window_extent().x1 <= legend.x0 for panel in figure.axes)


def test_thirty_tasks_differ_in_color_or_marker():
    rows = [(f"BabyAI-Task{task}-v0", 0, 0, 0.5, 10.0 * task + 1, 1e-5) for task in range(30)]
    panel = plot_success_against_lpc(results_of(*rows)).axes[0]
    looks = {(container.lines[0].get_color(), container.lines[0].get_marker()) for container in panel.containers}
    assert len(looks) == 30


def test_lpc_against_difficulty_shows_each_task_at_what_the_baseline_fails():
    tasks = [f"BabyAI-{letter}-v0" for letter in "ABCDE"]
    lpc, failed = [5.0, 30.0, 20.0, 80.0, 60.0], [0.0, 0.1, 0.4, 1.0, 1.0]
    rows = [(task, 0, seed, 0.9, value + seed, 0.0) for task, value in zip(tasks, lpc, strict=True) for seed in (0, 2)]
    rows += [(task, 2, 0, 1 - share, np.nan, np.nan) for task, share in zip(tasks, failed, strict=True)]
    rows += [(tasks[1], 1, 0, 0.9, 7.0, 1e-5), (tasks[1], 2, 1, 0.7, np.nan, np.nan)]  # another seed of the baseline
    rows += [("BabyAI-NoBaseline-v0", 0, 0, 0.9, 3.0, 0.0)]
    figure = plot_lpc_against_difficulty(results_of(*rows))
    first, second = figure.axes
    np.testing.assert_allclose(points_of(first)[:3], [[0, 6], [0.2, 31], [0.4, 21]])
    assert sorted(points_of(first)[3:].tolist()) == [[1, 61], [1, 81]]
    rho = spearmanr([1, 2, 3, 4.5, 4.5], lpc).statistic
    assert first.get_title() == f"trial 0: Spearman {rho:.2f}, 5 tasks"
    np.testing.assert_allclose(points_of(second), [[0.2, 7]])
    assert second.get_title() == "trial 1"
    png(figure)
    with pytest.raises(ValueError, match="no task has both"):
        plot_lpc_against_difficulty(results_of(*rows[-1:]))


def test_names_of_tasks_that_lie_close_together_do_not_cover_each_other():
    rows = [(f"BabyAI-Level{n}-v0", 0, 0, 0.9, 500.0 + n % 3, 0.0) for n in range(20)]
    rows += [(f"BabyAI-Level{n}-v0", 1, 0, 1 - n / 500, np.nan, np.nan) for n in range(20)]
    figure = plot_lpc_against_difficulty(results_of(*rows))
    figure.draw_without_rendering()
    (panel,) = figure.axes
    boxes = {text.get_text(): Text.get_window_extent(text) for text in panel.texts}
    assert len(boxes) == 20
    for one, other in itertools.combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one, other)
    for name, box in boxes.items():
        assert panel.bbox.contains(*box.min) and panel.bbox.contains(*box.max), name


def test_lesions_are_drawn_beside_the_whole_policies_means_over_seeds():
    whole = results_of((LOCAL, 0, 0, 1.0, 9, 0), (LOCAL, 0, 1, 0.8, 9, 0), (MAZE, 0, 0, 0.5, 9, 0))
    whole["checkpoint_path"] = ["a", "b", "c"]
    lesioned = whole.assign(success_rate=[0.2, 0.6, 0.4], lesion="0-2")
    stranger = lesioned.tail(1).assign(checkpoint_path="gone")
    figure = plot_lesions(whole, pd.concat([lesioned, stranger]))
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["GoToObjMaze", "GoToLocal"]  # by what is lost
    without, without_seeds, complete, complete_seeds = panel.lines
    assert sorted(without_seeds.get_xdata()) == [0.2, 0.4, 0.6] and sorted(complete_seeds.get_xdata()) == [0.5, 0.8, 1]
    assert dict(zip(without.get_ydata(), without.get_xdata(), strict=True)) == pytest.approx({0: 0.4, 1: 0.4})
    assert dict(zip(complete.get_ydata(), complete.get_xdata(), strict=True)) == pytest.approx({0: 0.5, 1: 0.9})
    png(figure)
    with pytest.raises(ValueError, match="experts off"):
        plot_lesions(whole, stranger)


def test_metrics_along_training_are_joined_per_run_with_a_dot_per_seed():
    rows = results_of(
        (LOCAL, 0, 1, 0.5, 90, 0), (LOCAL, 0, 1, 0.9, 50, 0), (LOCAL, 0, 2, 0.7, 70, 0), (MAZE, 0, 1, 1, 9, 0)
    )
    rows = rows.assign(update=pd.array([100, pd.NA, 100, pd.NA], "Int64"), num_updates=400)
    success, lpc = plot_metrics_over_updates(rows).axes
    assert success.lines[0].get_xydata().tolist() == [
        [100, 0.6],
        [400, 0.9],
    ]  # the maze has no checkpoint along the way
    assert sorted(success.lines[1].get_ydata()) == [0.5, 0.7, 0.9] and len(success.lines) == 2
    assert lpc.lines[0].get_xydata().tolist() == [[100, 80], [400, 50]]
    with pytest.raises(ValueError, match="along the way"):
        plot_metrics_over_updates(rows[rows["update"].isna()])


def test_lesions_name_experts_and_not_their_numbers():
    whole = results_of((LOCAL, 0, 0, 1.0, 9, 0)).assign(checkpoint_path="a", expert_hidden_sizes="[[0, 16, 32]]")
    labels = plot_lesions(whole, whole.assign(lesion="0-2")).legends[0].get_texts()
    assert [label.get_text() for label in labels] == ["without GRU 32", "all experts"]


def test_every_seed_is_a_dot_where_a_mean_is_drawn_and_no_task_has_an_experts_color(results):
    _, panel = plot_success_against_lpc(results).axes
    dots = np.concatenate([line.get_xydata() for line in panel.lines if line.get_markersize() == 3])
    assert sorted(map(tuple, dots.tolist())) == [(100.0, 0.8), (140.0, 0.9)]  # of the only run with two seeds
    assert not {line.get_color() for line in panel.lines} & set(EXPERT_COLORS)


@pytest.mark.parametrize("width", ["column", "page"])
def test_figures_of_many_runs_fit_a_page(results, width):
    with page(width) as chosen:
        for figure in (
            plot_success_against_lpc(results),
            plot_lpc_alpha(results),
            plot_lpc_against_difficulty(results),
            plot_learning_curves({"GoToLocal trial 0": [curve_of(0.001), curve_of(0.003)]}),
        ):
            figure.draw_without_rendering()
            assert figure.get_figwidth() == chosen.width and numbers_of(figure)
            texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
            assert min(text.get_fontsize() for text in texts) >= 7


def test_seeds_agree_where_they_find_the_same_levels_expensive():
    def routing(lpc_by_level, failed=()):
        episodes = [{"seed": level, "success": level not in failed} for level in range(len(lpc_by_level))]
        columns = [(level, t, lpc + t) for level, lpc in enumerate(lpc_by_level) for t in (-1, 1)]
        episode, _, lpc = zip(*columns, strict=True)
        count = len(columns)
        position, zeros = np.zeros((count, 2)), np.zeros(count)
        return RoutingData(episode, zeros, position, [np.ones((count, 1))], lpc, zeros, zeros, episodes)

    first = [10, 40, 20, 30, 50]
    assert seed_agreement(routing(first), routing([1, 4, 2, 3, 5])) == pytest.approx(1)
    assert seed_agreement(routing(first), routing([5, 2, 4, 3, 1])) == pytest.approx(-1)
    expected = spearmanr([10, 40, 20, 30], [7, 9, 3, 8]).statistic
    assert seed_agreement(routing(first), routing([7, 9, 3, 8, 0], failed={4})) == pytest.approx(expected)
    assert np.isnan(seed_agreement(routing(first, failed={0, 1, 2}), routing(first)))
