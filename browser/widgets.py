"""Widgets of the notebooks (anywidget): a figure that can be clicked, and the player of episodes."""

import base64
import io
from pathlib import Path

import anywidget
import traitlets
from matplotlib.figure import Figure

HERE = Path(__file__).parent
DPI = 192  # of pictures: two dots for each pixel of a page


class Picture(anywidget.AnyWidget):
    """A figure as a picture, whose clickable panels (`plotting.style.make_clickable`) say what was clicked.

    `clicked` is empty at first, then {"panel": its name, "column": ..., "row": ..., "count": of clicks so far}.
    """

    _esm = HERE / "picture.js"
    _css = HERE / "picture.css"
    source = traitlets.Unicode().tag(sync=True)
    description = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    panels = traitlets.List().tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)
    clicked = traitlets.Dict().tag(sync=True)

    def __init__(self, figure: Figure, description: str = "", chosen: dict | None = None):
        source = data_url(figure)  # drawing comes first: only then are the panels where they belong
        width = round(figure.get_figwidth() * 96)
        panels = clickable_panels(figure)
        super().__init__(source=source, description=description, width=width, panels=panels, chosen=chosen or {})


def data_url(figure: Figure, dpi: int = DPI) -> str:
    """Return a figure as a PNG inside a URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def clickable_panels(figure: Figure) -> list[dict]:
    """Return the clickable panels of a figure that has been drawn, in shares of the picture from its top left."""
    panels = []
    for axes, name, x_edges, y_edges in getattr(figure, "clickable", ()):
        frame, whole = axes.get_window_extent(), figure.bbox
        box = [
            frame.x0 / whole.width,
            1 - frame.y1 / whole.height,
            frame.x1 / whole.width,
            1 - frame.y0 / whole.height,
        ]
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        across = [0, 1] if x_edges is None else [(edge - left) / (right - left) for edge in x_edges]
        down = [0, 1] if y_edges is None else [(edge - top) / (bottom - top) for edge in y_edges]
        panels.append({"name": name, "box": box, "x": [float(each) for each in across], "y": [float(e) for e in down]})
    return panels


class Player(anywidget.AnyWidget):
    """An episode to play, step through and click into, drawn in the browser (`replay.scene` makes `episode`).

    `lesion` is "layer:expert" after a click on that expert, where `can_lesion`; `beside` is shown beside the episode.
    """

    _esm = HERE / "player.js"
    _css = HERE / "player.css"
    episode = traitlets.Dict().tag(sync=True)
    beside = traitlets.Dict().tag(sync=True)
    lesion = traitlets.Unicode().tag(sync=True)
    can_lesion = traitlets.Bool().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
