"""Routing over time, its distributions, and which expert carries which behaviour."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plotting.data import Entries, NothingToShow, mean_by
from plotting.style import (
    LPC_COLOR,
    SEQUENTIAL,
    Sizes,
    common_names,
    current_page,
    expert_color,
    expert_colors,
    expert_names,
    keep_numbers,
    layer_sizes,
    layer_title,
    legend,
    make_clickable,
    new_figure,
    panels_in_a_row,
    plain,
    readable_on,
    require_steps,
    set_title,
    small,
    wrapped,
)
from plotting.variables import ACTION_NAMES, nearest_object
from results.routing_data import RoutingData

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
        raise NothingToShow(f"episode {episode} has no steps in this data")
    about = data.episodes[episode]
    outcome = {True: ", solved", False: ", not solved", None: ""}[about["success"]]
    title = f"Episode {episode}: {about['mission'] or 'unknown mission'}{outcome}"
    layers = len(data.weights)
    figure, axes = new_figure(layers + 1, 1, 8, 1.5, title, sharex=True)
    for layer, panel in enumerate(axes[:-1, 0]):
        panel.stackplot(
            steps.timestep,
            *steps.weights[layer].T,
            colors=expert_colors(steps.weights[layer].shape[1]),
            step="mid",
            linewidth=0,
        )
        panel.set(ylim=(0, 1), ylabel="weight")
        panel.set_title(layer_title(layer, data, expert_hidden_sizes), fontsize=small())
    panel = plain(axes[-1, 0])
    panel.plot(steps.timestep, steps.lpc, color=LPC_COLOR, drawstyle="steps-mid", linewidth=1)
    panel.fill_between(
        steps.timestep, 0, 1, steps.carrying > 0, transform=panel.get_xaxis_transform(), color="#dddddd", step="mid"
    )
    panel.set(xlabel="timestep", ylabel="LPC", ylim=(0, None))
    panel.margins(x=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title("LPC (grey: something is carried)", fontsize=small())
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
            colors = expert_colors(values.shape[1]) if row < len(data.weights) else [LPC_COLOR]
            mean = mean_by(time, values, len(counts))
            error = np.sqrt(
                np.maximum(mean_by(time, np.square(values), len(counts)) - mean**2, 0) / np.maximum(counts, 1)[:, None]
            )
            _draw_means(panel, shown, mean[shown], error[shown], colors)
            if column == 0:
                panel.set_ylabel("weight" if row < len(data.weights) else "LPC")
            name = layer_title(row, data, expert_hidden_sizes) if row < len(data.weights) else "LPC"
            panel.set_title(name, fontsize=small())
            if row < len(data.weights):
                panel.set_ylim(_WEIGHT_LIMITS)
        axes[-1, column].set_xlabel(label)
    axes[-1, 0].set_ylim(bottom=0)  # after both columns are drawn: it fixes the top, too, which they share
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


WEIGHT_EDGES = np.linspace(0, 1, 26)  # of histograms of routing weights


def plot_weight_histograms(routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "") -> Figure:
    """Return the histograms of every expert's routing weight, a row per layer and a column per expert."""
    data = require_steps(routing_data)
    sizes = layer_sizes(data, expert_hidden_sizes)
    columns = max(layer.shape[1] for layer in data.weights)
    title = f"How often an expert has which weight{title_suffix}"
    width = float(np.clip(11 / columns, 1.1, 2.6))
    figure, axes = new_figure(len(data.weights), columns, width, 1.45, title, sharex=True, sharey="row")
    numbers = []
    for layer, weights in enumerate(data.weights):
        names = expert_names(sizes[layer], weights.shape[1])
        for expert, panel in enumerate(axes[layer]):
            if expert >= weights.shape[1]:
                panel.set_axis_off()
                continue
            share = np.histogram(weights[:, expert].clip(0, 1), WEIGHT_EDGES)[0] / len(data)
            plain(panel).stairs(share, WEIGHT_EDGES, color=expert_color(expert), fill=True)
            panel.set_title(wrapped(f"layer {layer}: {names[expert]}", width, small()), fontsize=small())
            panel.set_xlim(0, 1)
            panel.set_xlabel("routing weight" if layer == len(data.weights) - 1 else "")
            make_clickable(figure, panel, f"weight:{layer}:{expert}", WEIGHT_EDGES)
            numbers += [
                {
                    "layer": layer,
                    "expert": names[expert],
                    "weight_from": low,
                    "weight_to": high,
                    "share_of_steps": value,
                }
                for low, high, value in zip(WEIGHT_EDGES, WEIGHT_EDGES[1:], share, strict=False)
            ]
        axes[layer, 0].set_ylabel("share of steps")
    return keep_numbers(figure, numbers)


def routing_entropy(weights: np.ndarray) -> np.ndarray:
    """Return the entropy in bits [T] of routing weights [T, experts]: 0 where one expert has all the weight."""
    return -np.sum(weights * np.log2(np.maximum(weights, 1e-12)), axis=1)


def entropy_edges(data: RoutingData) -> np.ndarray:
    """Return the borders of the bins of the histograms of routing entropy."""
    return np.linspace(0, max(np.log2(max(layer.shape[1] for layer in data.weights)), 1e-3), 26)


def lpc_edges(data: RoutingData) -> np.ndarray:
    """Return the borders of the bins of the histogram of the LPC."""
    return np.linspace(0, max(float(data.lpc[np.isfinite(data.lpc)].max(initial=0)), 1e-9), 31)


def plot_routing_entropy(routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "") -> Figure:
    """Return the distribution of each layer's routing entropy, and of the LPC.

    The entropy is -sum w log2 w of a step's weights: 0 where one expert has all the weight, log2 of the number of
    experts (dotted) where all weigh alike.
    """
    data = require_steps(routing_data)
    sizes = layer_sizes(data, expert_hidden_sizes)
    count = len(data.weights) + 1
    columns = panels_in_a_row(min(count, 4), 1.5)
    title = f"How undecided routers are, and what it costs{title_suffix}"
    figure, axes = new_figure(-(-count // columns), columns, 2.7, 2.1, title)
    edges, numbers = entropy_edges(data), []
    for layer, weights in enumerate(data.weights):
        panel = plain(axes.flat[layer])
        values = routing_entropy(weights).clip(0, edges[-1])
        share = np.histogram(values, edges)[0] / len(data)
        panel.stairs(share, edges, color="#777777", fill=True)
        panel.axvline(np.log2(weights.shape[1]), color="grey", linestyle=":")
        panel.axvline(values.mean(), color="black", linestyle="--", linewidth=1)
        panel.set_title(f"layer {layer}: mean {values.mean():.2f} bits", fontsize=small())
        panel.set(xlabel="routing entropy (bits)", ylabel="share of steps" if layer % columns == 0 else "")
        make_clickable(figure, panel, f"entropy:{layer}", edges)
        numbers += [
            {"what": f"entropy of layer {layer} (bits)", "from": low, "to": high, "share_of_steps": value}
            for low, high, value in zip(edges, edges[1:], share, strict=False)
        ]
    panel = plain(axes.flat[count - 1])
    values = data.lpc[np.isfinite(data.lpc)]
    if len(values):
        edges = lpc_edges(data)
        share = np.histogram(values, edges)[0] / len(values)
        panel.stairs(share, edges, color=LPC_COLOR, fill=True)
        panel.axvline(values.mean(), color="#D41540", linestyle="--", linewidth=1)
        panel.set_title(f"LPC: mean {values.mean():.0f}", fontsize=small())
        make_clickable(figure, panel, "lpc", edges)
        numbers += [
            {"what": "LPC", "from": low, "to": high, "share_of_steps": value}
            for low, high, value in zip(edges, edges[1:], share, strict=False)
        ]
    known = all(layer is not None for layer in sizes)
    most_lpc = f" (at most {sum(max(layer) ** 2 for layer in sizes)})" if known else ""
    panel.set_xlabel(wrapped(f"LPC of a step{most_lpc}", figure.get_figwidth() / columns, small()))
    for unused in axes.flat[count:]:
        unused.set_axis_off()
    return keep_numbers(figure, numbers)


def object_distances(routing_data: Entries, kind: str) -> np.ndarray:
    """Return each step's distance [T] in cells (Manhattan) to where the nearest object of a kind was at the start.

    Args:
        kind: a key of `env_context` such as `doors`, `keys` or `goals`. NaN where an episode has none.
    """
    data = RoutingData.from_entries(routing_data)
    offset, known = nearest_object(data, kind)
    return np.where(known, np.abs(offset).sum(1), np.nan)


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
        raise NothingToShow("these levels have neither doors nor keys nor goals")
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
            _draw_means(panel, shown, mean[shown], error[shown], expert_colors(weights.shape[1]), marker=".")
            panel.set_ylim(_WEIGHT_LIMITS)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            panel.set_title(layer_title(layer, data, expert_hidden_sizes), fontsize=small())
            if column == 0:
                panel.set_ylabel("weight")
        thing = "the mission's goal" if kind == "goals" else kind.removesuffix("s")
        label = f"cells to the nearest {thing}" if kind != "goals" else f"cells to {thing}"
        axes[-1, column].set_xlabel(wrapped(label, figure.get_figwidth() / len(distances) - 0.2, small()))
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
    columns = sum(layer.shape[1] for layer in data.weights)
    beside = 0.075 * small() / 7 * max(map(len, labels)) + 0.2  # inches, of the labels
    width = current_page().width or 0.48 * columns + beside + 1.2
    is_tight = (width - beside - 0.7) / columns < 0.36
    figure = Figure((width, 0.27 * len(masks) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(data.weights), width_ratios=[layer.shape[1] for layer in data.weights], squeeze=False)
    set_title(figure, title)
    numbers = []
    for layer, (weights, panel) in enumerate(zip(data.weights, axes[0], strict=True)):
        mean = selected @ weights / counts[:, None]
        image = panel.imshow(mean, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
        names = expert_names(sizes[layer], weights.shape[1])
        for row, column in np.ndindex(mean.shape):
            text = f"{100 * mean[row, column]:.0f}" if is_tight else f"{mean[row, column]:.2f}"
            color = readable_on(image.cmap(mean[row, column]))
            panel.text(column, row, text, ha="center", va="center", color=color, fontsize=small())
        panel.set_xticks(
            range(len(names)), names, rotation=90 if is_tight else 45, ha="center" if is_tight else "right"
        )
        panel.set_yticks(range(len(labels)), labels if layer == 0 else [""] * len(labels))
        panel.set_title(f"layer {layer}", fontsize=small())
        panel.tick_params(length=0, labelsize=small())
        numbers += [
            {
                "behaviour": name,
                "share_of_steps": count / len(data),
                "layer": layer,
                "expert": expert,
                "mean_weight": value,
            }
            for name, count, means in zip(masks, counts, mean.tolist(), strict=True)
            for expert, value in zip(names, means, strict=True)
        ]
    if not is_tight:
        bar = figure.colorbar(image, ax=axes[0, -1])
        bar.set_label("mean weight", fontsize=small())
        bar.ax.tick_params(labelsize=small())
    return keep_numbers(figure, numbers)
