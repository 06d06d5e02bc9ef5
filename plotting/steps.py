"""Routing over time, its distributions, and which expert carries which behaviour."""

from collections.abc import Sequence
from textwrap import fill

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plotting.data import Entries, contexts, mean_by
from plotting.style import (
    EXPERT_COLORS,
    Sizes,
    common_names,
    expert_names,
    layer_sizes,
    layer_title,
    legend,
    new_figure,
    plain,
    require_steps,
)
from results.routing_data import RoutingData

ACTION_NAMES = ["turn left", "turn right", "forward", "pick up", "drop", "toggle", "done"]
OBJECT_KINDS = ["doors", "keys", "goals"]
_SHORT = 1 / 20  # of all episodes: means over fewer are not drawn
_WEIGHT_LIMITS = -0.03, 1.03  # lines at 0 and 1 stay whole


def plot_episode(routing_data: Entries, episode: int, expert_hidden_sizes: Sizes = None) -> Figure:
    """Return the routing weights of one episode over its timesteps, one panel per layer, and its LPC.

    Grey marks the steps at which something is carried.
    """
    data = require_steps(routing_data)
    steps = data.select(data.episode == episode)
    if len(steps) == 0:
        raise ValueError(f"episode {episode} has no steps in this data")
    about = data.episodes[episode]
    outcome = {True: ", solved", False: ", not solved", None: ""}[about["success"]]
    title = fill(f"Episode {episode}: {about['mission'] or 'unknown mission'}{outcome}", 100)
    layers = len(data.weights)
    figure, axes = new_figure(layers + 1, 1, 8, 1.5, title, sharex=True)
    for layer, panel in enumerate(axes[:-1, 0]):
        panel.stackplot(steps.timestep, *steps.weights[layer].T, colors=EXPERT_COLORS, step="mid", linewidth=0)
        panel.set(ylim=(0, 1), ylabel="weight")
        panel.set_title(layer_title(layer, data, expert_hidden_sizes), fontsize=9)
    panel = plain(axes[-1, 0])
    panel.plot(steps.timestep, steps.lpc, color="black", drawstyle="steps-mid", linewidth=1)
    panel.fill_between(
        steps.timestep, 0, 1, steps.carrying > 0, transform=panel.get_xaxis_transform(), color="#dddddd", step="mid"
    )
    panel.set(xlabel="timestep", ylabel="LPC", ylim=(0, None))
    panel.margins(x=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title("LPC (grey: something is carried)", fontsize=9)
    legend(figure, common_names(data, expert_hidden_sizes))
    return figure


def plot_mean_over_time(routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "") -> Figure:
    """Return the mean routing weights over time, episodes aligned at their start and at their end.

    Bands are one standard error; means over less than a twentieth of the episodes are left out.
    """
    data = require_steps(routing_data)
    last = np.zeros(len(data.episodes), int)
    np.maximum.at(last, data.episode, data.timestep)
    alignments = [("steps since the start", data.timestep), ("steps until the end", last[data.episode] - data.timestep)]
    title = f"Mean routing weights over time{title_suffix}"
    figure, axes = new_figure(len(data.weights) + 1, 2, 4.2, 1.8, title, sharex="col", sharey="row")
    for column, (label, time) in enumerate(alignments):
        counts = np.bincount(time)
        shown = np.flatnonzero(counts >= max(2, _SHORT * len(np.unique(data.episode))))
        shown = shown if len(shown) else np.flatnonzero(counts)
        for row, values in enumerate([*data.weights, data.lpc[:, None]]):
            panel = plain(axes[row, column])
            colors = EXPERT_COLORS if row < len(data.weights) else ["black"]
            mean = mean_by(time, values, len(counts))
            error = np.sqrt(
                np.maximum(mean_by(time, np.square(values), len(counts)) - mean**2, 0) / np.maximum(counts, 1)[:, None]
            )
            _draw_means(panel, shown, mean[shown], error[shown], colors)
            if column == 0:
                panel.set_ylabel("weight" if row < len(data.weights) else "LPC")
            name = layer_title(row, data, expert_hidden_sizes) if row < len(data.weights) else "LPC"
            panel.set_title(name, fontsize=9)
            panel.set_ylim(*(_WEIGHT_LIMITS if row < len(data.weights) else (0, None)))
        axes[-1, column].set_xlabel(label)
    axes[0, 1].invert_xaxis()  # and with it the column, which shares it
    legend(figure, common_names(data, expert_hidden_sizes))
    return figure


def _draw_means(
    panel: Axes, x: np.ndarray, mean: np.ndarray, error: np.ndarray, colors: Sequence[str], **style
) -> None:
    for column, color in zip(range(mean.shape[1]), colors, strict=False):
        panel.plot(x, mean[:, column], color=color, linewidth=1.5, **style)
        low, high = mean[:, column] - error[:, column], mean[:, column] + error[:, column]
        panel.fill_between(x, low, high, color=color, alpha=0.25, linewidth=0)


def plot_weight_histograms(routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "") -> Figure:
    """Return the histograms of every expert's routing weight, one panel per layer."""
    data = require_steps(routing_data)
    columns = min(len(data.weights), 4)
    rows = -(-len(data.weights) // columns)
    title = f"How often an expert has which weight{title_suffix}"
    figure, axes = new_figure(rows, columns, 3.4, 2.6, title, sharey=True)
    edges = np.linspace(0, 1, 26)
    for layer, weights in enumerate(data.weights):
        panel = plain(axes.flat[layer])
        line_widths = np.linspace(3.6, 1, weights.shape[1])  # equal histograms stay visible behind each other
        for expert, (color, line_width) in enumerate(zip(EXPERT_COLORS, line_widths, strict=False)):
            share = np.histogram(weights[:, expert].clip(0, 1), edges)[0] / len(data)
            panel.stairs(share, edges, color=color, linewidth=line_width)
            panel.stairs(share, edges, color=color, alpha=0.15, fill=True)
        panel.set_title(layer_title(layer, data, expert_hidden_sizes), fontsize=9)
        panel.set_xlabel("routing weight")
    axes[0, 0].set_ylabel("share of steps")
    for unused in axes.flat[len(data.weights) :]:
        unused.set_axis_off()
    legend(figure, common_names(data, expert_hidden_sizes))
    return figure


def routing_entropy(weights: np.ndarray) -> np.ndarray:
    """Return the entropy in bits [T] of routing weights [T, experts]: 0 where one expert has all the weight."""
    return -np.sum(weights * np.log2(np.maximum(weights, 1e-12)), axis=1)


def plot_routing_entropy(routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "") -> Figure:
    """Return the distribution of each layer's routing entropy, and of the LPC."""
    data = require_steps(routing_data)
    sizes = layer_sizes(data, expert_hidden_sizes)
    figure, axes = new_figure(1, 2, 4.6, 2.9, f"How undecided routers are, and what it costs{title_suffix}")
    entropy, lpc = map(plain, axes[0])
    most = np.log2(max(layer.shape[1] for layer in data.weights))
    edges = np.linspace(0, max(most, 1e-3), 26)
    line_widths = np.linspace(3.6, 1, len(data.weights))
    for layer, weights in enumerate(data.weights):
        values = routing_entropy(weights).clip(0, edges[-1])
        label = f"layer {layer} (mean {values.mean():.2f})"
        color = matplotlib.colormaps["cividis"](layer / max(len(data.weights) - 0.5, 1))
        entropy.stairs(
            np.histogram(values, edges)[0] / len(data), edges, linewidth=line_widths[layer], color=color, label=label
        )
    entropy.axvline(most, color="grey", linestyle=":", label="all experts alike")
    entropy.set(xlabel="routing entropy (bits)", ylabel="share of steps")
    entropy.legend(fontsize=7, frameon=False)
    values = data.lpc[np.isfinite(data.lpc)]
    if len(values):
        lpc.hist(
            values,
            np.linspace(0, max(float(values.max()), 1e-9), 31),
            weights=np.full(len(values), 1 / len(values)),
            color="#555555",
        )
        lpc.axvline(values.mean(), color="black", linestyle="--", label=f"mean {values.mean():.0f}")
        lpc.legend(fontsize=8, frameon=False)
    known = all(layer is not None for layer in sizes)
    most_lpc = f" (all weight on the largest experts: {sum(max(layer) ** 2 for layer in sizes)})" if known else ""
    lpc.set(xlabel=f"LPC of a step{most_lpc}", ylabel="share of steps")
    return figure


def object_distances(routing_data: Entries, kind: str) -> np.ndarray:
    """Return each step's distance [T] in cells (Manhattan) to where the nearest object of a kind was at the start.

    Args:
        kind: a key of `env_context` such as `doors`, `keys` or `goals`. NaN where an episode has none.
    """
    data = RoutingData.from_entries(routing_data)
    objects = [[entry["position"] for entry in context.get(kind) or ()] for context in contexts(data)]
    nearest = np.full(len(data), np.inf, np.float32)
    for place in range(max(map(len, objects), default=0)):
        position = np.array([each[place] if place < len(each) else (np.inf, np.inf) for each in objects], np.float32)
        nearest = np.minimum(nearest, np.abs(data.position - position[data.episode]).sum(1))
    return np.where(np.isfinite(nearest), nearest, np.nan)


def plot_routing_by_distance(
    routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = ""
) -> Figure:
    """Return the mean routing weights against the distance to the nearest door, key and goal of the mission.

    Means and standard errors (bands) are over episodes: each counts alike, however long it stays at a distance.
    """
    data = require_steps(routing_data)
    distances = {kind: object_distances(data, kind) for kind in OBJECT_KINDS}
    distances = {kind: distance for kind, distance in distances.items() if not np.isnan(distance).all()}
    if not distances:
        raise ValueError("these levels have neither doors nor keys nor goals")
    title = f"Mean routing weights by distance{title_suffix}"
    figure, axes = new_figure(len(data.weights), len(distances), 3.6, 2.0, title, sharex="col", sharey=True)
    for column, (kind, distance) in enumerate(distances.items()):
        known = np.isfinite(distance)
        bins, episodes = distance[known].astype(int), data.episode[known]
        width = bins.max() + 1
        cells, place = np.unique(episodes.astype(np.int64) * width + bins, return_inverse=True)
        counts = np.bincount(cells % width)
        shown = np.flatnonzero(counts >= max(2, _SHORT * len(np.unique(episodes))))
        for layer, weights in enumerate(data.weights):
            panel = plain(axes[layer, column])
            of_episode = mean_by(place, weights[known], len(cells))
            mean = mean_by(cells % width, of_episode, len(counts))
            square = mean_by(cells % width, np.square(of_episode), len(counts))
            error = np.sqrt(np.maximum(square - mean**2, 0) / np.maximum(counts, 1)[:, None])
            _draw_means(panel, shown, mean[shown], error[shown], EXPERT_COLORS, marker=".")
            panel.set_ylim(_WEIGHT_LIMITS)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_title(layer_title(layer, data, expert_hidden_sizes), fontsize=9)
            if column == 0:
                panel.set_ylabel("weight")
        thing = "the mission's goal" if kind == "goals" else kind.removesuffix("s")
        axes[-1, column].set_xlabel(f"cells to the nearest {thing}" if kind != "goals" else f"cells to {thing}")
    legend(figure, common_names(data, expert_hidden_sizes))
    return figure


def behaviours(routing_data: Entries) -> dict[str, np.ndarray]:
    """Return which steps [T] belong to which behaviour: actions, carrying, outcome and third of the episode."""
    data = RoutingData.from_entries(routing_data)
    masks = {name: data.action == action for action, name in enumerate(ACTION_NAMES)}
    masks |= {"hands empty": data.carrying == 0, "carrying": data.carrying > 0}
    success = np.array([-1 if episode["success"] is None else episode["success"] for episode in data.episodes], int)
    masks |= {"solved": success[data.episode] == 1, "not solved": success[data.episode] == 0}
    length = np.zeros(len(data.episodes), int)
    np.maximum.at(length, data.episode, data.timestep + 1)
    third = data.timestep * 3 // length[data.episode]
    masks |= {name: third == part for part, name in enumerate(["first third", "second third", "last third"])}
    return {name: mask for name, mask in masks.items() if mask.any()}


def plot_specialisation(routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "") -> Figure:
    """Return which expert carries which behaviour: mean weights by action, carrying, outcome, third of the episode."""
    data = require_steps(routing_data)
    sizes = layer_sizes(data, expert_hidden_sizes)
    masks = behaviours(data)
    selected = np.stack(list(masks.values())).astype(np.float32)
    counts = selected.sum(1)
    labels = [f"{name} ({count / len(data):.0%})" for name, count in zip(masks, counts, strict=True)]
    title = f"Mean routing weight by behaviour (share of steps){title_suffix}"
    width = 0.55 * max(layer.shape[1] for layer in data.weights) + 0.7
    figure, axes = new_figure(1, len(data.weights), width, 0.3 * len(masks) + 1.2, title, sharey=True)
    figure.set_figwidth(figure.get_figwidth() + 2.2)
    for layer, (weights, panel) in enumerate(zip(data.weights, axes[0], strict=True)):
        mean = selected @ weights / counts[:, None]
        image = panel.imshow(mean, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(mean.shape):
            color = "white" if mean[row, column] < 0.5 else "black"
            panel.text(column, row, f"{mean[row, column]:.2f}", ha="center", va="center", color=color, fontsize=7)
        names = expert_names(sizes[layer], weights.shape[1])
        panel.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
        panel.set_yticks(range(len(labels)), labels, fontsize=8)
        panel.set_title(f"layer {layer}", fontsize=9)
        panel.tick_params(length=0)
    figure.colorbar(image, ax=axes[0, -1], label="mean weight")
    return figure


def plot_step(
    entry: dict, frame: np.ndarray, mission: str | None, num_steps: int, expert_hidden_sizes: Sizes = None
) -> Figure:
    """Return one step of an episode: the environment's frame, the routing weights and what the agent did."""
    layers = list(entry["layer_routing"].values())
    figure = Figure((9, 3.9), layout="constrained")
    grid = figure.add_gridspec(len(layers), 2, width_ratios=[1.15, 1])
    picture = figure.add_subplot(grid[:, 0])
    picture.imshow(frame)
    picture.set_axis_off()
    action = ACTION_NAMES[entry["action"]] if 0 <= entry["action"] < len(ACTION_NAMES) else "unknown"
    picture.set_title(f"step {entry['timestep']} of {num_steps}: {action}", fontsize=10)
    for layer, weights in enumerate(layers):
        panel = plain(figure.add_subplot(grid[layer, 1]))
        names = expert_names(expert_hidden_sizes and expert_hidden_sizes[layer], len(weights))
        bars = panel.barh(names, weights, color=EXPERT_COLORS[: len(weights)])
        panel.bar_label(bars, [f"{weight:.2f}" for weight in weights], fontsize=8, padding=2)
        panel.set(xlim=(0, 1.12), xticks=[0, 0.5, 1] if layer == len(layers) - 1 else [])
        panel.invert_yaxis()
        panel.set_title(f"layer {layer}", fontsize=9)
    panel.set_xlabel(f"routing weight (LPC of this step: {entry['lpc']:.0f})")
    carrying = ", carrying something" if entry["carrying"] else ""
    figure.suptitle(fill(f"{mission or 'unknown mission'}{carrying}", 90), fontsize=10)
    return figure
