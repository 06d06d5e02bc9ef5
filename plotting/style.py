"""What all figures share: the page they are for, colors, names, axes, legends, and the numbers they show."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from plotting.data import Entries, NothingToShow
from results.routing_data import RoutingData

Sizes = Sequence[Sequence[int]] | None

# Okabe and Ito's six, for all eyes; then six chosen to differ from those and each other, also for color-blind eyes
EXPERT_COLORS = [
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9",
    "#2A1AD8", "#552A00", "#BFEA95", "#7A0A60", "#F0E442", "#D41540",
]  # fmt: skip
UNVISITED_COLOR = "#d9d9d9"
WALL_COLOR = "#555555"
LPC_COLOR = "#222222"
TASK_COLORS = ["#111111", "#B2182B", "#6A51A3", "#8C6D31", "#9E9E9E", "#E7298A", "#1B4F4A", "#B39DDB"]  # no expert's
DIVERGING = "RdBu_r"  # less or more than the mean
SEQUENTIAL = "cividis"

# ------------------------------------------------------------------------------------------------------------- pages


class Page(NamedTuple):
    """Where a figure will stand.

    Attributes:
        width: in inches; None: each figure's own.
        text: the size of its smallest text, in points.
    """

    width: float | None
    text: float


PAGES = {"column": Page(3.25, 7), "page": Page(6.75, 7), "screen": Page(None, 8), "half": Page(6.6, 8)}
_page: ContextVar[Page] = ContextVar("page", default=PAGES["screen"])


@contextlib.contextmanager
def page(kind: str | Page) -> Iterator[Page]:
    """Make figures for a `column` (3.25 in) or `page` (6.75 in) of a paper, in which no text is below 7 pt, for the
    `screen`, or for `half` of it."""
    token = _page.set(PAGES[kind] if isinstance(kind, str) else kind)
    try:
        yield _page.get()
    finally:
        _page.reset(token)


def current_page() -> Page:
    return _page.get()


def small() -> float:
    """Return the size of ticks and labels, in points; nothing is smaller."""
    return _page.get().text


def large() -> float:
    """Return the size of titles, in points."""
    return _page.get().text + 1


def panels_in_a_row(count: int, at_least: float) -> int:
    """Return how many of `count` panels, each `at_least` inches wide, fit beside each other on this page."""
    width = _page.get().width
    return count if width is None else max(1, min(count, int(width / at_least)))


def new_figure(rows: int, columns: int, width: float, height: float, title: str = "", **settings):
    """Return a figure and its axes [rows, columns], each about `width` x `height` inches where the page allows it.

    On a page of a given width, panels are as narrow as they must be, and no flatter than they would be otherwise.
    """
    natural = columns * width + 0.4
    total = _page.get().width or natural
    tall = height * min(1, max(total / natural, 0.62 if rows > 1 else 0.75))
    figure = Figure((total, rows * tall + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **settings)
    set_title(figure, title)
    for panel in axes.flat:
        panel.tick_params(labelsize=small())
        panel.xaxis.label.set_size(small())
        panel.yaxis.label.set_size(small())
        panel.title.set_size(small())
    return figure, axes


def set_title(figure, title: str) -> None:
    """Write a title over a figure, in as many lines as its width needs."""
    if title:
        figure.suptitle(wrapped(title, figure.get_figwidth() if isinstance(figure, Figure) else 8), fontsize=large())


def wrapped(text: str, width: float, size: float | None = None) -> str:
    """Return text broken into lines of about `width` inches at a type size in points (that of titles when None).

    What it says is never read as mathematics: a mission may hold dollar signs.
    """
    per_line = max(12, int(width * 72 / ((size or large()) * 0.52)))
    return "\n".join(fill(line, per_line) for line in text.replace("$", r"\$").split("\n"))


# ------------------------------------------------------------------------------------------------- colors and names


def expert_color(expert: int) -> str:
    """Return an expert's color: one of twelve, and beyond those the same ones over again."""
    return EXPERT_COLORS[expert % len(EXPERT_COLORS)]


def expert_colors(count: int) -> list[str]:
    return [expert_color(expert) for expert in range(count)]


def expert_cmap(expert: int) -> LinearSegmentedColormap:
    """Return the colormap from white to an expert's color."""
    return LinearSegmentedColormap.from_list(f"expert_{expert}", ["#ffffff", expert_color(expert)])


EXPERT_CMAPS = [expert_cmap(expert) for expert in range(6)]  # of the first six; `expert_cmap` knows all


def expert_name(size: int) -> str:
    return "identity" if size == 0 else f"GRU {size}"


def expert_names(sizes: Sequence[int] | None, count: int) -> list[str]:
    """Return a legend's names of a layer's experts: `identity`, `GRU 16`, ...; `expert 0`, ... without sizes."""
    if sizes is None:
        return [f"expert {expert}" for expert in range(count)]
    names = [expert_name(size) for size in sizes]
    return [
        name if names.count(name) == 1 else f"{name} ({names[:place].count(name) + 1})"
        for place, name in enumerate(names)
    ]


def lesion_name(lesion: str, sizes: Sizes = None) -> str:
    """Return `without GRU 32` for the lesion `0-2_1-2_2-2` of three layers, each identity, GRU 16 and GRU 32.

    Where not every layer loses the same, or sizes are unknown, the layers are named: `without GRU 32 in layer 0`.
    """
    pairs, rest = [], []
    for part in str(lesion).split("_"):
        layer, dash, expert = part.partition("-")
        if dash and layer.isdecimal() and expert.isdecimal():
            pairs.append((int(layer), int(expert)))
        else:
            rest.append(_threshold_name(part))
    layers: dict[str, list[int]] = {}
    for layer, expert in pairs:
        of_layer = sizes[layer] if sizes is not None and layer < len(sizes) else []
        name = expert_names(of_layer, 0)[expert] if expert < len(of_layer) else f"expert {expert}"
        layers.setdefault(name, []).append(layer)
    everywhere = len(sizes) if sizes is not None else None
    names = []
    for name, where in layers.items():
        plural = "layers" if len(where) > 1 else "layer"
        place = "" if len(where) == everywhere else f" in {plural} {', '.join(map(str, where))}"
        names.append(name + place)
    return "without " + ", ".join(names + rest)


def _threshold_name(part: str) -> str:
    """Return what a part of a lesion's name means that names no expert."""
    if part.startswith("min"):
        return f"weights below {part.removeprefix('min')}"
    return f"experts below {part.removeprefix('own')} on the task" if part.startswith("own") else part


def layer_sizes(data: RoutingData, sizes: Sizes) -> list:
    """Return per layer its experts' hidden sizes, None where unknown.

    Raises:
        ValueError: the sizes do not fit the data.
    """
    counts = [layer.shape[1] for layer in data.weights]
    if sizes is not None and [len(layer) for layer in sizes] != counts:
        raise NothingToShow(f"expert_hidden_sizes {sizes} do not fit routing data with {counts} experts per layer")
    return [None] * len(counts) if sizes is None else list(sizes)


def common_names(data: RoutingData, sizes: Sizes) -> list[str]:
    """Return the experts' names in a legend that all layers share."""
    layers = layer_sizes(data, sizes)
    most = max((layer.shape[1] for layer in data.weights), default=0)
    if len({tuple(layer or ()) for layer in layers}) == 1:
        return expert_names(layers[0], most)
    return expert_names(None, most)


def layer_title(layer: int, data: RoutingData, sizes: Sizes) -> str:
    """Return `layer 0`, and its experts where the common legend cannot name them."""
    layers = layer_sizes(data, sizes)
    if len({tuple(each or ()) for each in layers}) == 1:
        return f"layer {layer}"
    return f"layer {layer}: {', '.join(expert_names(layers[layer], 0))}"


def number_text(value: float) -> str:
    """Return a number as papers write it: 10⁻⁵ and 3×10⁻⁵ instead of 1e-05 and 3e-05."""
    if value == 0 or not math.isfinite(value) or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)) + 1e-12)
    factor = f"{value / 10**exponent:.3g}"
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if factor == "1" else f"{factor}×{power}"


def task_styles(tasks: Iterable[str]) -> dict[str, dict]:
    """Return a color (never an expert's) and a marker for each task; forty tasks differ in at least one of them."""
    markers = "osD^v"
    return {
        task: {"color": TASK_COLORS[place % 8], "marker": markers[(place // 8 + place) % len(markers)]}
        for place, task in enumerate(sorted(set(tasks)))
    }


# -------------------------------------------------------------------------------------------------- axes and legends


def legend(figure: Figure, names: Sequence[str], colors: Sequence[str] | None = None) -> None:
    """Write which color is which expert below a figure, in as many rows as its width needs."""
    colors = expert_colors(len(names)) if colors is None else colors
    handles = [Patch(color=color, label=name) for name, color in zip(names, colors, strict=False)]
    longest = max(map(len, names), default=1)
    fit = int(figure.get_figwidth() * 72 / (small() * (0.55 * longest + 4)))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(len(handles), fit)),
        frameon=False,
        fontsize=small(),
        handlelength=1,
        columnspacing=1.2,
    )


def legend_below(figure: Figure, handles: Sequence, labels: Sequence[str]) -> None:
    """Write a legend of lines below a figure, in as many rows as its width needs."""
    fit = int(figure.get_figwidth() * 72 / (small() * (0.55 * max(map(len, labels), default=1) + 5)))
    columns = max(1, min(len(labels), fit))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=small())


def plain(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def readable_on(color) -> str:
    """Return black or white, whichever is easier to read on a color (by its relative luminance)."""
    red, green, blue, _ = to_rgba(color)
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5 else "black"


def require_steps(routing_data: Entries) -> RoutingData:
    data = RoutingData.from_entries(routing_data)
    if len(data) == 0 or not data.weights:
        raise NothingToShow("this routing data holds no routing decisions: there is nothing to draw")
    return data


def make_clickable(
    figure: Figure,
    axes: Axes,
    name: str,
    x_edges: np.ndarray | None = None,
    y_edges: np.ndarray | None = None,
) -> None:
    """Note that a panel is divided by edges (in its own coordinates) into columns, rows or both that can be clicked."""
    vars(figure)["clickable"] = [*getattr(figure, "clickable", []), (axes, name, x_edges, y_edges)]


# --------------------------------------------------------------------------------------------- the numbers of figures


def keep_numbers(figure: Figure, rows: Sequence[dict]) -> Figure:
    """Note the numbers that a figure shows, a dict per row of the CSV that is saved beside it; return the figure."""
    vars(figure)["numbers"] = list(rows)
    return figure


def numbers_of(figure: Figure) -> list[dict]:
    """Return the numbers that a figure shows: those it keeps, else the points of its lines."""
    if "numbers" in vars(figure):
        return vars(figure)["numbers"]
    rows = []
    for panel in _all_axes(figure):
        about = {"panel": panel.get_title(), "x is": panel.get_xlabel(), "y is": panel.get_ylabel()}
        for container in panel.containers:  # of error bars
            label = container.get_label()
            lines = getattr(container, "lines", None)
            if lines and lines[0] is not None:
                lines[0].set_label(label)
        for line in panel.get_lines():
            label = str(line.get_label())
            series = "" if label.startswith("_") else label
            for x, y in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=False):
                rows.append(about | {"series": series, "color": str(line.get_color()), "x": x, "y": y})
    return rows


def _all_axes(figure) -> list[Axes]:
    return list(figure.axes) + [panel for part in figure.subfigs for panel in _all_axes(part)]
