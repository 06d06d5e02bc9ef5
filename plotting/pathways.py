"""Pathways of networks that do many tasks: consistency, self-sufficiency, distinctness, cost and difficulty.

Results are the data frame of `tables.read_results`, with a row per network (checkpoint) and task and the columns of
`pathways.pathway_columns`. A *form* is a way to train, a set of tasks and a trial number; its runs are its seeds. What
each measure is, and where it comes from, stands in results/pathways.py; docs/pathways.md shows these figures.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plotting.data import NothingToShow
from plotting.style import (
    SEQUENTIAL,
    current_page,
    keep_numbers,
    legend_below,
    new_figure,
    number_text,
    panels_in_a_row,
    plain,
    set_title,
    small,
    task_styles,
    wrapped,
)
from results.paths import short_task
from results.pathways import STEPS_TO, cluster_tasks, consistency, consistency_null
from results.statistics import (
    bootstrap_interval,
    correlation,
    fisher_mean,
    mean_interval,
    pairs_interval,
    rank_correlation,
)

if TYPE_CHECKING:
    import pandas as pd

FEWEST_TASKS = 3  # of a network whose tasks are compared
NULL_COLOR = "#d9d9d9"
NO_NETWORKS = (
    "no network here does several tasks and has its routing in the results: train one (python train_mop.py --tasks"
    " ...) and evaluate it (python batch_eval.py)"
)
NOTHING_ALONG = "no checkpoint along the way was evaluated (batch_eval.py without --final_only does)"


class Runs(NamedTuple):
    """The runs of one form.

    Attributes:
        tasks: of every one of its networks, [K].
        seeds: [R]; -1 where a run has none.
        routing: mean weights [R, K, W].
        success, lpc: [R, K].
        paths: of the checkpoints, [R].
    """

    tasks: list[str]
    seeds: list[int]
    routing: np.ndarray
    success: np.ndarray
    lpc: np.ndarray
    paths: list[str]


def networks(results: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows of networks that were trained on a set of tasks and evaluated on three of it or more, by set,
    trial and checkpoint; their column `form` says how they were trained: price, how it is scaled, experts dropped.

    Raises:
        NothingToShow: there are none, or their rows do not tell their routing.
    """
    if "trained_on" not in results or "routing" not in results:
        raise NothingToShow(NO_NETWORKS)
    alone = results.loc[results["trained_on"] == results["task_id"], "checkpoint_path"]
    rows = results[results["routing"].notna() & results["trained_on"].notna() & results["trial"].notna()]
    rows = rows[~rows["checkpoint_path"].isin(alone)]
    if len(rows):
        rows = rows[rows.groupby("checkpoint_path")["task_id"].transform("nunique") >= FEWEST_TASKS]
    if rows.empty:
        raise NothingToShow(NO_NETWORKS)
    rows = rows.sort_values(["trained_on", "trial", "checkpoint_path"], kind="stable")
    keys = list(zip(rows["trained_on"], rows["trial"], strict=True))
    names = _form_names(rows, keys)
    return rows.assign(form=[names[key] for key in keys])


def _form_names(rows: "pd.DataFrame", keys: Sequence[tuple]) -> dict[tuple, str]:
    """Return by set and trial what their form is called: all differ."""
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    told = {key: rows.iloc[place] for key, place in first.items()}
    names = {
        key: _form_name(*(row.get(name) for name in ("lpc_alpha", "normalize_lpc", "expert_dropout")))
        for key, row in told.items()
    }
    if len({trained_on for trained_on, _ in names}) > 1:
        names = {key: f"{key[0]}: {name}" for key, name in names.items()}
    doubled = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {key: f"{name} (trial {key[1]})" if name in doubled else name for key, name in names.items()}


def _form_name(alpha, scaling, dropout) -> str:
    price, dropped = (0.0 if _is_missing(value) else float(value) for value in (alpha, dropout))
    scaled = {"detached": ", scaled by loss", "attached": ", scaled by loss (attached)"}
    name = f"price {number_text(price)}{scaled.get(str(scaling), '')}" if price else "no price"
    return name + (", experts dropped" if dropped else "")


def _is_missing(value) -> bool:
    return value is None or value != value


def runs_of_forms(results: "pd.DataFrame") -> dict[str, Runs]:
    """Return the final networks of each form, by its name: those that were evaluated on the tasks that most were."""
    rows = networks(results)
    if "update" in rows:
        final = rows[rows["update"].isna()]
        rows = final if len(final) else rows
    forms = {}
    for name in rows["form"].unique():
        group = rows[rows["form"] == name]
        wanted = group.groupby("checkpoint_path")["task_id"].agg(lambda tasks: tuple(sorted(tasks)))
        tasks = list(wanted.mode().iloc[0])
        paths = sorted(wanted.index[wanted == tuple(tasks)])
        runs = [group[group["checkpoint_path"] == path].set_index("task_id").loc[tasks] for path in paths]
        forms[name] = Runs(
            tasks,
            [int(run["seed"].fillna(-1).iloc[0]) if "seed" in run else -1 for run in runs],
            np.array(
                [[_flat(_told(cell, path)) for cell in run["routing"]] for path, run in zip(paths, runs, strict=True)]
            ),
            np.array([run["success_rate"].astype(float) for run in runs]),
            np.array([run["mean_lpc"].astype(float) for run in runs]),
            paths,
        )
    return forms


def _told(cell: str, path: str):
    """Return what a cell of a checkpoint's row says in JSON.

    Raises:
        NothingToShow: it is damaged.
    """
    try:
        return json.loads(cell)
    except (ValueError, TypeError):
        raise NothingToShow(f"the row of {path} holds {cell!r:.40}: evaluate it again with --force") from None


def _flat(layers: Sequence[Sequence[float]]) -> list[float]:
    return [weight for layer in layers for weight in layer]


def _of_runs(forms: Mapping[str, Runs]) -> str:
    """Return how many tasks and seeds a figure is about."""
    tasks = sorted({len(runs.tasks) for runs in forms.values()})
    seeds = sorted({len(runs.seeds) for runs in forms.values()})
    return f"{_range(tasks)} tasks, {_range(seeds)} seed{'s' * (seeds[-1] != 1)} each"


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"


def _tall(height: float) -> float:
    """Return the height for panels full of text, which `new_figure` flattens where the page is narrow."""
    width = current_page().width
    return height if width is None or width > 5 else 1.6 * height


def _rows_of_forms(names: Sequence[str], panels: Sequence[tuple[str, str]], title: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with a row per form, and its panels, each (title, label of x)."""
    columns = panels_in_a_row(len(panels), 2.0)
    height = 0.36 * len(names) + 1.0
    figure, axes = new_figure(-(-len(panels) // columns), columns, 3.0, height, title, sharey=True)
    room = figure.get_figwidth() / columns - (1.6 if columns == 1 else 0.7)
    for panel, (head, label) in zip(axes.flat, panels, strict=False):
        plain(panel).set_title(wrapped(head, room, small()), fontsize=small())
        panel.set_xlabel(wrapped(label, room, small()))
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.set_yticks(range(len(names)), [wrapped(name, 1.2, small()) for name in names], fontsize=small())
        panel.set_ylim(len(names) - 0.5, -0.5)
    for unused in axes.flat[len(panels) :]:
        unused.set_axis_off()
    return figure, list(axes.flat[: len(panels)])


def _dots(panel: Axes, row: float, values: Sequence[float], interval: Sequence[float]) -> None:
    """Draw values as dots, and their mean with an interval (mean, low, high) where there is one."""
    mean, low, high = interval
    panel.plot(values, [row + 0.13] * len(values), "o", color="#777777", markersize=3, alpha=0.7, markeredgewidth=0)
    bar = None if np.isnan(low) else [[mean - low], [high - mean]]
    panel.errorbar([mean], [row - 0.08], xerr=bar, fmt="o", color="black", markersize=4, capsize=2, linewidth=1)


def _number(form: str, measure: str, interval: Sequence[float], values: Sequence[float] | np.ndarray) -> dict:
    """Return the row of a figure's CSV for one measure of a form: (mean, low, high), and every seed's value."""
    mean, low, high = interval
    seeds = " ".join(f"{value:.4f}" for value in values)
    return {"form": form, "measure": measure, "mean": mean, "low": low, "high": high, "seeds": seeds}


def plot_consistency(results: "pd.DataFrame") -> Figure:
    """Return how alike runs of a form route the same tasks: `pathways.consistency` of each pair of seeds, their mean
    with its 95 % interval (`statistics.pairs_interval`), and where it lies if tasks are permuted.

    Raises:
        NothingToShow: no form has two runs.
    """
    forms = {name: runs for name, runs in runs_of_forms(results).items() if len(runs.seeds) > 1}
    if not forms:
        raise NothingToShow("consistency compares runs of one form: train at least two seeds of it")
    heads = [("what differs between tasks", "r, each expert's mean over tasks subtracted"), ("as it is", "r")]
    notes = f"{_of_runs(forms)}; dots: pairs of seeds; grey: tasks permuted"
    title = f"How alike do runs route the same tasks?\n({notes})"
    figure, panels = _rows_of_forms(list(forms), heads, title)
    numbers = []
    for panel, centred in zip(panels, (True, False), strict=True):
        for row, (name, runs) in enumerate(forms.items()):
            values = consistency(runs.routing, centred)
            pairs = values[np.triu_indices(len(values), 1)]
            mean, low, high = np.clip(pairs_interval(values), -1, 1).tolist()
            number = {"form": name, "centred": centred, "pairs": " ".join(f"{r:.4f}" for r in pairs)}
            number |= {"mean": mean, "low": low, "high": high}
            if centred:
                null = consistency_null(runs.routing)
                edges = np.nanquantile(null, [0.025, 0.975]) if np.isfinite(null).any() else [np.nan, np.nan]
                panel.barh(row, edges[1] - edges[0], 0.8, edges[0], color=NULL_COLOR)
                number |= {"null_low": edges[0], "null_high": edges[1]}
                number["p"] = (1 + (null >= mean - 1e-9).sum()) / (1 + len(null))
            _dots(panel, row, pairs.tolist(), (mean, low, high))
            numbers.append(number)
        panel.axvline(0, color="grey", linewidth=0.8)
        panel.set_xlim(-1.05, 1.05)
    return keep_numbers(figure, numbers)


# -------------------------------------------------------------------------------------------------- self-sufficiency


def lesion_threshold(lesion: str) -> tuple[str, float] | None:
    """Return the kind (`min`: at each step, `own`: of the task's pathway) and the threshold of a lesion's name, None
    for lesions without one."""
    for kind in ("min", "own"):
        if str(lesion).startswith(kind):
            try:
                return kind, float(str(lesion).removeprefix(kind))
            except ValueError:
                return None
    return None


def _lesioned(lesions: "pd.DataFrame", runs: Runs, lesion: str) -> np.ndarray:
    """Return the success [R, K] of runs under a lesion, NaN where it was not measured."""
    rows = lesions[(lesions["lesion"].astype(str) == lesion) & lesions["checkpoint_path"].isin(runs.paths)]
    table = rows.drop_duplicates(["checkpoint_path", "task_id"], keep="last")
    table = table.pivot(index="checkpoint_path", columns="task_id", values="success_rate")
    return table.reindex(index=runs.paths, columns=runs.tasks).to_numpy(float)


def plot_self_sufficiency(results: "pd.DataFrame", lesions: "pd.DataFrame") -> Figure:
    """Return success over the threshold below which experts are switched off, a line per form, its mean over tasks and
    seeds, a dot per seed: left at each step (`--min_router_weight`, as arXiv 2506.02813 does), right all that is not on
    the task's own pathway (`--own_pathway`), at every step of it.

    Raises:
        NothingToShow: no such lesion was measured.
    """
    forms = runs_of_forms(results)
    names = sorted({str(name) for name in lesions["lesion"].dropna()}) if "lesion" in lesions else []
    told = {name: lesion_threshold(name) for name in names}
    kinds = {"min": "experts below it off, step by step", "own": "only the task's own pathway is left"}
    title = f"Can a pathway stand alone?\n({_of_runs(forms)}; lines: means, dots: seeds, means over tasks)"
    columns = panels_in_a_row(2, 2.0)
    figure, axes = new_figure(2 // columns, columns, 3.6, 2.7, title, sharey=True)
    styles, numbers = task_styles(forms), []
    for panel, (kind, head) in zip(axes.flat, kinds.items(), strict=True):
        plain(panel).set_title(head, fontsize=small())
        panel.set(xlabel="threshold (routing weight)", ylim=(-0.03, 1.05))
        for name, runs in forms.items():
            curves = {0.0: runs.success.mean(1)}
            for lesion, threshold in told.items():
                if threshold is not None and threshold[0] == kind:
                    success = _lesioned(lesions, runs, lesion)
                    if np.isfinite(success).all(1).any():
                        curves[threshold[1]] = success.mean(1)
            if len(curves) < 2:
                continue
            curves = dict(sorted(curves.items()))
            means = {at: mean_interval(values) for at, values in curves.items()}
            style = styles[name]
            panel.plot(list(means), [mean for mean, *_ in means.values()], label=name, markersize=4, **style)
            for at, values in curves.items():
                panel.plot([at] * len(values), values, "o", color=style["color"], markersize=2.5, alpha=0.55)
                mean, low, high = means[at]
                number = {"form": name, "lesion": kind, "threshold": at, "mean": mean, "low": low, "high": high}
                numbers.append(number | {"seeds": " ".join(f"{value:.4f}" for value in values)})
    if not numbers:
        raise NothingToShow(
            "no threshold was measured (python batch_eval.py --min_router_weight W, and --own_pathway W)"
        )
    for panel in axes[:, 0]:
        panel.set_ylabel("success rate")
    drawn = next(panel for panel in axes.flat if panel.lines)
    legend_below(figure, *drawn.get_legend_handles_labels())
    return keep_numbers(figure, numbers)


# ------------------------------------------------------------------------------------------------------ distinctness


def plot_task_pathways(results: "pd.DataFrame", most: int = 12) -> Figure:
    """Return which pathways each task takes, a panel per form, of its first run: the share of steps of each task (row)
    on each pathway (column, its strongest experts), tasks clustered by it (`pathways.cluster_tasks`)."""
    from scipy.cluster.hierarchy import dendrogram

    rows, forms = networks(results), runs_of_forms(results)
    columns = panels_in_a_row(min(3, len(forms)), 2.8)
    width = columns * 3.6
    height = 0.17 * max(len(runs.tasks) for runs in forms.values()) + 1.2
    figure, _ = new_figure(-(-len(forms) // columns), 1, width, height)
    figure.clear()
    parts = np.ravel(figure.subfigures(-(-len(forms) // columns), columns, squeeze=False))
    set_title(
        figure, "Which pathways do tasks take? (share of steps; first seed of each form; trees: how alike they are)"
    )
    numbers = []
    for part, (name, runs) in zip(parts, forms.items(), strict=False):
        first = rows[rows["checkpoint_path"] == runs.paths[0]].set_index("task_id").loc[runs.tasks]
        cells = [_told(cell, runs.paths[0]) for cell in first["pathways"]]
        labels = sorted({label for cell in cells for label in cell})
        shares = np.array([[cell.get(label, 0.0) for label in labels] for cell in cells])
        chosen = np.argsort(-shares.max(0), kind="stable")[:most]
        chosen = np.sort(chosen[shares.max(0)[chosen] >= 0.02])
        tree, panel = part.subplots(1, 2, width_ratios=[0.16, 1])
        drawn = dendrogram(
            cluster_tasks(shares), orientation="left", ax=tree, no_labels=True, link_color_func=lambda _: "#555555"
        )
        order = drawn["leaves"]
        tree.set_axis_off()
        panel.imshow(shares[order][:, chosen], cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto", origin="lower")
        tree.set_ylim(0, 10 * len(order))
        panel.set_yticks(range(len(order)), [short_task(runs.tasks[place]) for place in order])
        panel.yaxis.tick_right()
        panel.set_xticks(range(len(chosen)), [labels[place] for place in chosen], rotation=90)
        panel.tick_params(labelsize=small(), length=0)
        part.suptitle(name, fontsize=small())
        numbers += [
            {"form": name, "seed": runs.seeds[0], "task": runs.tasks[place], "pathway": label, "share": share}
            for place in order
            for label, share in zip(labels, shares[place].tolist(), strict=True)
            if share
        ]
    return keep_numbers(figure, numbers)


MEASURES = {  # of a network -> what figures say, and the measure of what chance gives
    "I(task;pathway)": ("I(task; pathway)", "bits, less what chance gives", None),
    "I(action;pathway)": ("I(action; pathway)", "bits, less what chance gives; mean over tasks", None),
    "task told from routing": ("episodes whose task is told from their routing", "share", "task told by chance"),
}


def plot_information(results: "pd.DataFrame", measures: "pd.DataFrame") -> Figure:
    """Return what routing tells of the task and of the action, a dot per seed, means with 95 % intervals over seeds.

    Args:
        measures: of `tables.read_measures`.
    """
    forms = runs_of_forms(results)
    title = f"Are pathways distinct?\n({_of_runs(forms)}; dots: seeds; grey line: chance)"
    heads = [(head, label) for head, label, _ in MEASURES.values()]
    figure, panels = _rows_of_forms(list(forms), heads, title)
    numbers = []
    for panel, (measure, (_, _, chance)) in zip(panels, MEASURES.items(), strict=True):
        for row, (name, runs) in enumerate(forms.items()):
            values = _per_run(measures, runs, measure)
            if not np.isfinite(values).any():
                continue
            interval = mean_interval(values)
            _dots(panel, row, values, interval)
            number = _number(name, measure, interval, values)
            if chance is not None:
                by_chance = float(np.nanmean(_per_run(measures, runs, chance)))
                panel.plot([by_chance] * 2, [row - 0.4, row + 0.4], color="grey", linewidth=1)
                number["chance"] = by_chance
            numbers.append(number)
        panel.set_xlim(0, 1.05 if chance else None)
    if not numbers:
        raise NothingToShow("nothing was measured of these networks' routing (python pathways.py)")
    return keep_numbers(figure, numbers)


def _per_run(measures: "pd.DataFrame", runs: Runs, measure: str) -> list[float]:
    """Return a measure of each run; of what was measured task by task, the mean over tasks."""
    rows = measures[measures["measure"] == measure]
    return [float(rows.loc[rows["checkpoint_path"] == path, "value"].mean()) for path in runs.paths]


def _per_task(measures: "pd.DataFrame", runs: Runs, measure: str) -> np.ndarray:
    """Return a measure of each run and task [R, K], NaN where there is none."""
    rows = measures[(measures["measure"] == measure) & measures["checkpoint_path"].isin(runs.paths)]
    table = rows.drop_duplicates(["checkpoint_path", "task_id"], keep="last")
    table = table.pivot(index="checkpoint_path", columns="task_id", values="value")
    return table.reindex(index=runs.paths, columns=runs.tasks).to_numpy(float)


# --------------------------------------------------------------------------------------------------------- difficulty


def _difficulty(measures: "pd.DataFrame", tasks: Sequence[str]) -> np.ndarray:
    """Return the difficulty of tasks [K]: the median over the runs on each task alone of the env-steps to an accuracy,
    infinity where half of them or more never reached it, NaN where there is no such run.

    Raises:
        NothingToShow: fewer than three tasks have one.
    """
    rows = measures[measures["measure"].astype(str).str.startswith(STEPS_TO)]
    rows = rows[rows["measure"] == rows["measure"].iloc[0]] if len(rows) else rows
    steps = {task: runs["value"].astype(float).fillna(math.inf) for task, runs in rows.groupby("task_id")}
    values = np.array([float(np.median(steps[task])) if task in steps else math.nan for task in tasks])
    if np.isfinite(values).sum() < FEWEST_TASKS:
        raise NothingToShow("how hard tasks are is known from baselines on each task alone (python pathways.py)")
    return values


def _with_bootstrap(values: np.ndarray, difficulty: np.ndarray) -> tuple[float, float, float]:
    """Return the rank correlation over tasks of values [R, K] with the difficulty [K], its mean over runs, and the 95 %
    interval of that for other tasks (bootstrap over tasks). A run with the same value on all tasks has no ranks and is
    left out: a lesion, say, that costs it nothing."""
    values = _measured(values)
    known = ~np.isnan(difficulty) & ~np.isnan(values).any(0)
    values, difficulty = values[:, known], difficulty[known]
    if known.sum() < FEWEST_TASKS:
        return math.nan, math.nan, math.nan

    by_run = rank_correlation(values, difficulty)
    ranked = np.isfinite(by_run)
    if not ranked.any():
        return math.nan, math.nan, math.nan

    def statistic(drawn):
        return np.mean([rank_correlation(run[drawn], difficulty[drawn]) for run in values[ranked]], 0)

    return float(by_run[ranked].mean()), *bootstrap_interval(statistic, int(known.sum()))


def _against_difficulty(
    values: Mapping[str, np.ndarray], forms: Mapping[str, Runs], measures, label, title, own_scale: bool = False
) -> Figure:
    """Return values [R, K] of each form against the tasks' difficulty, a panel per form.

    Args:
        own_scale: whether each panel has a scale of its own, from 0 on, where forms differ by more than tasks do.
    """
    columns = panels_in_a_row(min(3, len(forms)), 2.0)
    figure, axes = new_figure(-(-len(forms) // columns), columns, 3.4, 2.6, title, sharey=not own_scale, sharex=True)
    styles = task_styles(task for runs in forms.values() for task in runs.tasks)
    numbers, handles = [], {}
    for panel, (name, runs) in zip(axes.flat, forms.items(), strict=False):
        difficulty = _difficulty(measures, runs.tasks)
        reached = difficulty[np.isfinite(difficulty)]
        beyond = 2 * reached.max()
        for task, hard, column in zip(runs.tasks, difficulty, values[name].T, strict=True):
            if np.isnan(hard):
                continue
            x = beyond if math.isinf(hard) else hard
            style = styles[task]
            panel.plot([x] * len(column), column, "o", color=style["color"], markersize=2.5, alpha=0.55)
            handles[short_task(task)] = panel.plot([x], [np.nanmean(column)], markersize=5, linestyle="none", **style)[
                0
            ]
            numbers.append({"form": name, "task": task, "difficulty": hard, "mean": float(np.nanmean(column))})
            numbers[-1]["seeds"] = " ".join(f"{value:.4f}" for value in column)
        rho, low, high = _with_bootstrap(values[name], difficulty)
        numbers.append({"form": name, "task": "rank correlation", "mean": rho, "low": low, "high": high})
        numbers[-1]["seeds"] = " ".join(f"{value:.4f}" for value in _rank_by_run(values[name], difficulty))
        text = f"{name}\nSpearman {rho:.2f} ({low:.2f} to {high:.2f})"
        plain(panel).set_title(wrapped(text, figure.get_figwidth() / columns - 0.6, small()), fontsize=small())
        panel.set_xscale("log")
        ends = [reached.min(), reached.max()]
        panel.set_xticks(ends, [number_text(float(end)) for end in ends])
        panel.minorticks_off()
        if own_scale:
            panel.set_ylim(bottom=0)
        if np.isinf(difficulty).any():
            panel.axvline(1.4 * reached.max(), color="grey", linewidth=0.8, linestyle=":")
    for panel in axes[:, 0]:
        panel.set_ylabel(label)
    for panel in axes[-1]:
        panel.set_xlabel(wrapped("env-steps to the accuracy, alone (right of the dots: not reached)", 2.6, small()))
    for unused in axes.flat[len(forms) :]:
        unused.set_axis_off()
    legend_below(figure, list(handles.values()), list(handles))
    return keep_numbers(figure, numbers)


def _measured(values: np.ndarray) -> np.ndarray:
    """Return the rows of values [R, K] of which there is any: runs that were measured."""
    return values[~np.isnan(values).all(1)]


def _rank_by_run(values: np.ndarray, difficulty: np.ndarray) -> list[float]:
    values = _measured(values)
    known = ~np.isnan(difficulty) & ~np.isnan(values).any(0)
    return rank_correlation(values[:, known], difficulty[known]).tolist()


def plot_cost_by_difficulty(results: "pd.DataFrame", measures: "pd.DataFrame") -> Figure:
    """Return the mean LPC of each task in the same network against its difficulty (`pathways.difficulty`), a panel per
    form, with Spearman's rank correlation over tasks (mean over seeds; 95 % bootstrap interval over tasks)."""
    forms = runs_of_forms(results)
    title = f"Do hard tasks take costly pathways?\n({_of_runs(forms)}; dots: seeds; each form on its own scale)"
    lpc = {name: runs.lpc for name, runs in forms.items()}
    return _against_difficulty(lpc, forms, measures, "mean LPC per step", title, own_scale=True)


def plot_cost_change_by_difficulty(results: "pd.DataFrame", measures: "pd.DataFrame") -> Figure:
    """Return by how much each task's mean LPC changes from a run's first evaluated checkpoint to its end, against the
    task's difficulty: below zero, and the lower the harder, if hard tasks are first solved at a high cost and then at
    a lower one.

    Raises:
        NothingToShow: no checkpoint along the way was evaluated.
    """
    rows = networks(results)
    early = rows[rows["update"].notna()] if "update" in rows else rows.head(0)
    early = early.assign(folder=early["checkpoint_path"].map(_folder))
    changes, forms = {}, {}
    for name, runs in runs_of_forms(results).items():
        first = []
        for path in runs.paths:
            run = early[early["folder"] == _folder(path)]
            run = run[run["update"] == run["update"].min()] if len(run) else run
            first.append(run.drop_duplicates("task_id").set_index("task_id")["mean_lpc"].astype(float))
        before = np.array([lpc.reindex(runs.tasks).to_numpy(float) for lpc in first])
        if np.isfinite(before).any():
            changes[name], forms[name] = runs.lpc - before, runs
    if not forms:
        raise NothingToShow(NOTHING_ALONG)
    title = f"Do tasks become cheaper over training?\n({_of_runs(forms)}; dots: seeds)"
    return _against_difficulty(changes, forms, measures, "change of the mean LPC", title)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def plot_lesions_by_difficulty(results: "pd.DataFrame", lesions: "pd.DataFrame", measures: "pd.DataFrame") -> Figure:
    """Return what switching the largest expert of each layer off costs a task in success, against its difficulty.

    Raises:
        NothingToShow: that was not measured.
    """
    lost, forms = {}, {}
    for name, runs in runs_of_forms(results).items():
        rows = networks(results)
        told = rows.loc[rows["checkpoint_path"] == runs.paths[0], "expert_hidden_sizes"].dropna()
        sizes = _told(told.iloc[0], runs.paths[0]) if len(told) else []
        lesion = "_".join(f"{layer}-{experts.index(max(experts))}" for layer, experts in enumerate(sizes))
        success = _lesioned(lesions, runs, lesion) if "lesion" in lesions else np.full(runs.success.shape, np.nan)
        if np.isfinite(success).any():
            lost[name], forms[name] = runs.success - success, runs
    if not forms:
        raise NothingToShow("no network was evaluated without its largest experts (batch_eval.py --disable_experts)")
    title = f"What do tasks lose without the largest experts?\n({_of_runs(forms)}; dots: seeds)"
    return _against_difficulty(lost, forms, measures, "success lost", title)


def plot_along_training(results: "pd.DataFrame", measures: "pd.DataFrame") -> Figure:
    """Return along training, of the checkpoints that were evaluated: success, mean LPC, the rank correlation of LPC and
    difficulty over tasks, and the share of steps (of the bot's walks) whose strongest expert is already the final one;
    means over tasks, lines through means of seeds, dots: seeds.

    Raises:
        NothingToShow: no checkpoint along the way was evaluated.
    """
    import pandas as pd

    rows = networks(results)
    along = rows["update"].notna() if "update" in rows else pd.Series(False, rows.index)
    rows = rows[rows["form"].isin(rows.loc[along, "form"])]
    if rows.empty:
        raise NothingToShow(NOTHING_ALONG)
    styles = task_styles(rows["form"])
    heads = ["success", "mean LPC", "LPC and difficulty, rank correlation", "strongest expert is the final one"]
    columns = panels_in_a_row(4, 1.6)
    title = "How does it come about? (lines: means over seeds, dots: seeds)"
    figure, axes = new_figure(-(-4 // columns), columns, 2.9, _tall(2.4), title)
    numbers = []
    same = measures[measures["measure"].astype(str).str.startswith("same expert")]
    same = same.groupby("checkpoint_path")["value"].mean()
    for label in rows["form"].unique():
        group = rows[rows["form"] == label]
        points = []
        for path, network in group.groupby("checkpoint_path"):
            at = network["update"].fillna(network["num_updates"]).astype(float).iloc[0]
            at /= float(network["num_updates"].astype(float).iloc[0])
            hard = _difficulty_or_nan(measures, network["task_id"].tolist())
            rho = _rank_by_run(network["mean_lpc"].to_numpy(float)[None], hard)[0]
            is_final = network["update"].isna().all()
            point = (network["success_rate"].astype(float).mean(), network["mean_lpc"].astype(float).mean(), rho)
            points.append((at, *point, 1.0 if is_final else float(same.get(path, math.nan))))
        points = np.array(points)
        for place, panel in enumerate(axes.flat[:4], 1):
            times = np.unique(points[:, 0])
            means = [points[points[:, 0] == time, place].mean() for time in times]
            panel.plot(times, means, label=label, markersize=4, **styles[label])
            panel.plot(points[:, 0], points[:, place], "o", color=styles[label]["color"], markersize=2.5, alpha=0.55)
        numbers += [
            {
                "form": label,
                "share_of_training": at,
                "success": success,
                "mean_lpc": lpc,
                "rho": rho,
                "same": same_share,
            }
            for at, success, lpc, rho, same_share in points.tolist()
        ]
    for panel, head in zip(axes.flat, heads, strict=True):
        plain(panel).set_title(wrapped(head, figure.get_figwidth() / columns - 0.5, small()), fontsize=small())
        panel.set_xlabel("share of training")
    axes.flat[0].set_ylim(0, 1.03)
    axes.flat[1].set_ylim(bottom=0)
    axes.flat[2].set_ylim(-1.05, 1.05)
    axes.flat[3].set_ylim(0, 1.03)
    legend_below(figure, *axes.flat[0].get_legend_handles_labels())
    return keep_numbers(figure, numbers)


def _difficulty_or_nan(measures: "pd.DataFrame", tasks: Sequence[str]) -> np.ndarray:
    try:
        return _difficulty(measures, tasks)
    except NothingToShow:
        return np.full(len(tasks), math.nan)


def plot_price_of_pathways(results: "pd.DataFrame") -> Figure:
    """Return what each form costs: success and LPC, means over tasks, and the difference in success to the first form
    in the same seed; dots: seeds, bars: mean and its 95 % interval over seeds (Student's t)."""
    forms = runs_of_forms(results)
    first = next(iter(forms))
    heads = [("success", "mean over tasks"), (f"against {first}", "difference in success"), ("LPC", "mean over tasks")]
    title = f"What do pathways cost? ({_of_runs(forms)}; dots: seeds)"
    figure, panels = _rows_of_forms(list(forms), heads, title)
    base, numbers = forms[first], []
    whole = dict(zip(base.seeds, base.success.mean(1), strict=True))
    for row, (name, runs) in enumerate(forms.items()):
        of_seed = zip(runs.seeds, runs.success.mean(1), strict=True)
        lost = [] if name == first else [value - whole[seed] for seed, value in of_seed if seed in whole]
        for panel, what, values in zip(
            panels, ("success", "difference", "LPC"), (runs.success.mean(1), lost, runs.lpc.mean(1)), strict=True
        ):
            if len(values):
                interval = mean_interval(values)
                _dots(panel, row, values, interval)
                numbers.append(_number(name, what, interval, values))
    panels[0].set_xlim(0, 1.03)
    panels[1].axvline(0, color="grey", linewidth=0.8)
    panels[2].set_xlim(left=0)
    return keep_numbers(figure, numbers)


# ------------------------------------------------------------------------------------------------- phases, decisions


def plot_phases_of_tasks(results: "pd.DataFrame", measures: "pd.DataFrame") -> Figure:
    """Return the mean LPC in each phase of the tasks that have several (keys, doors, things to carry), a panel per task
    and a line per form: means over seeds, dots: seeds."""
    forms = runs_of_forms(results)
    measures = measures[measures["measure"].astype(str).str.startswith("LPC, ")]
    phases: dict[str, list[str]] = {}
    for task, rows in measures.groupby("task_id"):
        names = list(dict.fromkeys(str(name).removeprefix("LPC, ") for name in rows["measure"]))
        names = [name for name in names if name != "all steps"]  # of runs whose phases could not be told apart
        if len(names) > 1:
            phases[str(task)] = names
    phases = {task: names for task, names in phases.items() if any(task in runs.tasks for runs in forms.values())}
    if not phases:
        raise NothingToShow("no task of these networks was measured in several phases (python pathways.py)")
    columns = panels_in_a_row(min(4, len(phases)), 1.6)
    title = f"What do the phases of a task cost? ({_of_runs(forms)}; lines: means, dots: seeds)"
    figure, axes = new_figure(-(-len(phases) // columns), columns, 2.8, _tall(2.6), title, sharey=True)
    styles, numbers = task_styles(forms), []
    for panel, (task, names) in zip(axes.flat, phases.items(), strict=False):
        for name, runs in forms.items():
            if task not in runs.tasks:
                continue
            place = runs.tasks.index(task)
            table = np.array([_per_task(measures, runs, f"LPC, {phase}")[:, place] for phase in names])
            means = [mean_interval(row) for row in table]
            panel.plot(range(len(names)), [mean for mean, *_ in means], label=name, markersize=4, **styles[name])
            for row, values in enumerate(table):
                panel.plot([row] * len(values), values, "o", color=styles[name]["color"], markersize=2.5, alpha=0.55)
                mean, low, high = means[row]
                numbers.append(
                    {"task": task, "form": name, "phase": names[row], "mean": mean, "low": low, "high": high}
                )
                numbers[-1]["seeds"] = " ".join(f"{value:.2f}" for value in values)
        plain(panel).set_title(short_task(task), fontsize=small())
        panel.set_xticks(range(len(names)), [wrapped(phase, 0.75, small()) for phase in names], rotation=90)
        panel.set_xlim(-0.4, len(names) - 0.6)
    axes.flat[0].set_ylim(bottom=0)  # after all is drawn: it fixes the top, too, which all share
    for panel in axes[:, 0]:
        panel.set_ylabel("mean LPC")
    for unused in axes.flat[len(phases) :]:
        unused.set_axis_off()
    legend_below(figure, *axes.flat[0].get_legend_handles_labels())
    return keep_numbers(figure, numbers)


DECISIONS = {"H(A|S)": "H(A|S), action entropy", "I(S;A)": "I(S;A)", "policy entropy": "entropy of the policy"}


def plot_decisions_of_tasks(results: "pd.DataFrame", measures: "pd.DataFrame") -> Figure:
    """Return whether tasks cost more where there is more to decide: the correlation over tasks of the mean LPC with
    each of the `measures.decision_measures`, a dot per seed, their mean and its 95 % interval by Fisher's z."""
    forms = runs_of_forms(results)
    heads = [(head, "r with the LPC over tasks") for head in DECISIONS.values()]
    title = f"Do tasks cost more where there is more to decide?\n({_of_runs(forms)}; dots: seeds)"
    figure, panels = _rows_of_forms(list(forms), heads, title)
    numbers = []
    for panel, measure in zip(panels, DECISIONS, strict=True):
        for row, (name, runs) in enumerate(forms.items()):
            values = _per_task(measures, runs, measure)
            pairs = [correlation(lpc, of_task) for lpc, of_task in zip(runs.lpc, values, strict=True)]
            if not np.isfinite(pairs).any():
                continue
            interval = fisher_mean(pairs)
            _dots(panel, row, pairs, interval)
            numbers.append(_number(name, measure, interval, pairs))
        panel.axvline(0, color="grey", linewidth=0.8)
        panel.set_xlim(-1.05, 1.05)
    if not numbers:
        raise NothingToShow("nothing was measured of these networks' decisions (python pathways.py)")
    return keep_numbers(figure, numbers)


Figures = dict[str, tuple[str, Callable[[], Figure]]]


def pathway_figures(results: "pd.DataFrame", lesions: "pd.DataFrame", measures: "pd.DataFrame") -> Figures:
    """Return all figures of pathways: by a short title the name of the file, and how it is made.

    Args:
        results: of the whole networks, `tables.read_results`.
        lesions: the same of lesioned ones; no rows where there are none.
        measures: of `tables.read_measures`.
    """
    return {
        "Pathways of tasks": ("task_pathways", lambda: plot_task_pathways(results)),
        "Consistency": ("consistency", lambda: plot_consistency(results)),
        "Self-sufficiency": ("self_sufficiency", lambda: plot_self_sufficiency(results, lesions)),
        "Information": ("information", lambda: plot_information(results, measures)),
        "Cost and difficulty": ("cost_by_difficulty", lambda: plot_cost_by_difficulty(results, measures)),
        "Lesions and difficulty": (
            "lesions_by_difficulty",
            lambda: plot_lesions_by_difficulty(results, lesions, measures),
        ),
        "Change of cost": ("cost_change_by_difficulty", lambda: plot_cost_change_by_difficulty(results, measures)),
        "Pathways over training": ("pathways_over_training", lambda: plot_along_training(results, measures)),
        "Price of pathways": ("price_of_pathways", lambda: plot_price_of_pathways(results)),
        "Phases of tasks": ("phases_of_tasks", lambda: plot_phases_of_tasks(results, measures)),
        "Decisions of tasks": ("decisions_of_tasks", lambda: plot_decisions_of_tasks(results, measures)),
    }
