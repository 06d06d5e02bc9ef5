"""Many runs at once: success, what it costs, how it was learned, and which experts it uses.

Results are the data frame of `tables.read_results`. A run is a task and a trial; its seeds are summarised. Every
figure says in its title what its error bars are.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from plotting.data import Entries
from plotting.style import EXPERT_COLORS, Sizes, common_names, new_figure, plain, require_steps
from results.routing_data import RoutingData

CURVES = {
    "success_rate": "success rate",
    "accuracy": "accuracy (the bot's action)",
    "ce": "cross-entropy (nats)",
    "mean_lpc": "mean LPC per step",
}
ERROR_BARS = "bars: standard error over seeds; 95 % Wilson interval where there is one"
_Z = 1.96  # standard deviations to either side of the mean that hold 95 % of a normal distribution
_MARKERS = "osD^vP*X<>"
_MOST_BANDS = 6
_LINES = ["-", "--", ":", "-."]


def wilson_interval(success_rate: float, num_episodes: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a success rate measured over `num_episodes` independent episodes.

    Unlike the normal approximation it stays within 0 and 1, and is not empty where all or no episodes succeeded.
    """
    shrink = 1 + _Z**2 / num_episodes
    center = (success_rate + _Z**2 / (2 * num_episodes)) / shrink
    spread = success_rate * (1 - success_rate) / num_episodes + _Z**2 / (4 * num_episodes**2)
    half = _Z * np.sqrt(spread) / shrink
    return max(0.0, float(center - half)), min(1.0, float(center + half))


def summarise_runs(results: pd.DataFrame, by: Sequence[str] = ("task_id", "trial", "update")) -> pd.DataFrame:
    """Return one row for the rows of `results` that agree in the columns `by`: means and error bars over seeds.

    `success_low` and `success_high` are a standard error over the seeds away from the mean `success_rate`, or the
    Wilson interval of the only seed's episodes; `lpc_error` is the standard error of `mean_lpc`, 0 for one seed.
    `mean_lpc` is NaN for baselines, which have no experts.
    """
    by = [name for name in by if name in results]
    rows = []
    for key, runs in results.groupby(by, sort=True, dropna=False):
        success, lpc = runs["success_rate"].astype(float), runs["mean_lpc"].astype(float)
        mean, lpc_error = success.mean(), 0.0
        if len(runs) == 1:
            low, high = wilson_interval(mean, int(runs["num_episodes"].iloc[0]))
        else:
            error = success.std() / np.sqrt(len(runs))
            low, high = max(0.0, mean - error), min(1.0, mean + error)
            lpc_error = lpc.std() / np.sqrt(len(runs))
        values = {"seeds": len(runs), "success_rate": mean, "success_low": low, "success_high": high}
        values |= {"mean_lpc": lpc.mean(), "lpc_error": lpc_error}
        rows.append(dict(zip(by, key, strict=True)) | values)
    columns = [*by, "seeds", "success_rate", "success_low", "success_high", "mean_lpc", "lpc_error"]
    return pd.DataFrame(rows, columns=columns)


def short_task(task_id: str) -> str:
    """Return `GoToLocal` for `BabyAI-GoToLocal-v0`."""
    return task_id.removeprefix("BabyAI-").removesuffix("-v0")


def _task_styles(tasks: Iterable[str]) -> dict[str, dict]:
    """Return a color and a marker for each task; thirty tasks differ in at least one of them."""
    return {
        task: {"color": EXPERT_COLORS[place % 6], "marker": _MARKERS[(place // 6 + place) % len(_MARKERS)]}
        for place, task in enumerate(sorted(set(tasks)))
    }


def _success_bars(runs: pd.DataFrame) -> np.ndarray:
    """Return the lengths [2, runs] of the error bars below and above the success rates."""
    lengths = [runs["success_rate"] - runs["success_low"], runs["success_high"] - runs["success_rate"]]
    return np.clip(np.array(lengths, float), 0, None)


def _legend_at_the_right(figure: Figure, axes: Axes, title: str = "") -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 1 + (len(handles) - 1) // 24
        figure.legend(
            handles,
            labels,
            loc="outside right upper",
            ncols=columns,
            fontsize=8,
            frameon=False,
            title=title,
            title_fontsize=8,
        )


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels that share their y axis, three in a row."""
    columns = min(3, count)
    figure, axes = new_figure(-(-count // columns), columns, width, height, sharey=True)
    for panel in axes.flat[count:]:
        panel.set_axis_off()
    return figure, list(axes.flat[:count])


def plot_success_against_lpc(results: pd.DataFrame) -> Figure:
    """Return success rate against mean LPC, a point per run; baselines, which have no LPC, in a strip of their own.

    Raises:
        ValueError: there are no results.
    """
    if results.empty:
        raise ValueError("there are no results: there is nothing to draw")
    runs = summarise_runs(results)
    styles = _task_styles(runs["task_id"])
    mixtures, baselines = runs[runs["mean_lpc"].notna()], runs[runs["mean_lpc"].isna()]
    parts = [group for group in (baselines, mixtures) if len(group)]
    widths = [1 + 0.1 * len(baselines) if group is baselines else 7 for group in parts]
    figure = Figure((8.6, 4.6), layout="constrained")
    panels = figure.subplots(1, len(parts), sharey=True, width_ratios=widths, squeeze=False)[0]
    figure.suptitle(f"Success against what the policy uses\n({ERROR_BARS})", fontsize=10)
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
        for row in group.itertuples():
            update = getattr(row, "update", None)
            name = f"{row.trial}" if update is None or pd.isna(update) else f"{row.trial} ({update})"
            place = (lpc[row.Index], row.success_rate)
            panel.annotate(name, place, (4, 4), textcoords="offset points", fontsize=7)
        plain(panel)
        if is_strip:
            panel.set(xlabel="GRU\nbaselines", xticks=[], xlim=(-0.8, len(group) - 0.2))
        else:
            panel.set_xlabel("mean LPC per step (weighted squares of the experts' sizes)")
            panel.set_xlim(left=0)
    panels[0].set(ylabel="success rate", ylim=(-0.03, 1.05))
    _legend_at_the_right(figure, panels[-1], "task\n(number: trial)")
    return figure


def plot_lpc_alpha(results: pd.DataFrame) -> Figure:
    """Return success rate and mean LPC against `lpc_alpha`, a line per task; runs without experts are left out."""
    results = results.assign(lpc_alpha=pd.to_numeric(results["lpc_alpha"], errors="coerce"))
    runs = summarise_runs(results[results["lpc_alpha"].notna() & results["mean_lpc"].notna()], ("task_id", "lpc_alpha"))
    figure, axes = new_figure(1, 2, 4.8, 3.8, f"What the price of experts (lpc_alpha) does\n({ERROR_BARS})")
    for task, style in _task_styles(runs["task_id"]).items():
        group = runs[runs["task_id"] == task]
        common = {"capsize": 2, "linewidth": 1.3, "label": short_task(task), **style}
        axes[0, 0].errorbar(group["lpc_alpha"], group["success_rate"], _success_bars(group), **common)
        axes[0, 1].errorbar(group["lpc_alpha"], group["mean_lpc"], group["lpc_error"], **common)
    alphas = np.unique(runs["lpc_alpha"].astype(float))
    for panel, label in zip(axes[0], ["success rate", "mean LPC per step"], strict=True):
        plain(panel).set(xlabel="lpc_alpha", ylabel=label)
        if (alphas > 0).any():
            smallest = alphas[alphas > 0].min()
            panel.set_xscale("symlog", linthresh=smallest)
            panel.xaxis.set_major_locator(FixedLocator(alphas))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter(FuncFormatter(lambda alpha, _: f"{alpha:g}"))
            panel.tick_params(axis="x", labelrotation=30 if len(alphas) > 4 else 0)
            panel.set_xlim(0.5 * smallest if alphas[0] > 0 else -0.2 * smallest, 1.6 * alphas.max())
    axes[0, 0].set_ylim(-0.03, 1.05)
    axes[0, 1].set_ylim(bottom=0)
    _legend_at_the_right(figure, axes[0, 0], "task")
    return figure


def seed_agreement(first: Entries, second: Entries) -> float:
    """Return whether two policies find the same levels expensive: Spearman's rank correlation, over the levels that
    both solved, of the mean LPC per step. NaN for fewer than three such levels.

    Args:
        first, second: routing data of the same levels.
    """
    columns = []
    for data in map(RoutingData.from_entries, (first, second)):
        steps = np.bincount(data.episode, minlength=len(data.episodes))
        lpc = np.bincount(data.episode, data.lpc, len(data.episodes)) / np.maximum(steps, 1)
        solved = np.array([bool(episode["success"]) for episode in data.episodes]) & (steps > 0)
        columns.append(pd.Series(np.where(solved, lpc, np.nan), [episode["seed"] for episode in data.episodes]))
    both = pd.concat(columns, axis=1).dropna()
    return float(both[0].rank().corr(both[1].rank())) if len(both) > 2 else np.nan


def plot_lpc_against_difficulty(results: pd.DataFrame) -> Figure:
    """Return mean LPC against how hard a task is, a panel per trial number (a way to train), a point per task.

    A task is as hard as the baseline finds it: the share of the held-out levels that it fails (the mean over its trials
    and seeds). Titles give Spearman's rank correlation over tasks.

    Raises:
        ValueError: no task has both a mixture and a baseline.
    """
    is_baseline = results["mean_lpc"].isna()
    failed = 1 - results[is_baseline].groupby("task_id")["success_rate"].mean()
    runs = summarise_runs(results[~is_baseline & results["task_id"].isin(failed.index)])
    if runs.empty:
        raise ValueError("no task has both a mixture and a baseline: a task is as hard as the baseline finds it")
    trials = sorted(runs["trial"].unique())
    figure, panels = _panels(len(trials), 5.2, 4.2)
    figure.suptitle(
        "What is used, against how hard the task is\n(bars: standard error over seeds; rank correlation over tasks)",
        fontsize=10,
    )
    for panel, trial in zip(panels, trials, strict=True):
        group = runs[runs["trial"] == trial]
        difficulty = group["task_id"].map(failed)
        style = {"linestyle": "none", "marker": "o", "color": EXPERT_COLORS[0], "capsize": 2}
        panel.errorbar(difficulty, group["mean_lpc"], group["lpc_error"], **style)
        rho = difficulty.rank().corr(group["mean_lpc"].rank()) if len(group) > 2 else np.nan
        title = f"trial {trial}" if np.isnan(rho) else f"trial {trial}: Spearman {rho:.2f}, {len(group)} tasks"
        plain(panel).set_title(title, fontsize=9)
        panel.set(xlabel="share of held-out levels the baseline fails", xlim=(-0.03, 1.12))
    highest = (runs["mean_lpc"] + runs["lpc_error"].fillna(0)).max()
    panels[0].set(ylabel="mean LPC per step", ylim=(0, 1.1 * highest + 1))
    for panel, trial in zip(panels, trials, strict=True):
        group = runs[runs["trial"] == trial]
        places = np.column_stack([group["task_id"].map(failed), group["mean_lpc"]])
        _name_points(panel, places, [short_task(task) for task in group["task_id"]])
    return figure


def _name_points(panel: Axes, places: np.ndarray, names: Sequence[str]) -> None:
    """Write each point's name as near to it as leaves other names and points legible, a thin line between the two.

    Args:
        places: [N, 2], in data coordinates.
    """
    panel.figure.draw_without_rendering()  # only then is it known where points lie on the page
    point = panel.figure.dpi / 72
    taken = [Bbox.from_bounds(x - 4 * point, y - 4 * point, 8 * point, 8 * point) for x, y in _on_page(panel, places)]
    directions = [(np.cos(angle), np.sin(angle)) for angle in np.radians(np.arange(30, 390, 30))]
    line = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    centred = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 6.5}
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


def plot_lesions(results: pd.DataFrame, lesioned: pd.DataFrame) -> Figure:
    """Return what switching experts off costs: success of each task with and without them, a panel per trial number.

    Args:
        results: of the whole policies.
        lesioned: the rows of `evaluation_results_lesions.csv`, with the column `lesion`.

    Raises:
        ValueError: no lesioned checkpoint is among the results.
    """
    pairs = lesioned.merge(results[["checkpoint_path", "success_rate"]], on="checkpoint_path", suffixes=("", "_whole"))
    if pairs.empty:
        raise ValueError("none of these checkpoints was evaluated with experts off (batch_eval.py --disable_experts)")
    means = pairs.groupby(["task_id", "trial", "lesion"])[["success_rate", "success_rate_whole"]].mean().reset_index()
    lost = (means["success_rate_whole"] - means["success_rate"]).groupby(means["task_id"]).mean()
    tasks, trials = lost.sort_values().index.tolist(), sorted(means["trial"].unique())
    figure, panels = _panels(len(trials), 4.2, 0.24 * len(tasks) + 1.3)
    figure.suptitle("Success with all experts, and with some switched off (means over seeds)", fontsize=10)
    for panel, trial in zip(panels, trials, strict=True):
        group = means[means["trial"] == trial]
        for color, (lesion, rows) in zip(EXPERT_COLORS[1:], group.groupby("lesion"), strict=False):
            places = [tasks.index(task) for task in rows["task_id"]]
            panel.hlines(places, rows["success_rate"], rows["success_rate_whole"], color=color, linewidth=1.5)
            experts = lesion.replace("-", ":").replace("_", ", ")
            panel.plot(rows["success_rate"], places, "o", color=color, label=f"without {experts}")
        whole = group.drop_duplicates("task_id")
        places = [tasks.index(task) for task in whole["task_id"]]
        panel.plot(whole["success_rate_whole"], places, "|", color="black", markersize=10, label="all experts")
        plain(panel).set(title=f"trial {trial}", xlabel="success rate", xlim=(-0.03, 1.03))
    panels[0].set_yticks(range(len(tasks)), [short_task(task) for task in tasks], fontsize=8)
    _legend_at_the_right(figure, panels[0], "experts off (layer:expert)")
    return figure


def plot_learning_curves(metrics_by_run: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Return success, accuracy, loss and LPC against environment steps: a line per run, its mean over seeds.

    Args:
        metrics_by_run: by the run's name, the `metrics.csv` of each of its seeds. Seeds are averaged over the updates
            that all of them have logged; the band goes from the lowest to the highest of them. More than six runs
            are drawn without bands, which would hide each other.
    """
    has_seeds = any(len(metrics) > 1 for metrics in metrics_by_run.values())
    has_bands = has_seeds and len(metrics_by_run) <= _MOST_BANDS
    details = " (mean over seeds; bands: lowest to highest seed)" if has_bands else " (mean over seeds)"
    title = "Learning curves" + (details if has_seeds else "")
    figure, axes = new_figure(2, 2, 4.6, 2.7, title, sharex=True)
    for place, (run, metrics) in enumerate(metrics_by_run.items()):
        style = {"color": EXPERT_COLORS[place % 6], "linestyle": _LINES[place // 6 % 4]}
        style["linewidth"] = 2.8 - 1.6 * place / len(metrics_by_run)  # equal curves show behind each other
        logged = pd.concat(metrics).groupby("update")
        common = logged.size() == logged.size().max()
        steps = logged["env_steps"].mean()[common] / 1e6
        notes = ["baseline"] if all(seed["mean_lpc"].isna().all() for seed in metrics) else []
        notes += [f"{len(metrics)} seeds"] if len(metrics) > 1 else []
        label = f"{run} ({', '.join(notes)})" if notes else run
        for panel, name in zip(axes.flat, CURVES, strict=True):
            curve = logged[name]
            panel.plot(steps, curve.mean()[common], label=label, **style)
            if len(metrics) > 1 and has_bands:
                low, high = curve.min()[common].astype(float), curve.max()[common].astype(float)
                panel.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
    for panel, label in zip(axes.flat, CURVES.values(), strict=True):
        plain(panel).set_ylabel(label)
    axes[0, 0].set_ylim(-0.03, 1.05)
    axes[0, 1].set_ylim(-0.03, 1.05)
    for panel in axes[1]:
        panel.set_xlabel("environment steps (millions)")
        panel.set_ylim(bottom=0)
    _legend_at_the_right(figure, axes[0, 0], "run")
    return figure


def plot_expert_use(routing_by_name: Mapping[str, Entries], sizes_by_name: Mapping[str, Sizes] | None = None) -> Figure:
    """Return the mean routing weights of several checkpoints as stacked bars, a panel per layer."""
    loaded = {name: require_steps(entries) for name, entries in routing_by_name.items()}
    sizes_by_name = sizes_by_name or {}
    layers = max(len(data.weights) for data in loaded.values())
    figure, axes = new_figure(
        1, layers, 2.6, 0.3 * len(loaded) + 1.4, "Mean routing weights over all steps", sharey=True
    )
    figure.set_figwidth(figure.get_figwidth() + 2)
    names: dict[str, int] = {}
    for place, (name, data) in enumerate(loaded.items()):
        names |= {label: expert for expert, label in enumerate(common_names(data, sizes_by_name.get(name)))}
        for panel, weights in zip(axes[0], data.weights, strict=False):
            mean = weights.mean(0)
            panel.barh(place, mean, left=np.cumsum(mean) - mean, color=EXPERT_COLORS[: len(mean)])
    for layer, panel in enumerate(axes[0]):
        plain(panel).set(title=f"layer {layer}", xlabel="mean weight", xlim=(0, 1), yticks=range(len(loaded)))
        panel.set_yticklabels(loaded, fontsize=8)
    axes[0, 0].invert_yaxis()
    handles = [Patch(color=EXPERT_COLORS[expert], label=label) for label, expert in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    return figure
