"""Which expert dominates in which cell, and what that costs."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from plotting.data import (
    Entries,
    Filter,
    GridInfo,
    aggregate_routing_by_position,
    compute_grid_info,
    group_labels,
    group_routing_data,
    select,
    visited_cells,
)
from plotting.style import (
    EXPERT_CMAPS,
    UNVISITED_COLOR,
    WALL_COLOR,
    Sizes,
    common_names,
    layer_sizes,
    layer_title,
    new_figure,
    require_steps,
)
from results.routing_data import RoutingData

_SCALES_HEIGHT = 2.7  # inches, of what tells the colors' meaning


def _background(grid_info: GridInfo) -> np.ndarray:
    """Return an RGBA picture [height, width, 4] of never-visited cells and walls."""
    canvas = np.tile(to_rgba(UNVISITED_COLOR), (grid_info.height, grid_info.width, 1))
    walls = grid_info.walls - [grid_info.min_x, grid_info.min_y]
    canvas[walls[:, 1], walls[:, 0]] = to_rgba(WALL_COLOR)
    return canvas


def _show_cells(ax: Axes, canvas: np.ndarray, grid_info: GridInfo) -> None:
    left, top = grid_info.min_x - 0.5, grid_info.min_y - 0.5
    ax.imshow(canvas, extent=(left, left + grid_info.width, top + grid_info.height, top), interpolation="nearest")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.tick_params(labelsize=7, length=2)


def render_routing_heatmap(
    ax: Axes, avg_routing_by_pos: Mapping, grid_info: GridInfo, layer_name: str, title: str | None = None
) -> None:
    """Draw one layer: each cell has the hue of its dominant expert, the more intense the larger that one's weight.

    Intensities go from 0 to 1 in every panel, so panels can be compared.
    """
    canvas = _background(grid_info)
    if avg_routing_by_pos:
        x, y = np.array(list(avg_routing_by_pos)).T
        weights = np.array([layers[layer_name] for layers in avg_routing_by_pos.values()])
        dominant = weights.argmax(1)
        for expert in np.unique(dominant):
            here = dominant == expert
            canvas[y[here] - grid_info.min_y, x[here] - grid_info.min_x] = EXPERT_CMAPS[expert](weights[here, expert])
    _show_cells(ax, canvas, grid_info)
    ax.set_title(layer_name.replace("_", " ") if title is None else title, fontsize=9)


def render_lpc_heatmap(
    ax: Axes, avg_lpc_by_pos: Mapping, grid_info: GridInfo, vmax: float | None = None, title: str = "LPC"
) -> ScalarMappable:
    """Draw the mean LPC (or another number >= 0) of each cell in viridis; return what a colorbar needs.

    `vmax` is the upper end of the scale, the largest value drawn when None: give it where panels are compared.
    """
    values = np.fromiter(avg_lpc_by_pos.values(), float, len(avg_lpc_by_pos))
    finite = np.isfinite(values)
    vmax = vmax or max(values[finite].max(initial=0), 1e-9)
    scale = ScalarMappable(Normalize(0, vmax), "viridis")
    canvas = _background(grid_info)
    if finite.any():
        x, y = np.array(list(avg_lpc_by_pos)).T
        canvas[y[finite] - grid_info.min_y, x[finite] - grid_info.min_x] = scale.to_rgba(values[finite])
    _show_cells(ax, canvas, grid_info)
    ax.set_title(title, fontsize=9)
    return scale


class HeatmapRow(NamedTuple):
    """One row of heatmaps: its label, its steps, and what to show beside them."""

    label: str
    data: RoutingData
    grid_info: GridInfo
    image: np.ndarray | None = None
    mission: str | None = None


def _plot_heatmap_rows(rows: Sequence[HeatmapRow], sizes: Sizes, title: str) -> Figure:
    """Return heatmaps, row by row: environment image (where there is one), layers, LPC. Rows share their scales."""
    layers = len(rows[0].data.weights)
    names = common_names(rows[0].data, sizes)
    has_image = any(row.image is not None for row in rows)
    columns = has_image + layers + 1
    cell = float(np.clip(9.6 / columns, 1.4, 2.9))  # inches; 12 in all, as wide as a page
    aspect = max(row.grid_info.height / row.grid_info.width for row in rows)
    height = max(len(rows) * (cell * min(aspect, 1.3) + 0.2) + 0.6, _SCALES_HEIGHT)
    figure = Figure((columns * cell + 2.2, height), layout="constrained")
    maps, side = figure.subfigures(1, 2, width_ratios=[columns * cell, 2.2])
    axes = maps.subplots(len(rows), columns, squeeze=False)
    averages = [aggregate_routing_by_position(row.data) for row in rows]
    values = np.array([value for _, lpc in averages for value in lpc.values()])
    vmax = max(values[np.isfinite(values)].max(initial=0), 1e-9)
    for place, (row, (routing, lpc)) in enumerate(zip(rows, averages, strict=True)):
        panels = list(axes[place])
        if has_image:
            panel = panels.pop(0)
            panel.set_axis_off()
            if row.image is not None:
                panel.imshow(row.image)
                panel.set_title(fill(row.mission or "", int(cell * 13)), fontsize=8)
        for layer, panel in enumerate(panels[:-1]):
            panel_title = layer_title(layer, row.data, sizes) if place == 0 else ""
            render_routing_heatmap(panel, routing, row.grid_info, f"layer_{layer}", panel_title)
        scale = render_lpc_heatmap(panels[-1], lpc, row.grid_info, vmax, "LPC" if place == 0 else "")
        panels[0].set_ylabel((f"{row.label}\n" if row.label else "") + "y (cell)", fontsize=8)
        for panel in panels:
            panel.set_xlabel("x (cell)" if place == len(rows) - 1 else "", fontsize=8)
    maps.suptitle(title, fontsize=11)
    _draw_scales(side, names, scale, _SCALES_HEIGHT / height)
    return figure


def _draw_scales(side: SubFigure, names: Sequence[str], scale: ScalarMappable, height: float) -> None:
    """Draw what the heatmaps' colors mean beside them, into the upper part of that relative height."""
    experts = side.add_axes((0.08, 1 - 0.5 * height, 0.4, 0.34 * height))
    ramp = np.linspace(0, 1, 64)
    experts.imshow(
        np.stack([EXPERT_CMAPS[expert](ramp) for expert in range(len(names))]),
        extent=(0, 1, len(names) - 0.5, -0.5),
        aspect="auto",
        interpolation="nearest",
    )
    experts.set_yticks(range(len(names)), names)
    experts.yaxis.tick_right()
    experts.set_xticks([0, 1])
    experts.tick_params(labelsize=8, length=0)
    experts.set_title("dominant expert's\nmean weight", fontsize=8)
    for expert in range(1, len(names)):
        experts.axhline(expert - 0.5, color="white", linewidth=2)
    bar = side.colorbar(scale, cax=side.add_axes((0.08, 1 - 0.93 * height, 0.1, 0.27 * height)))
    bar.ax.set_title("mean LPC", fontsize=8, loc="left")
    bar.ax.tick_params(labelsize=8)
    cells = [Patch(color=WALL_COLOR, label="wall"), Patch(color=UNVISITED_COLOR, label="never visited")]
    side.legend(handles=cells, loc="upper left", bbox_to_anchor=(0.42, 1 - 0.66 * height), fontsize=8, frameon=False)


def plot_overall_routing(
    routing_data: Entries,
    env_image: np.ndarray | None = None,
    env_mission: str | None = None,
    filter_fn: Filter = None,
    title_suffix: str = "",
    expert_hidden_sizes: Sizes = None,
) -> Figure:
    """Return the environment's picture, one heatmap per layer and the LPC per cell, over all steps chosen."""
    data = RoutingData.from_entries(routing_data)
    row = HeatmapRow("", select(data, filter_fn), compute_grid_info(data), env_image, env_mission)
    title = f"Routing over {len(row.data):,} steps of {len(np.unique(row.data.episode)):,} episodes{title_suffix}"
    return _plot_heatmap_rows([row], expert_hidden_sizes, title)


def plot_grouped_routing(
    routing_data: Entries,
    group_by: str,
    env_images: Mapping | None = None,
    env_missions: Mapping | None = None,
    title_suffix: str = "",
    expert_hidden_sizes: Sizes = None,
) -> Figure:
    """Return the heatmaps of each group of a grouping, one row per group, on shared scales.

    Args:
        env_images, env_missions: pictures and missions by group key, or for `by_starting_room` by its label.
    """
    data = RoutingData.from_entries(routing_data)
    grid_info, labels = compute_grid_info(data), group_labels(data, group_by)
    images, missions = env_images or {}, env_missions or {}
    rows = [
        HeatmapRow(
            f"{labels[key]}\n({len(np.unique(group.episode)):,} episodes)",
            group,
            grid_info,
            images.get(key, images.get(labels[key])),
            missions.get(key, missions.get(labels[key])),
        )
        for key, group in group_routing_data(data, group_by).items()
    ]
    if not rows:
        raise ValueError(f"the episodes do not tell what {group_by} needs")
    title = f"Routing {group_by.replace('_', ' ')}{title_suffix}"
    return _plot_heatmap_rows(rows, expert_hidden_sizes, title)


def plot_side_by_side(
    routing_by_name: Mapping[str, Entries],
    env_images: Mapping[str, np.ndarray] | None = None,
    expert_hidden_sizes: Sizes = None,
) -> Figure:
    """Return the heatmaps of several checkpoints, one row each, on shared scales. All must have the same layers."""
    loaded = {name: RoutingData.from_entries(entries) for name, entries in routing_by_name.items()}
    shapes = {tuple(layer.shape[1] for layer in data.weights) for data in loaded.values()}
    if len(shapes) != 1:
        raise ValueError(f"checkpoints with different numbers of experts per layer: {sorted(shapes)}")
    rows = [
        HeatmapRow(fill(name, 18), data, compute_grid_info(data), (env_images or {}).get(name))
        for name, data in loaded.items()
    ]
    return _plot_heatmap_rows(rows, expert_hidden_sizes, "Routing of several checkpoints, on the same scales")


def plot_lpc(routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "") -> Figure:
    """Return the LPC per cell: of all layers together, of each layer (where sizes are known), and the visits."""
    data = require_steps(routing_data)
    sizes, grid_info = layer_sizes(data, expert_hidden_sizes), compute_grid_info(data)
    routing, lpc = aggregate_routing_by_position(data)
    panels = [("all layers", lpc)]
    if expert_hidden_sizes is not None:
        for layer, name in enumerate(data.layer_names):
            cost = np.square(sizes[layer])
            panels.append((f"layer {layer}", {cell: float(weights[name] @ cost) for cell, weights in routing.items()}))
    visits = dict(zip(routing, visited_cells(data)[2].tolist(), strict=True))
    count = len(panels) + 1
    columns = count if count <= 4 else min(-(-count // 2), 4)
    height = 2.7 * min(grid_info.height / grid_info.width, 1.3) + 0.5
    figure, axes = new_figure(-(-count // columns), columns, 3.4, height, f"LPC per cell{title_suffix}")
    for panel, (name, values) in zip(axes.flat, panels, strict=False):
        top = None if name == "all layers" else max(max(values.values()) for _, values in panels[1:])
        scale = render_lpc_heatmap(panel, values, grid_info, top, name)
        figure.colorbar(scale, ax=panel, label="mean LPC", shrink=0.8)
    panel = axes.flat[len(panels)]
    scale = render_lpc_heatmap(
        panel, {cell: np.log10(count) for cell, count in visits.items()}, grid_info, None, "visits"
    )
    figure.colorbar(scale, ax=panel, label="steps, as a power of 10", shrink=0.8)
    for unused in axes.flat[count:]:
        unused.set_axis_off()
    for panel in axes.flat[:count]:
        panel.set_xlabel("x (cell)", fontsize=8)
        panel.set_ylabel("y (cell)", fontsize=8)
    figure.legend(
        handles=[Patch(color=WALL_COLOR, label="wall"), Patch(color=UNVISITED_COLOR, label="never visited")],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    return figure
