"""Many runs at once: success, what it costs, how it was learned, and which experts it uses.

Results are the data frame of `tables.read_results`. A run is a task and a trial; its seeds are summarised, and every
seed is a dot of its own wherever their mean is drawn. Every figure says in its title what its error bars are.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from plotting.data import Entries, NothingToShow
from plotting.style import (
    EXPERT_COLORS,
    TASK_COLORS,
    Sizes,
    common_names,
    current_page,
    expert_colors,
    keep_numbers,
    legend,
    lesion_name,
    new_figure,
    number_text,
    panels_in_a_row,
    plain,
    require_steps,
    set_title,
    small,
    task_styles,
)
from results.paths import short_task
from results.statistics import summarise_runs
from results.tables import name_sets

if TYPE_CHECKING:
    import pandas as pd  # which takes a while: it is imported by the functions that need it

CURVES = {
    "success_rate": "success rate",
    "accuracy": "accuracy (the bot's action)",
    "ce": "cross-entropy (nats)",
    "mean_lpc": "mean LPC per step",
}
ERROR_BARS = "bars: standard error over seeds, small dots: seeds; 95 % Wilson interval where there is one"
_MOST_BANDS = 6
_LINES = ["-", "--", ":", "-."]
_SEED_DOTS = {"linestyle": "none", "markersize": 3, "alpha": 0.55, "markeredgewidth": 0}


def _success_bars(runs: "pd.DataFrame") -> np.ndarray:
    """Return the lengths [2, runs] of the error bars below and above the success rates."""
    lengths = [runs["success_rate"] - runs["success_low"], runs["success_high"] - runs["success_rate"]]
    return np.clip(np.array(lengths, float), 0, None)


def _legend_at_the_right(figure: Figure, axes: Axes, title: str = "") -> None:
    """Write a legend right of the panels; below them where the page is narrow."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    style = {"fontsize": small(), "frameon": False, "title": title, "title_fontsize": small()}
    width = figure.get_figwidth()
    if width < 5:
        fit = max(1, int(width * 72 / (small() * (0.55 * max(map(len, labels)) + 5))))
        figure.legend(handles, labels, loc="outside lower center", ncols=fit, **style)
    else:
        figure.legend(handles, labels, loc="outside right upper", ncols=1 + (len(handles) - 1) // 24, **style)


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels that share their y axis, three in a row."""
    columns = panels_in_a_row(min(3, count), 2.1)
    figure, axes = new_figure(-(-count // columns), columns, width, height, sharey=True)
    for panel in axes.flat[count:]:
        panel.set_axis_off()
    return figure, list(axes.flat[:count])


def _seeds_of(
    results: "pd.DataFrame", runs: "pd.DataFrame", by: Sequence[str] = ("trained_on", "task_id", "trial", "update")
) -> "pd.DataFrame":
    """Return the rows of `results` that summarised runs of several seeds stand for."""
    by = [name for name in by if name in results]
    several = runs.loc[runs["seeds"] > 1, by]
    return results.merge(several, on=by) if len(several) else results.head(0)


def _small_text(panels: Iterable[Axes]) -> None:
    for panel in panels:
        panel.tick_params(labelsize=small())
        panel.xaxis.label.set_fontsize(small())
        panel.yaxis.label.set_fontsize(small())


def plot_success_against_lpc(results: "pd.DataFrame") -> Figure:
    """Return success rate against mean LPC, a point per run; baselines, which have no LPC, in a strip of their own.

    Raises:
        NothingToShow: there are no results.
    """
    import pandas as pd

    if results.empty:
        raise NothingToShow("there are no results: there is nothing to draw")
    results = name_sets(results)
    runs = summarise_runs(results)
    styles = task_styles(runs["task_id"])
    mixtures, baselines = runs[runs["mean_lpc"].notna()], runs[runs["mean_lpc"].isna()]
    parts = [group for group in (baselines, mixtures) if len(group)]
    widths = [1 + 0.1 * len(baselines) if group is baselines else 7 for group in parts]
    page_width = current_page().width
    figure = Figure(
        (page_width or 8.6, 4.6 if page_width is None else max(3.4, 0.55 * page_width)), layout="constrained"
    )
    panels = figure.subplots(1, len(parts), sharey=True, width_ratios=widths, squeeze=False)[0]
    set_title(figure, f"Success against what the policy uses\n({ERROR_BARS})")
    for panel, group in zip(panels, parts, strict=True):
        is_strip = group is baselines
        lpc = pd.Series(range(len(group)), group.index) if is_strip else group["mean_lpc"]
        for task, style in styles.items():
            points = group[group["task_id"] == task]
            panel.errorbar(
                lpc[points.index],
                points["success_rate"],
                _success_bars(points),
                None if is_strip else points["lpc_error"],
                linestyle="none",
                markersize=6,
                markerfacecolor="white" if is_strip else style["color"],
                capsize=2,
                elinewidth=1,
                label=short_task(task),
                **style,
            )
            if not is_strip:
                seeds = _seeds_of(results, points)
                panel.plot(
                    seeds["mean_lpc"], seeds["success_rate"], color=style["color"], marker=style["marker"], **_SEED_DOTS
                )
        for row, x in zip(group.to_dict("records"), lpc.tolist(), strict=True):
            update = row.get("update")
            trial = "" if pd.isna(row["trial"]) else str(row["trial"])
            name = trial if update is None or pd.isna(update) else f"{trial} ({update})"
            panel.annotate(name, (x, row["success_rate"]), (4, 4), textcoords="offset points", fontsize=small())
        plain(panel)
        if is_strip:
            panel.set(xlabel="GRU\nbaselines", xticks=[], xlim=(-0.8, len(group) - 0.2))
        else:
            panel.set_xlabel("mean LPC per step (weighted squares of the experts' sizes)", fontsize=small(), wrap=True)
            panel.set_xlim(left=0)
    panels[0].set(ylabel="success rate", ylim=(-0.03, 1.05))
    _small_text(panels)
    _legend_at_the_right(figure, panels[-1], "task\n(number: trial)")
    return keep_numbers(figure, runs.to_dict("records"))


def plot_lpc_alpha(results: "pd.DataFrame") -> Figure:
    """Return success rate and mean LPC against `lpc_alpha`, a line per task; runs without experts are left out."""
    import pandas as pd

    results = name_sets(results).assign(lpc_alpha=pd.to_numeric(results["lpc_alpha"], errors="coerce"))
    runs = summarise_runs(results[results["lpc_alpha"].notna() & results["mean_lpc"].notna()], ("task_id", "lpc_alpha"))
    columns = panels_in_a_row(2, 2.2)
    title = f"What the price of experts (lpc_alpha) does\n({ERROR_BARS})"
    figure, axes = new_figure(2 // columns, columns, 4.8, 3.8, title)
    panels = list(axes.flat)
    for task, style in task_styles(runs["task_id"]).items():
        group = runs[runs["task_id"] == task]
        common = {"capsize": 2, "linewidth": 1.3, "label": short_task(task), **style}
        panels[0].errorbar(group["lpc_alpha"], group["success_rate"], _success_bars(group), **common)
        panels[1].errorbar(group["lpc_alpha"], group["mean_lpc"], group["lpc_error"], **common)
        seeds = _seeds_of(results, group, ("task_id", "lpc_alpha"))
        for panel, name in zip(panels, ("success_rate", "mean_lpc"), strict=True):
            panel.plot(seeds["lpc_alpha"], seeds[name], color=style["color"], marker=style["marker"], **_SEED_DOTS)
    alphas = np.unique(runs["lpc_alpha"].astype(float))
    for panel, label in zip(panels, ["success rate", "mean LPC per step"], strict=True):
        plain(panel).set(xlabel="lpc_alpha", ylabel=label)
        if (alphas > 0).any():
            smallest = alphas[alphas > 0].min()
            panel.set_xscale("symlog", linthresh=smallest)
            panel.set_xlim(0.5 * smallest if alphas[0] > 0 else -0.2 * smallest, 1.6 * alphas.max())
        panel.xaxis.set_major_locator(FixedLocator(alphas.tolist()))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda alpha, _: number_text(alpha)))
        panel.tick_params(axis="x", labelrotation=30 if len(alphas) > 4 else 0)
    panels[0].set_ylim(-0.03, 1.05)
    panels[1].set_ylim(bottom=0)
    _legend_at_the_right(figure, panels[0], "task")
    return keep_numbers(figure, runs.to_dict("records"))


def plot_lpc_against_difficulty(results: "pd.DataFrame") -> Figure:
    """Return mean LPC against how hard a task is, a panel per trial number (a way to train), a point per task.

    A task is as hard as the baseline finds it: the share of the held-out levels that it fails (the mean over its trials
    and seeds). Titles give Spearman's rank correlation over tasks.

    Raises:
        NothingToShow: no task has both a mixture and a baseline.
    """
    results = name_sets(results)
    is_baseline = results["mean_lpc"].isna()
    failed = 1 - results[is_baseline].groupby("task_id")["success_rate"].mean()
    runs = summarise_runs(results[~is_baseline & results["task_id"].isin(failed.index) & results["trial"].notna()])
    if runs.empty:
        raise NothingToShow("no task has both a mixture and a baseline: a task is as hard as the baseline finds it")
    trials = sorted(runs["trial"].unique())
    figure, panels = _panels(len(trials), 5.2, 4.2)
    details = "bars: standard error over seeds; rank correlation over tasks"
    set_title(figure, f"What is used, against how hard the task is\n({details})")
    for panel, trial in zip(panels, trials, strict=True):
        group = runs[runs["trial"] == trial]
        difficulty = group["task_id"].map(failed)
        style = {"linestyle": "none", "marker": "o", "color": TASK_COLORS[0], "capsize": 2}
        panel.errorbar(difficulty, group["mean_lpc"], group["lpc_error"], **style)
        seeds = _seeds_of(results[~is_baseline], group)
        panel.plot(seeds["task_id"].map(failed), seeds["mean_lpc"], "o", color=TASK_COLORS[0], **_SEED_DOTS)
        rho = difficulty.rank().corr(group["mean_lpc"].rank()) if len(group) > 2 else np.nan
        title = f"trial {trial}" if np.isnan(rho) else f"trial {trial}: Spearman {rho:.2f}, {len(group)} tasks"
        plain(panel).set_title(title, fontsize=small())
        panel.set(xlabel="share of held-out levels the baseline fails", xlim=(-0.03, 1.12))
    highest = (runs["mean_lpc"] + runs["lpc_error"].fillna(0)).max()
    panels[0].set(ylabel="mean LPC per step", ylim=(0, 1.1 * highest + 1))
    for panel, trial in zip(panels, trials, strict=True):
        group = runs[runs["trial"] == trial]
        places = np.column_stack([group["task_id"].map(failed), group["mean_lpc"]])
        _name_points(panel, places, [short_task(task) for task in group["task_id"]])
    numbers = runs.assign(share_failed_by_the_baseline=runs["task_id"].map(failed))
    return keep_numbers(figure, numbers.to_dict("records"))


def _name_points(panel: Axes, places: np.ndarray, names: Sequence[str]) -> None:
    """Write each point's name as near to it as leaves other names and points legible, a thin line between the two.

    Args:
        places: [N, 2], in data coordinates.
    """
    figure = panel.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # only then is it known where points lie on the page
    point = figure.dpi / 72
    taken = [Bbox.from_bounds(x - 4 * point, y - 4 * point, 8 * point, 8 * point) for x, y in _on_page(panel, places)]
    directions = [(np.cos(angle), np.sin(angle)) for angle in np.radians(np.arange(30, 390, 30))]
    line = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    centred = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": small()}
    for place, (x, y), name in sorted(zip(places.tolist(), _on_page(panel, places), names, strict=True)):
        text = panel.annotate(name, place, (0, 0), arrowprops=line, **centred)
        size = Text.get_window_extent(text)
        for radius, (right, up) in itertools.product(range(6, 150, 4), directions):
            offset = (radius * right + np.sign(right) * size.width / point / 2, radius * up)
            centre = x + offset[0] * point, y + offset[1] * point
            corner = centre[0] - size.width / 2, centre[1] - size.height / 2
            box = Bbox.from_bounds(*corner, size.width, size.height)
            inside = panel.bbox.contains(*box.min) and panel.bbox.contains(*box.max)
            if inside and not any(box.overlaps(other) for other in taken):
                break
        text.set_position(offset)
        taken.append(box)


def _on_page(panel: Axes, places: np.ndarray) -> list[list[float]]:
    return panel.transData.transform(places).tolist()


def plot_lesions(results: "pd.DataFrame", lesioned: "pd.DataFrame") -> Figure:
    """Return what switching experts off costs: success of each task with and without them, a panel per trial number.

    Large marks are means over seeds, small dots are seeds.

    Args:
        results: of the whole policies.
        lesioned: the rows of `evaluation_results_lesions.csv`, with the column `lesion`.

    Raises:
        NothingToShow: no lesioned checkpoint is among the results.
    """
    same = ["checkpoint_path", "task_id"]
    pairs = lesioned.merge(results[[*same, "success_rate"]], on=same, suffixes=("", "_whole"))
    if pairs.empty:
        raise NothingToShow(
            "none of these checkpoints was evaluated with experts off (batch_eval.py --disable_experts)"
        )
    pairs = name_sets(pairs)
    means = pairs.groupby(["task_id", "trial", "lesion"])[["success_rate", "success_rate_whole"]].mean().reset_index()
    lost = (means["success_rate_whole"] - means["success_rate"]).groupby(means["task_id"]).mean()
    tasks, trials = lost.sort_values().index.tolist(), sorted(means["trial"].unique())
    lesions = sorted(means["lesion"].unique())
    sizes = _common_sizes(pairs)
    figure, panels = _panels(len(trials), 4.2, 0.24 * len(tasks) * max(1, 0.6 * len(lesions)) + 1.3)
    set_title(figure, "Success with all experts, and with some switched off\n(marks: means over seeds, dots: seeds)")
    colors = (EXPERT_COLORS[1:] + EXPERT_COLORS[:1]) * (1 + len(lesions) // len(EXPERT_COLORS))
    for panel, trial in zip(panels, trials, strict=True):
        group, seeds = means[means["trial"] == trial], pairs[pairs["trial"] == trial]
        for number, (color, lesion) in enumerate(zip(colors, lesions, strict=False)):
            rows, dots = group[group["lesion"] == lesion], seeds[seeds["lesion"] == lesion]
            beside = 0.5 * (number - (len(lesions) - 1) / 2) / len(lesions)
            places = [tasks.index(task) + beside for task in rows["task_id"]]
            panel.hlines(places, rows["success_rate"], rows["success_rate_whole"], color=color, linewidth=1.2)
            panel.plot(rows["success_rate"], places, "o", color=color, label=lesion_name(lesion, sizes), markersize=5)
            places = [tasks.index(task) + beside for task in dots["task_id"]]
            panel.plot(dots["success_rate"], places, "o", color=color, **_SEED_DOTS)
        whole = group.drop_duplicates("task_id")
        places = [tasks.index(task) for task in whole["task_id"]]
        panel.plot(whole["success_rate_whole"], places, "|", color="black", markersize=10, label="all experts")
        dots = seeds.drop_duplicates(same)
        places = [tasks.index(task) for task in dots["task_id"]]
        panel.plot(
            dots["success_rate_whole"], places, "k|", linestyle="none", markersize=3, alpha=0.55, markeredgewidth=0.8
        )
        plain(panel).set(xlabel="success rate", xlim=(-0.03, 1.03))
        panel.set_title(f"trial {trial}", fontsize=small())
    panels[0].set_yticks(range(len(tasks)), [short_task(task) for task in tasks], fontsize=small())
    panels[0].set_ylim(-0.6, len(tasks) - 0.4)
    _legend_at_the_right(figure, panels[0])
    columns = [
        name for name in ("task_id", "trial", "seed", "lesion", "success_rate", "success_rate_whole") if name in pairs
    ]
    return keep_numbers(figure, pairs[columns].to_dict("records"))


def _common_sizes(results: "pd.DataFrame") -> Sizes:
    """Return the experts' hidden sizes that all rows share, None where they differ or are not told."""
    column = results.get("expert_hidden_sizes")
    told = [] if column is None else [value for value in column.dropna().unique() if isinstance(value, str)]
    try:
        sizes = json.loads(told[0]) if len(told) == 1 else None
    except ValueError:
        return None
    return sizes if isinstance(sizes, list) and all(isinstance(layer, list) for layer in sizes) else None


def plot_learning_curves(metrics_by_run: "Mapping[str, Sequence[pd.DataFrame]]") -> Figure:
    """Return success, accuracy, loss and LPC against environment steps: a line per run, its mean over seeds, and a thin
    one per seed.

    Args:
        metrics_by_run: by the run's name, the `metrics.csv` of each of its seeds. Seeds are averaged over the updates
            that all of them have logged; the band goes from the lowest to the highest of them. More than six runs
            are drawn without bands and seeds, which would hide each other.
    """
    import pandas as pd

    has_seeds = any(len(metrics) > 1 for metrics in metrics_by_run.values())
    has_bands = has_seeds and len(metrics_by_run) <= _MOST_BANDS
    details = "\n(mean over seeds; thin: seeds; bands: range)" if has_bands else " (mean over seeds)"
    title = "Learning curves" + (details if has_seeds else "")
    columns = panels_in_a_row(2, 2.2)
    figure, axes = new_figure(4 // columns, columns, 4.6, 2.7, title, sharex=True)
    panels = list(axes.flat)
    for place, (run, metrics) in enumerate(metrics_by_run.items()):
        style = {"color": TASK_COLORS[place % 8], "linestyle": _LINES[(place // 8 + place) % 4]}
        width = 2.8 - 1.6 * place / len(metrics_by_run)  # equal curves show behind each other
        logged = pd.concat(metrics).groupby("update")
        common = logged.size() == logged.size().max()
        steps = logged["env_steps"].mean()[common] / 1e6
        notes = ["baseline"] if all(seed["mean_lpc"].isna().all() for seed in metrics) else []
        notes += [f"{len(metrics)} seeds"] if len(metrics) > 1 else []
        label = f"{run} ({', '.join(notes)})" if notes else run
        for panel, name in zip(panels, CURVES, strict=True):
            curve = logged[name]
            marker = "o" if len(steps) == 1 else ""
            panel.plot(steps, curve.mean()[common], label=label, marker=marker, linewidth=width, **style)
            if len(metrics) > 1 and has_bands:
                low, high = curve.min()[common].astype(float), curve.max()[common].astype(float)
                panel.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
                for seed in metrics:
                    panel.plot(seed["env_steps"] / 1e6, seed[name], linewidth=0.5, alpha=0.7, **style)
    for panel, label in zip(panels, CURVES.values(), strict=True):
        plain(panel).set_ylabel(label)
    for panel in panels[:2]:
        panel.set_ylim(-0.03, 1.05)
    for panel in panels[2:]:
        panel.set_ylim(bottom=0)
    for panel in axes[-1]:
        panel.set_xlabel("environment steps (millions)")
        panel.xaxis.set_major_locator(MaxNLocator(5))
    _legend_at_the_right(figure, axes[0, 0], "run")
    numbers = [
        {"run": run, "seed": number, **row}
        for run, metrics in metrics_by_run.items()
        for number, seed in enumerate(metrics)
        for row in seed[[name for name in ("update", "env_steps", *CURVES) if name in seed]].to_dict("records")
    ]
    return keep_numbers(figure, numbers)


def plot_metrics_over_updates(results: "pd.DataFrame") -> Figure:
    """Return success and mean LPC on the held-out levels against the training update, of the checkpoints along each run
    and its final one: a line per task and trial through the means of its seeds, a dot per seed.

    Raises:
        NothingToShow: no run has a checkpoint along the way among the results.
    """
    import pandas as pd

    results = name_sets(results)
    along = results["update"].notna() if "update" in results else pd.Series(False, results.index)
    runs = results.loc[along, ["task_id", "trial"]].drop_duplicates()
    if runs.empty:
        raise NothingToShow("no checkpoint along the way was evaluated (batch_eval.py without --final_only does)")
    rows = results.merge(runs, on=["task_id", "trial"])
    rows = rows.assign(at=pd.to_numeric(rows["update"]).fillna(pd.to_numeric(rows["num_updates"])).astype(float))
    columns = panels_in_a_row(2, 2.2)
    title = "Along training, on held-out levels (lines: means over seeds, dots: seeds)"
    figure, axes = new_figure(2 // columns, columns, 4.6, 3.2, title)
    panels = list(axes.flat)
    styles = task_styles([f"{short_task(str(task))} trial {trial}" for task, trial in runs.itertuples(index=False)])
    for (task, trial), group in rows.groupby(["task_id", "trial"]):
        name = f"{short_task(str(task))} trial {trial}"
        for panel, column in zip(panels, ("success_rate", "mean_lpc"), strict=True):
            mean = group.groupby("at")[column].mean()
            panel.plot(mean.index, mean, label=name, markersize=5, **styles[name])
            panel.plot(group["at"], group[column], color=styles[name]["color"], marker="o", **_SEED_DOTS)
    for panel, label in zip(panels, ["success rate", "mean LPC per step"], strict=True):
        plain(panel).set(xlabel="training update", ylabel=label)
    panels[0].set_ylim(-0.03, 1.05)
    panels[1].set_ylim(bottom=0)
    _legend_at_the_right(figure, panels[0], "run")
    names = [name for name in ("task_id", "trial", "seed", "at", "success_rate", "mean_lpc") if name in rows]
    return keep_numbers(figure, rows[names].to_dict("records"))


def plot_expert_use(routing_by_name: Mapping[str, Entries], sizes_by_name: Mapping[str, Sizes] | None = None) -> Figure:
    """Return the mean routing weights of several checkpoints as stacked bars, a panel per layer."""
    loaded = {name: require_steps(entries) for name, entries in routing_by_name.items()}
    sizes_by_name = sizes_by_name or {}
    layers = max(len(data.weights) for data in loaded.values())
    title = "Mean routing weights over all steps"
    figure, axes = new_figure(1, layers, 2.6, 0.3 * len(loaded) + 1.4, title, sharey=True)
    if current_page().width is None:
        figure.set_figwidth(figure.get_figwidth() + 2)
    names: dict[str, int] = {}
    numbers = []
    for place, (name, data) in enumerate(loaded.items()):
        labels = common_names(data, sizes_by_name.get(name))
        names |= {label: expert for expert, label in enumerate(labels)}
        for layer, (panel, weights) in enumerate(zip(axes[0], data.weights, strict=False)):
            mean = weights.mean(0)
            panel.barh(place, mean, left=np.cumsum(mean) - mean, color=expert_colors(len(mean)))
            numbers += [
                {"checkpoint": name, "layer": layer, "expert": label, "mean_weight": weight}
                for label, weight in zip(labels, mean.tolist(), strict=False)
            ]
    for layer, panel in enumerate(axes[0]):
        panel.set_title(f"layer {layer}", fontsize=small())
        plain(panel).set(xlabel="mean weight", xlim=(0, 1), yticks=range(len(loaded)))
        panel.set_yticklabels(loaded, fontsize=small())
    axes[0, 0].invert_yaxis()
    legend(figure, list(names), [expert_colors(expert + 1)[-1] for expert in names.values()])
    return keep_numbers(figure, numbers)
