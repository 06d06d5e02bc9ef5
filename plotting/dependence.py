"""What routing depends on: how much of it each variable explains, and its means given that variable."""

from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, TwoSlopeNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from plotting.data import Entries, GridInfo, NothingToShow, compute_grid_bounds, compute_grid_info
from plotting.steps import WEIGHT_EDGES, entropy_edges, lpc_edges, routing_entropy
from plotting.style import (
    DIVERGING,
    LPC_COLOR,
    SEQUENTIAL,
    UNVISITED_COLOR,
    WALL_COLOR,
    Sizes,
    common_names,
    current_page,
    expert_color,
    expert_names,
    keep_numbers,
    large,
    layer_sizes,
    legend,
    make_clickable,
    new_figure,
    panels_in_a_row,
    plain,
    readable_on,
    require_steps,
    small,
    wrapped,
)
from plotting.variables import Variable, step_variables
from results.routing_data import RoutingData
from results.statistics import explained_share, means_over_episodes, steps_of_equal_episodes

FEW_EPISODES = 5  # cells that fewer episodes visited are faded
_FADED = 0.3


class Measure(NamedTuple):
    """A number of each step: the LPC, or an expert's routing weight."""

    name: str  # LPC, or `layer 0: GRU 16`
    values: np.ndarray  # [T]
    layer: int = -1  # of an expert's weight
    expert: int = -1


def measures(data: RoutingData, sizes: Sizes) -> list[Measure]:
    """Return the LPC (where the data tells it) and every expert's weight."""
    found = [Measure("LPC", data.lpc)] if np.isfinite(data.lpc).all() else []
    for layer, (weights, layer_of) in enumerate(zip(data.weights, layer_sizes(data, sizes), strict=True)):
        for expert, name in enumerate(expert_names(layer_of, weights.shape[1])):
            found.append(Measure(f"layer {layer}: {name}", weights[:, expert], layer, expert))
    return found


def routing_dependence(
    routing_data: Entries, expert_hidden_sizes: Sizes = None
) -> tuple[list[str], list[Measure], np.ndarray]:
    """Return the variables' names, the measures, and the share [variables, measures] of each one's variance that each
    variable explains, adjusted for its number of groups (`statistics.explained_share`), all episodes weighing alike.

    Steps at which a variable is not known are left out of its row. Variables are in the order of what they explain of
    the LPC (of all measures together where there is none), most first.
    """
    data = require_steps(routing_data)
    found = measures(data, expert_hidden_sizes)
    values = np.column_stack([measure.values for measure in found])
    variables = step_variables(data)
    if not variables:
        raise NothingToShow("these steps do not differ in anything that routing could depend on")
    shares = np.full((len(variables), len(found)), np.nan)
    for row, variable in enumerate(variables.values()):
        known = variable.codes >= 0
        weights = steps_of_equal_episodes(data.episode[known])
        shares[row] = explained_share(variable.codes[known], values[known], weights)
    first = shares[:, 0] if found[0].layer < 0 and np.isfinite(shares[:, 0]).any() else np.nan_to_num(shares).mean(1)
    order = np.argsort(-np.nan_to_num(first, nan=-1), kind="stable")
    return [list(variables)[place] for place in order], found, shares[order]


def plot_dependence(
    routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "", chosen: str | None = None
) -> Figure:
    """Return how much of the variance of the LPC (bars) and of every expert's weight (table) each variable explains.

    The share is adjusted for the number of groups, so that chance alone explains nothing (`routing_dependence`).

    Args:
        chosen: a variable to mark.
    """
    data = require_steps(routing_data)
    names, found, shares = routing_dependence(data, expert_hidden_sizes)
    has_lpc = found[0].layer < 0
    bars = shares[:, 0] if has_lpc else np.nanmean(shares, 1)
    experts = [measure for measure in found if measure.layer >= 0]
    table = shares[:, has_lpc:]
    label_width = 0.52 * small() / 72 * max(map(len, names)) + 0.12  # inches; like all lengths here
    width = current_page().width or min(label_width + 3.2 + 0.42 * len(experts), 12)
    is_narrow = width < 5
    row_height, head = (0.25, 0.62) if is_narrow else (0.3, 0.82)
    title = wrapped(f"What does routing depend on?{title_suffix}", width)
    head += 0.17 * title.count("\n") - 0.17
    tall = row_height * len(names)
    names_below = 0.62 if is_narrow else 0.75  # the experts' names, and what the table shows
    height = head + tall + (0.75 + tall + names_below if is_narrow else names_below)
    figure = Figure((width, height))

    def box(left: float, top: float, wide: float, high: float) -> tuple[float, float, float, float]:
        return left / width, 1 - (top + high) / height, wide / width, high / height

    if is_narrow:
        table_width = width - label_width - 0.08
        bar_panel = figure.add_axes(box(label_width, head, table_width, tall))
        table_panel = figure.add_axes(box(label_width, head + tall + 0.75, table_width, tall))
    else:
        free = width - label_width - 0.25
        table_width = float(np.clip(0.42 * len(experts), 0.3 * free, 0.72 * free))
        bar_panel = figure.add_axes(box(label_width, head, free - table_width, tall))
        table_panel = figure.add_axes(box(width - 0.08 - table_width, head, table_width, tall))
    figure.text(0.5, 1 - 0.07 / height, title, ha="center", va="top", fontsize=large())
    places = np.arange(len(names))
    colors = ["#C44E00" if name == chosen else "#6f6f6f" for name in names]
    shown = np.nan_to_num(bars).clip(0)
    bar_panel.barh(places, shown, color=colors, height=0.72)
    for place, share in zip(places, bars, strict=True):
        label = "–" if np.isnan(share) else f"{round(100 * float(share))} %"  # no -0
        bar_panel.text(max(0.0, np.nan_to_num(float(share))) + 0.01, float(place), label, va="center", fontsize=small())
    top = max(0.1, min(1.0, float(shown.max()) * 1.18 + 0.03))
    bar_panel.set(xlim=(0, top), ylim=(len(names) - 0.5, -0.5), yticks=places)
    bar_panel.set_yticklabels(names, fontsize=small())
    bar_panel.xaxis.set_major_locator(MaxNLocator(4))
    bar_panel.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    bar_panel.tick_params(axis="x", labelsize=small())
    bar_panel.tick_params(axis="y", length=0)
    of_what = "LPC" if has_lpc else "weights (mean)"
    bar_panel.set_title(f"explained variance of the {of_what}", fontsize=small())
    plain(bar_panel)
    rows_between = np.arange(len(names) + 1) - 0.5
    make_clickable(figure, bar_panel, "variable", None, rows_between)
    make_clickable(figure, table_panel, "variable", None, rows_between)

    image = table_panel.imshow(
        np.nan_to_num(table),
        cmap=SEQUENTIAL,
        vmin=0,
        vmax=max(0.1, float(np.nanmax(table, initial=0.1))),
        aspect="auto",
    )
    cell_width = table_width / max(len(experts), 1)
    if cell_width * 72 > 1.8 * small():
        for row, column in np.ndindex(table.shape):
            value = table[row, column]
            label = "–" if np.isnan(value) else f"{round(100 * float(value))}"
            color = readable_on(image.cmap(image.norm(np.nan_to_num(value))))
            table_panel.text(column, row, label, ha="center", va="center", fontsize=small(), color=color)
    labels = [measure.name.split(": ", 1)[1] for measure in experts]
    table_panel.set_xticks(
        range(len(experts)),
        labels,
        rotation=60 if not is_narrow else 90,
        ha="right" if not is_narrow else "center",
        rotation_mode="anchor" if not is_narrow else None,
        fontsize=small(),
    )
    table_panel.set_yticks(places, names if is_narrow else [""] * len(names), fontsize=small())
    table_panel.tick_params(length=0)
    layers = [measure.layer for measure in experts]
    for layer in sorted(set(layers)):
        here = [place for place, other in enumerate(layers) if other == layer]
        if layer:
            table_panel.axvline(here[0] - 0.5, color="white", linewidth=3)
        table_panel.text(float(np.mean(here)), -0.62, f"layer {layer}", ha="center", va="bottom", fontsize=small())
    what = "of each expert's weight, %"
    table_panel.set_xlabel(what if is_narrow else f"explained variance {what}", fontsize=small())
    rows = [
        {"variable": name, "measure": measure.name, "explained_share": share}
        for name, of_variable in zip(names, shares, strict=True)
        for measure, share in zip(found, of_variable, strict=True)
    ]
    return keep_numbers(figure, rows)


# ---------------------------------------------------------------------------------------- means given one variable


def plot_conditional_means(
    routing_data: Entries, variable: str, expert_hidden_sizes: Sizes = None, title_suffix: str = ""
) -> Figure:
    """Return the mean weights of all experts and the mean LPC in each group of a variable.

    Each episode's steps in a group are averaged first, then its episodes. Bars and bands are 95 % intervals over
    episodes. Variables that are places in a plane become maps (`plot_relative_maps`).

    Raises:
        NothingToShow: this data does not tell that variable.
    """
    data = require_steps(routing_data)
    variables = step_variables(data)
    if variable not in variables:
        raise NothingToShow(f"this data does not tell {variable!r}; it tells {', '.join(variables)}")
    grouping = variables[variable]
    if grouping.places is not None:
        return plot_relative_maps(data, expert_hidden_sizes, title_suffix, place=variable)
    found = measures(data, expert_hidden_sizes)
    means, halves, counts = means_over_episodes(
        grouping.codes, data.episode, np.column_stack([measure.values for measure in found])
    )
    layers = len(data.weights)
    has_lpc = found[0].layer < 0
    panels = layers + has_lpc
    columns = panels_in_a_row(panels, 1.5)
    title = f"Mean routing given {variable}{title_suffix}"
    height = 2.2 if grouping.ordered else 0.27 * len(grouping.labels) + 0.55
    figure, axes = new_figure(-(-panels // columns), columns, 2.4, height, title, sharey=not grouping.ordered)
    for unused in axes.flat[panels:]:
        unused.set_axis_off()
    for measure, mean, half in zip(found, means.T, halves.T, strict=True):
        panel = axes.flat[measure.layer if measure.layer >= 0 else layers]
        color = LPC_COLOR if measure.layer < 0 else expert_color(measure.expert)
        if grouping.ordered:
            shown = np.flatnonzero(counts >= min(FEW_EPISODES, counts.max(initial=0)))
            panel.plot(shown, mean[shown], color=color, linewidth=1.4)
            band = mean[shown] - half[shown], mean[shown] + half[shown]
            panel.fill_between(shown, *band, color=color, alpha=0.22, linewidth=0)
        else:
            experts = 1 if measure.layer < 0 else data.weights[measure.layer].shape[1]
            beside = (max(measure.expert, 0) - (experts - 1) / 2) * min(0.2, 0.7 / experts)
            places = np.arange(len(counts)) + beside
            panel.errorbar(mean, places, xerr=half, color=color, marker="o", markersize=4, linestyle="", elinewidth=1)
    for place, panel in enumerate(axes.flat[:panels]):
        is_lpc = has_lpc and place == layers
        plain(panel).set_title("LPC" if is_lpc else f"layer {place}", fontsize=small())
        limits = (0, None) if is_lpc else (-0.03, 1.03)
        amount = "LPC" if is_lpc else "mean weight"
        if grouping.ordered:
            panel.set_ylim(limits)
            panel.set_ylabel(amount if place % columns == 0 or is_lpc else "", fontsize=small())
            panel.set_xlabel(variable if place >= panels - columns else "", fontsize=small())
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        else:
            panel.set_xlim(limits)
            panel.set_xlabel(amount, fontsize=small())
            panel.set_yticks(range(len(counts)), _labels_with_counts(grouping, counts), fontsize=small())
            panel.set_ylim(len(counts) - 0.4, -0.6)
            panel.grid(axis="y", color="#e6e6e6", linewidth=6, zorder=0)
            panel.set_axisbelow(True)
            is_tight = is_lpc and (current_page().width or 9) < 5  # numbers of four digits
            panel.xaxis.set_major_locator(MaxNLocator(2 if is_tight else 4))
    legend(figure, common_names(data, expert_hidden_sizes))
    numbers = [
        {
            variable: label, "measure": measure.name, "mean": means[place, column],
            "interval_half_width": halves[place, column], "episodes": counts[place],
        }
        for column, measure in enumerate(found)
        for place, label in enumerate(grouping.labels)
    ]  # fmt: skip
    return keep_numbers(figure, numbers)


def _labels_with_counts(grouping: Variable, counts: np.ndarray) -> list[str]:
    return [f"{label} ({count:,})" for label, count in zip(grouping.labels, counts.tolist(), strict=True)]


# --------------------------------------------------------------------------------------------------------------- maps


def fill_cells(panel: Axes, places: np.ndarray, colors: np.ndarray, grid_info: GridInfo, origin: bool = False) -> None:
    """Draw cells [C, 2] in their RGBA colors [C, 4], walls and all that was never visited."""
    canvas = np.tile(to_rgba(UNVISITED_COLOR), (grid_info.grid_height, grid_info.grid_width, 1))
    walls = grid_info.walls - np.array([grid_info.x_min, grid_info.y_min])
    canvas[walls[:, 1], walls[:, 0]] = to_rgba(WALL_COLOR)
    canvas[places[:, 1] - grid_info.y_min, places[:, 0] - grid_info.x_min] = colors
    left, top = grid_info.x_min - 0.5, grid_info.y_min - 0.5
    extent = (left, left + grid_info.grid_width, top + grid_info.grid_height, top)
    panel.imshow(canvas, extent=extent, interpolation="nearest")
    panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    panel.tick_params(labelsize=small(), length=2)
    if origin:
        panel.plot(0, 0, marker="*", color="black", markersize=5, markeredgecolor="white", markeredgewidth=0.6)


def plot_relative_maps(
    routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "", place: str = "cell"
) -> Figure:
    """Return where each expert is used more or less than on average: a map per layer (row) and expert (column), and
    beside them the LPC and the number of episodes per cell.

    A map shows the expert's mean weight in a cell minus its mean in the whole layer, red for more, blue for less, on
    one scale for all maps. Steps of an episode in a cell are averaged first, then episodes, so that one that is stuck
    counts once. Cells of fewer than 5 episodes are faded, and do not stretch the scale.

    Args:
        place: `cell`, or another variable that is a place in a plane (`variables.VARIABLES`).
    """
    data = require_steps(routing_data)
    variable = step_variables(data).get(place)
    if variable is None or variable.places is None:
        raise NothingToShow(f"this data does not tell the {place}")
    found = measures(data, expert_hidden_sizes)
    values = np.column_stack([measure.values for measure in found])
    means, _, counts = means_over_episodes(variable.codes, data.episode, values)
    known = variable.codes >= 0
    overall = means_over_episodes(np.where(known, 0, -1), data.episode, values)[0][0]
    difference = means - overall
    often = counts >= FEW_EPISODES
    trusted = often if often.any() else counts > 0
    is_weight = np.array([measure.layer >= 0 for measure in found])
    top = max(0.02, float(np.abs(difference[np.ix_(trusted, is_weight)]).max(initial=0)))
    scale = ScalarMappable(TwoSlopeNorm(0, -top, top), DIVERGING)
    grid_info = compute_grid_info(data) if place == "cell" else compute_grid_bounds(variable.places[counts > 0])
    alpha = np.where(often, 1, _FADED)

    def faded(colors: np.ndarray) -> np.ndarray:
        """Mix colors [C, 4] with the background where few episodes were."""
        colors = colors.copy()
        colors[:, :3] = colors[:, :3] * alpha[:, None] + (1 - alpha[:, None]) * 0.93
        return colors

    layers = len(data.weights)
    experts = max(layer.shape[1] for layer in data.weights)
    width = current_page().width or float(np.clip(1.75 * experts + 3.2, 6.75, 12))
    layout = _MapLayout(width, layers, experts, grid_info.grid_height / grid_info.grid_width)
    figure = Figure((width, layout.height))
    episodes = len(np.unique(data.episode[known]))
    title = f"Where each expert is used more or less than on average{title_suffix}"
    figure.text(0.5, 1 - 0.08 / layout.height, wrapped(title, width), ha="center", va="top", fontsize=large())
    origin = place != "cell"
    for column, measure in enumerate(found):
        if measure.layer < 0:
            continue
        panel = figure.add_axes(layout.map(measure.layer, measure.expert))
        make_clickable(figure, panel, "place", *grid_info.edges)
        fill_cells(panel, variable.places, faded(scale.to_rgba(difference[:, column])), grid_info, origin)
        separator = "\n" if layout.is_narrow else " "
        panel.set_title(f"{measure.name.split(': ', 1)[1]}{separator}{overall[column]:.2f}", fontsize=small(), pad=3)
        if measure.expert == 0:
            panel.set_ylabel(f"layer {measure.layer}\n{variable.axes[1]}", fontsize=small())
        else:
            panel.set_yticklabels([])
        if measure.layer == layers - 1:
            panel.set_xlabel(variable.axes[0] if measure.expert == 0 or not origin else "", fontsize=small())
        else:
            panel.set_xticklabels([])
    if found[0].layer < 0:
        cost = ScalarMappable(Normalize(0, max(float(means[trusted, 0].max(initial=0)), 1e-9)), "viridis")
        panel = figure.add_axes(layout.side(0))
        make_clickable(figure, panel, "place", *grid_info.edges)
        fill_cells(panel, variable.places, faded(cost.to_rgba(np.nan_to_num(means[:, 0]))), grid_info, origin)
        panel.set_title(f"LPC {overall[0]:.0f}", fontsize=small(), pad=3)
        panel.tick_params(labelbottom=layout.is_narrow)
        _side_colorbar(figure, cost, layout.bar(0))
    panel = figure.add_axes(layout.side(1))
    visits = ScalarMappable(Normalize(0, max(int(counts.max(initial=1)), 1)), _pale_greys())
    fill_cells(panel, variable.places, visits.to_rgba(counts), grid_info, origin)
    panel.set_title(f"episodes (of {episodes:,})", fontsize=small(), pad=3)
    if layout.side_width * 72 / grid_info.grid_width > 2.4 * small():
        for (x, y), count in zip(variable.places.tolist(), counts.tolist(), strict=True):
            color = readable_on(visits.to_rgba(count))
            panel.text(x, y, str(count), ha="center", va="center", fontsize=small(), color=color)
    else:
        _side_colorbar(figure, visits, layout.bar(1))
    bar = figure.colorbar(scale, cax=figure.add_axes(layout.scale), orientation="horizontal")
    label = wrapped("weight minus the expert's mean, the number after its name", width - 1, small())
    bar.set_label(label, fontsize=small())
    bar.ax.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    bar.ax.tick_params(labelsize=small(), length=2)
    patches = [
        Patch(color=UNVISITED_COLOR, label="never visited"),
        Patch(facecolor="#ecc9c0", label=f"faded: under {FEW_EPISODES} episodes"),
    ]
    if len(grid_info.walls):
        patches.insert(0, Patch(color=WALL_COLOR, label="wall"))
    where = {"loc": "upper left", "bbox_to_anchor": layout.key, "bbox_transform": figure.transFigure}
    figure.legend(handles=patches, fontsize=small(), frameon=False, handlelength=1, borderpad=0, **where)
    numbers = [
        {
            "x": x, "y": y, "measure": measure.name, "mean": means[cell, column],
            "minus_overall_mean": difference[cell, column], "episodes": counts[cell],
        }
        for column, measure in enumerate(found)
        for cell, (x, y) in enumerate(variable.places.tolist())
    ]  # fmt: skip
    return keep_numbers(figure, numbers)


class _MapLayout:
    """Where the panels of `plot_relative_maps` stand, in inches from the top left; methods return what add_axes takes.

    Maps of experts stand in rows (layers) and columns (experts); the LPC and the episodes per cell right of them, or
    below them where the page is narrow.
    """

    def __init__(self, width: float, layers: int, experts: int, aspect: float):
        self.width, self.is_narrow = width, width < 5
        self.left, self.gap = 0.62, 0.1
        self.top = 0.42 if not self.is_narrow else 0.6
        self.head = 0.2 if not self.is_narrow else 0.32  # of a map: its title
        free = width - self.left - 0.12 - (0 if self.is_narrow else 0.85)
        columns = experts + (0 if self.is_narrow else 1)
        self.cell = min(2.4, (free - self.gap * (columns - 1)) / columns)
        aspect = float(np.clip(aspect, 0.3, 1.7))
        self.map_height = self.cell * aspect
        self.layers, self.experts = layers, experts
        self.side_width = min(1.0, (free - 0.9) / 2) if self.is_narrow else self.cell
        self.side_height = self.side_width * aspect
        below_maps = self.top + layers * (self.map_height + self.head) + 0.42
        self.scale_top = below_maps + 0.05
        self.below = self.scale_top + (0.62 if self.is_narrow else 0.5)
        if self.is_narrow:
            self.key_top = self.below + 0.2 + self.side_height + 0.3
            self.height = self.key_top + 0.5
        else:
            self.key_top = self.top + 2 * (self.map_height + self.head) + 0.15
            self.height = max(self.below, self.key_top + 0.5)

    def _axes(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        return left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height

    def map(self, layer: int, expert: int):
        left = self.left + expert * (self.cell + self.gap)
        return self._axes(
            left, self.top + layer * (self.map_height + self.head) + self.head, self.cell, self.map_height
        )

    def _side(self, place: int) -> tuple[float, float]:
        if self.is_narrow:
            return 0.25 + place * (self.side_width + 0.55), self.below + 0.2
        left = self.left + self.experts * (self.cell + self.gap) + 0.22
        return left, self.top + place * (self.map_height + self.head) + self.head

    def side(self, place: int):
        return self._axes(*self._side(place), self.side_width, self.side_height)

    def bar(self, place: int):
        left, top = self._side(place)
        return self._axes(left + self.side_width + 0.07, top, 0.07, self.side_height)

    @property
    def scale(self):
        maps = self.experts * (self.cell + self.gap) - self.gap
        return self._axes(self.left + 0.1 * maps, self.scale_top, 0.8 * maps, 0.09)

    @property
    def key(self) -> tuple[float, float]:
        left = 0.25 if self.is_narrow else self._side(0)[0]
        return left / self.width, 1 - self.key_top / self.height


def _side_colorbar(figure: Figure, mappable: ScalarMappable, place) -> None:
    bar = figure.colorbar(mappable, cax=figure.add_axes(place))
    bar.ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    bar.ax.tick_params(labelsize=small(), length=2, pad=1)


def _pale_greys() -> ListedColormap:
    return ListedColormap(matplotlib.colormaps["Greys"](np.linspace(0, 0.7, 256)))


# ------------------------------------------------------------------------------------- from what was clicked to steps


def steps_clicked(
    routing_data: Entries, clicked: dict, place: str = "", expert_hidden_sizes: Sizes = None
) -> tuple[str, np.ndarray] | None:
    """Return what was clicked in a figure, in words, and which steps [T] it stands for; None where it stands for none.

    Args:
        clicked: the panel's name (`style.make_clickable`), `column` and `row`.
        place: the variable whose map was clicked.
    """
    data = require_steps(routing_data)
    kind, *numbers = clicked["panel"].split(":")
    column, row = int(clicked["column"]), int(clicked["row"])
    if kind == "place":
        variable = step_variables(data)[place]
        places = np.empty((0, 2), int) if variable.places is None else variable.places
        grid_info = compute_grid_info(data) if place == "cell" else compute_grid_bounds(places)
        x, y = grid_info.x_min + column, grid_info.y_min + row
        group = np.flatnonzero((places == [x, y]).all(1))
        return (f"{place} ({x}, {y})", variable.codes == group[0]) if len(group) else None
    if kind == "weight":
        layer, expert = map(int, numbers)
        values, edges = data.weights[layer][:, expert].clip(0, 1), WEIGHT_EDGES
        name = expert_names(layer_sizes(data, expert_hidden_sizes)[layer], data.weights[layer].shape[1])[expert]
        what = f"weight of {name} in layer {layer}"
    elif kind == "entropy":
        edges = entropy_edges(data)
        values, what = (
            routing_entropy(data.weights[int(numbers[0])]).clip(0, edges[-1]),
            f"entropy of layer {numbers[0]}",
        )
    elif kind == "lpc":
        values, edges, what = data.lpc, lpc_edges(data), "LPC"
    else:
        return None
    is_last = column == len(edges) - 2
    mask = (values >= edges[column]) & ((values <= edges[column + 1]) if is_last else (values < edges[column + 1]))
    return (f"{what} from {edges[column]:.3g} to {edges[column + 1]:.3g}", mask) if mask.any() else None


def episode_counts(data: RoutingData, mask: np.ndarray) -> tuple[dict[int, int], dict[int, int]]:
    """Return in how many steps of each episode the mask [T] is true, most first, and at which timestep first."""
    found, counts = np.unique(data.episode[mask], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    firsts = np.full(len(data.episodes), np.iinfo(np.int32).max)
    np.minimum.at(firsts, data.episode[mask], data.timestep[mask])
    counts_of = dict(zip(found[order].tolist(), counts[order].tolist(), strict=True))
    return counts_of, {episode: int(firsts[episode]) for episode in counts_of}
