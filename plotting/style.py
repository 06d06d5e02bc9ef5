"""What all figures share: colors, the names of experts, axes and legends."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from plotting.data import Entries
from results.routing_data import RoutingData

Sizes = Sequence[Sequence[int]] | None

EXPERT_COLORS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"]  # Okabe and Ito: for all eyes
EXPERT_CMAPS = [
    LinearSegmentedColormap.from_list(f"expert_{expert}", ["#ffffff", color])
    for expert, color in enumerate(EXPERT_COLORS)
]
UNVISITED_COLOR = "#d9d9d9"
WALL_COLOR = "#555555"


def expert_names(sizes: Sequence[int] | None, count: int) -> list[str]:
    """Return a legend's names of a layer's experts: `identity`, `GRU 16`, ...; `expert 0`, ... without sizes."""
    if sizes is None:
        return [f"expert {expert}" for expert in range(count)]
    names = ["identity" if size == 0 else f"GRU {size}" for size in sizes]
    return [
        name if names.count(name) == 1 else f"{name} ({names[:place].count(name) + 1})"
        for place, name in enumerate(names)
    ]


def layer_sizes(data: RoutingData, sizes: Sizes) -> list:
    """Return per layer its experts' hidden sizes, None where unknown; check that colors suffice."""
    most = max((layer.shape[1] for layer in data.weights), default=0)
    if most > len(EXPERT_CMAPS):
        raise ValueError(f"a layer has {most} experts; figures can tell {len(EXPERT_CMAPS)} apart")
    counts = [layer.shape[1] for layer in data.weights]
    if sizes is not None and [len(layer) for layer in sizes] != counts:
        raise ValueError(f"expert_hidden_sizes {sizes} do not fit routing data with {counts} experts per layer")
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


def new_figure(rows: int, columns: int, width: float, height: float, title: str = "", **settings):
    """Return a figure and its axes [rows, columns], each about `width` x `height` inches."""
    figure = Figure((columns * width + 0.4, rows * height + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **settings)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure, axes


def legend(figure: Figure, names: Sequence[str]) -> None:
    handles = [Patch(color=color, label=name) for name, color in zip(names, EXPERT_COLORS, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def plain(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def require_steps(routing_data: Entries) -> RoutingData:
    data = RoutingData.from_entries(routing_data)
    if len(data) == 0 or not data.weights:
        raise ValueError("this routing data holds no routing decisions: there is nothing to draw")
    return data
