"""Many checkpoints: success, cost, learning curves, and the use of experts."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from plotting.data import Entries
from plotting.style import EXPERT_COLORS, Sizes, common_names, new_figure, plain, require_steps

_MARKERS = "osD^vP*X<>"


def summarise_runs(results: pd.DataFrame) -> pd.DataFrame:
    """Return one row per task and trial: means over its seeds, and errors (one standard error).

    With one seed only, the error of the success rate is the binomial one of its episodes and that of the LPC is 0.
    """
    rows = []
    for (task_id, trial), runs in results.groupby(["task_id", "trial"], sort=True):
        count = len(runs)
        success, lpc = runs["success_rate"].astype(float), runs["mean_lpc"].astype(float)
        if count > 1:
            success_error, lpc_error = success.std() / np.sqrt(count), lpc.std() / np.sqrt(count)
        else:
            success_error = np.sqrt(success.iloc[0] * (1 - success.iloc[0]) / runs["num_episodes"].iloc[0])
            lpc_error = 0.0
        alpha = pd.to_numeric(runs["lpc_alpha"], errors="coerce").iloc[0]
        rows.append((task_id, trial, count, success.mean(), success_error, lpc.mean(), lpc_error, alpha))
    columns = ["task_id", "trial", "seeds", "success_rate", "success_error", "mean_lpc", "lpc_error", "lpc_alpha"]
    return pd.DataFrame(rows, columns=columns)


def _task_style(tasks: Sequence[str]) -> dict[str, dict]:
    """Return a color and marker for each task, no two alike among sixty."""
    return {
        task: {"color": EXPERT_COLORS[place % 6], "marker": _MARKERS[(place // 6 + place) % len(_MARKERS)]}
        for place, task in enumerate(sorted(tasks))
    }


def _short_task(task_id: str) -> str:
    return task_id.removeprefix("BabyAI-").removesuffix("-v0")


def plot_success_against_lpc(results: pd.DataFrame) -> Figure:
    """Return success rate against mean LPC, a point per task and trial, error bars over its seeds.

    Baselines, which have no LPC, are dashed lines. A number beside a point is its trial.
    """
    runs = summarise_runs(results)
    styles = _task_style(runs["task_id"].unique())
    figure, axes = new_figure(1, 1, 7.5, 4.4, "Success against what the policy uses")
    panel = plain(axes[0, 0])
    for task, group in runs.groupby("task_id"):
        mixtures, style = group[group["mean_lpc"].notna()], styles[task]
        panel.errorbar(
            mixtures["mean_lpc"],
            mixtures["success_rate"],
            mixtures["success_error"],
            mixtures["lpc_error"],
            linestyle="none",
            capsize=2,
            label=_short_task(task),
            **style,
        )
        for row in mixtures.itertuples():
            panel.annotate(
                f"{row.trial}", (row.mean_lpc, row.success_rate), (4, 4), textcoords="offset points", fontsize=7
            )
        for row in group[group["mean_lpc"].isna()].itertuples():
            panel.axhline(row.success_rate, color=style["color"], linestyle="--", linewidth=1)
            panel.annotate(
                f"baseline {row.trial}",
                (1, row.success_rate),
                xycoords=("axes fraction", "data"),
                fontsize=7,
                ha="right",
            )
    panel.set(xlabel="mean LPC per step", ylabel="success rate", ylim=(-0.03, 1.05))
    panel.set_xlim(left=min(0, panel.get_xlim()[0]))
    figure.legend(loc="outside right upper", fontsize=8, frameon=False, title="task (number: trial)", title_fontsize=8)
    return figure


def plot_lpc_alpha(results: pd.DataFrame) -> Figure:
    """Return success rate and mean LPC against `lpc_alpha`, a line per task, error bars over seeds and trials."""
    results = results.assign(lpc_alpha=pd.to_numeric(results["lpc_alpha"], errors="coerce"))
    results = results[results["lpc_alpha"].notna() & results["mean_lpc"].notna()]
    figure, axes = new_figure(1, 2, 4.4, 3.6, "What the price of experts (lpc_alpha) does")
    styles = _task_style(results["task_id"].unique())
    positive = results.loc[results["lpc_alpha"] > 0, "lpc_alpha"]
    for panel, name, label in zip(
        axes[0], ["success_rate", "mean_lpc"], ["success rate", "mean LPC per step"], strict=True
    ):
        plain(panel)
        for task, group in results.groupby("task_id"):
            by_alpha = group.groupby("lpc_alpha")[name]
            error = (by_alpha.std() / np.sqrt(by_alpha.count())).fillna(0)
            mean = by_alpha.mean()
            panel.errorbar(mean.index, mean, error, capsize=2, label=_short_task(task), **styles[task])
        if len(positive):
            panel.set_xscale("symlog", linthresh=float(positive.min()))
        panel.set(xlabel="lpc_alpha", ylabel=label)
    axes[0, 0].set_ylim(-0.03, 1.05)
    axes[0, 1].set_ylim(bottom=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return figure


CURVES = {
    "success_rate": "success rate",
    "accuracy": "accuracy (bot's action)",
    "ce": "cross-entropy (nats)",
    "mean_lpc": "mean LPC",
}


def plot_learning_curves(metrics_by_run: Mapping[str, pd.DataFrame]) -> Figure:
    """Return success, accuracy, loss and LPC against environment steps, a line per run of `metrics.csv`."""
    figure, axes = new_figure(2, 2, 4.6, 2.6, "Learning curves", sharex=True)
    lines = ["-", "--", ":", "-."]
    for panel, (name, label) in zip(axes.flat, CURVES.items(), strict=True):
        plain(panel)
        for place, (run, metrics) in enumerate(metrics_by_run.items()):
            style = {"color": EXPERT_COLORS[place % 6], "linestyle": lines[place // 6 % 4]}
            panel.plot(metrics["env_steps"] / 1e6, metrics[name], label=run, linewidth=1.4, **style)
        panel.set_ylabel(label)
    axes[0, 0].set_ylim(-0.03, 1.03)
    for panel in axes[1]:
        panel.set_xlabel("environment steps (millions)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def plot_expert_use(routing_by_name: Mapping[str, Entries], sizes_by_name: Mapping[str, Sizes] | None = None) -> Figure:
    """Return the mean routing weights of several checkpoints as stacked bars, a panel per layer."""
    loaded = {name: require_steps(entries) for name, entries in routing_by_name.items()}
    sizes_by_name = sizes_by_name or {}
    layers = max(len(data.weights) for data in loaded.values())
    figure, axes = new_figure(1, layers, 2.6, 0.32 * len(loaded) + 1.2, "Mean routing weights", sharey=True)
    figure.set_figwidth(figure.get_figwidth() + 2)
    names: dict[str, int] = {}
    for place, (name, data) in enumerate(loaded.items()):
        labels = common_names(data, sizes_by_name.get(name))
        names |= {label: expert for expert, label in enumerate(labels)}
        for panel, weights in zip(axes[0], data.weights, strict=False):
            mean = weights.mean(0)
            panel.barh(place, mean, left=np.cumsum(mean) - mean, color=EXPERT_COLORS[: len(mean)])
    for layer, panel in enumerate(axes[0]):
        panel.set(title=f"layer {layer}", xlabel="mean weight", xlim=(0, 1), yticks=range(len(loaded)))
        panel.set_yticklabels(loaded, fontsize=8)
    axes[0, 0].invert_yaxis()
    handles = [Patch(color=EXPERT_COLORS[expert], label=label) for label, expert in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    return figure
