"""Which expert dominates in which cell, and what that costs."""

from collections.abc import Mapping, Sequence
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
    NothingToShow,
    aggregate_routing_by_position,
    compute_grid_info,
    group_labels,
    group_routing_data,
    select,
    visited_cells,
)
from plotting.style import (
    UNVISITED_COLOR,
    WALL_COLOR,
    Sizes,
    common_names,
    current_page,
    expert_cmap,
    keep_numbers,
    large,
    layer_sizes,
    layer_title,
    new_figure,
    panels_in_a_row,
    require_steps,
    small,
    wrapped,
)
from results.routing_data import RoutingData

_SCALES_HEIGHT = 2.3  # inches, of what tells the colors' meaning


def _background(grid_info: GridInfo) -> np.ndarray:
    """Return an RGBA picture [height, width, 4] of never-visited cells and walls."""
    canvas = np.tile(to_rgba(UNVISITED_COLOR), (grid_info.grid_height, grid_info.grid_width, 1))
    walls = grid_info.walls - np.array([grid_info.x_min, grid_info.y_min])
    canvas[walls[:, 1], walls[:, 0]] = to_rgba(WALL_COLOR)
    return canvas


def _show_cells(ax: Axes, canvas: np.ndarray, grid_info: GridInfo) -> None:
    left, top = grid_info.x_min - 0.5, grid_info.y_min - 0.5
    ax.imshow(
        canvas, extent=(left, left + grid_info.grid_width, top + grid_info.grid_height, top), interpolation="nearest"
    )
    ticks = 5 if (current_page().width or 10) > 5 else 2
    ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    ax.tick_params(labelsize=small(), length=2)


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
            canvas[y[here] - grid_info.y_min, x[here] - grid_info.x_min] = expert_cmap(expert)(weights[here, expert])
    _show_cells(ax, canvas, grid_info)
    ax.set_title(layer_name.replace("_", " ") if title is None else title, fontsize=small())


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
        canvas[y[finite] - grid_info.y_min, x[finite] - grid_info.x_min] = scale.to_rgba(values[finite])
    _show_cells(ax, canvas, grid_info)
    ax.set_title(title, fontsize=small())
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
    page = current_page()
    is_narrow = page.width is not None and page.width < 5
    side_width = 0.0 if is_narrow else 1.7
    cell = float(np.clip(9.6 / columns, 1.4, 2.9)) if page.width is None else (page.width - side_width) / columns
    width = columns * cell + side_width
    aspect = max(row.grid_info.grid_height / row.grid_info.grid_width for row in rows)
    header = 0.35 + 0.18 * title.count("\n")
    has_labels = any(row.label for row in rows)
    label_height = 0.013 * small() * max((len(line) for row in rows for line in row.label.split("\n")), default=0) / 1.4
    row_height = max(max(cell - 0.15, 0.3) * min(aspect, 1.3) + 0.25, label_height * has_labels)
    height = len(rows) * row_height + 0.45 + header
    scales_height = _SCALES_HEIGHT + 0.19 * max(0, len(names) - 4)
    if is_narrow:
        figure = Figure((width, height + scales_height), layout="constrained")
        (maps,), (side,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[height, scales_height])
        side_width, side_height = width, scales_height
    else:
        height = max(height, scales_height)
        figure = Figure((width, height), layout="constrained")
        ((maps, side),) = figure.subfigures(1, 2, squeeze=False, width_ratios=[columns * cell, side_width])
        side_height = height
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
                panel.set_title(wrapped(row.mission or "", 0.85 * cell, small()), fontsize=small())
        for layer, panel in enumerate(panels[:-1]):
            panel_title = layer_title(layer, row.data, sizes) if place == 0 else ""
            render_routing_heatmap(panel, routing, row.grid_info, f"layer_{layer}", wrapped(panel_title, cell, small()))
        scale = render_lpc_heatmap(panels[-1], lpc, row.grid_info, vmax, "LPC" if place == 0 else "")
        panels[0].set_ylabel((f"{row.label}\n" if row.label else "") + "y (cell)", fontsize=small())
        for number, panel in enumerate(panels):
            panel.set_xlabel("x (cell)" if place == len(rows) - 1 else "", fontsize=small())
            panel.tick_params(labelbottom=place == len(rows) - 1, labelleft=number == 0)
    maps.suptitle(wrapped(title, columns * cell), fontsize=large())
    _draw_scales(side, names, scale, side_width, side_height, scales_height)
    numbers = [
        {"row": row.label.replace("\n", " "), "x": x, "y": y, "visits": visits}
        | {
            f"layer_{layer}_expert_{expert}": weight
            for layer, name in enumerate(row.data.layer_names)
            for expert, weight in enumerate(routing[x, y][name].tolist())
        }
        | {"lpc": lpc[x, y]}
        for row, (routing, lpc) in zip(rows, averages, strict=True)
        for (x, y), visits in zip(routing, visited_cells(row.data)[2].tolist(), strict=True)
    ]
    return keep_numbers(figure, numbers)


def _draw_scales(
    side: SubFigure, names: Sequence[str], scale: ScalarMappable, width: float, height: float, used: float
) -> None:
    """Draw what the heatmaps' colors mean into the upper `used` of a part of the figure; all lengths in inches."""

    def box(left: float, top: float, wide: float, high: float) -> tuple[float, float, float, float]:
        return left / width, 1 - (top + high) / height, wide / width, high / height

    ramp_height = used - 1.55
    experts = side.add_axes(box(0.15, 0.45, 0.5, ramp_height))
    ramp = np.linspace(0, 1, 64)
    experts.imshow(
        np.stack([expert_cmap(expert)(ramp) for expert in range(len(names))]),
        extent=(0, 1, len(names) - 0.5, -0.5),
        aspect="auto",
        interpolation="nearest",
    )
    experts.set_yticks(range(len(names)), names)
    experts.yaxis.tick_right()
    experts.set_xticks([0, 1])
    experts.tick_params(labelsize=small(), length=0)
    experts.set_title("dominant expert's\nmean weight", fontsize=small(), loc="left")
    for expert in range(1, len(names)):
        experts.axhline(expert - 0.5, color="white", linewidth=2)
    bar = side.colorbar(scale, cax=side.add_axes(box(0.15, used - 0.75, 0.12, 0.65)))
    bar.ax.set_title("mean LPC", fontsize=small(), loc="left", pad=4)
    bar.ax.tick_params(labelsize=small())
    bar.ax.yaxis.set_major_locator(MaxNLocator(3))
    cells = [Patch(color=WALL_COLOR, label="wall"), Patch(color=UNVISITED_COLOR, label="not visited")]
    place = (0.68 / width, 1 - (used - 0.8) / height)
    side.legend(handles=cells, loc="upper left", bbox_to_anchor=place, fontsize=small(), frameon=False, handlelength=1)


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
        raise NothingToShow(f"the episodes do not tell what {group_by} needs")
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
        raise NothingToShow(f"checkpoints with different numbers of experts per layer: {sorted(shapes)}")
    rows = [
        HeatmapRow(wrapped(name, 1.3, small()), data, compute_grid_info(data), (env_images or {}).get(name))
        for name, data in loaded.items()
    ]
    return _plot_heatmap_rows(rows, expert_hidden_sizes, "Routing of several checkpoints, on the same scales")


def _colorbar(figure: Figure, scale: ScalarMappable, panel: Axes, label: str) -> None:
    bar = figure.colorbar(scale, ax=panel, shrink=0.8)
    bar.set_label(label, fontsize=small())
    bar.ax.tick_params(labelsize=small())


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
    columns = panels_in_a_row(count if count <= 4 else min(-(-count // 2), 4), 1.5)
    height = 2.7 * min(grid_info.grid_height / grid_info.grid_width, 1.3) + 0.5
    figure, axes = new_figure(-(-count // columns), columns, 3.4, height, f"LPC per cell{title_suffix}")
    for panel, (name, values) in zip(axes.flat, panels, strict=False):
        top = None if name == "all layers" else max(max(values.values()) for _, values in panels[1:])
        scale = render_lpc_heatmap(panel, values, grid_info, top, name)
        _colorbar(figure, scale, panel, "mean LPC")
    panel = axes.flat[len(panels)]
    scale = render_lpc_heatmap(
        panel, {cell: np.log10(count) for cell, count in visits.items()}, grid_info, None, "visits"
    )
    _colorbar(figure, scale, panel, "steps, as a power of 10")
    for unused in axes.flat[count:]:
        unused.set_axis_off()
    for panel in axes.flat[:count]:
        panel.set_xlabel("x (cell)", fontsize=small())
        panel.set_ylabel("y (cell)", fontsize=small())
    figure.legend(
        handles=[Patch(color=WALL_COLOR, label="wall"), Patch(color=UNVISITED_COLOR, label="never visited")],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=small(),
    )
    numbers = [
        {"x": x, "y": y, "visits": visits[x, y]} | {f"lpc of {name}": cells[x, y] for name, cells in panels}
        for x, y in routing
    ]
    return keep_numbers(figure, numbers)
