"""What the two notebooks share: errors, text that stays text, figures, progress, and what the address remembers."""

import functools
import html
import sys
from collections.abc import Callable, Iterable

import marimo as mo
from matplotlib.figure import Figure
from tqdm import tqdm

from plotting.data import NothingToShow

STYLE = """<style>
#App > [class*="px-16"] { padding-left: 14px !important; padding-right: 14px !important; }
#App [class*="pt-"] { padding-top: 6px; }
#App .output { margin-bottom: 4px; }
.rlmop-line { font: 14px/1.5 system-ui, sans-serif; }
.rlmop-line b { font-weight: 600; }
.rlmop-figure img { max-width: 100%; background: white; border-radius: 6px; }
.rlmop-note { font: 13px/1.4 system-ui, sans-serif; opacity: 0.8; margin: 2px 0; }
</style>"""


def is_script() -> bool:
    """Tell whether a notebook runs as a script, without a browser."""
    return mo.app_meta().mode == "script"


@functools.cache  # what a widget sends later comes without a request: the first cell's answer counts
def is_export() -> bool:
    """Tell whether a notebook is being exported: nobody will click, so nothing may wait for it."""
    return not is_script() and mo.app_meta().request is None


def text(string: object, style: str = "rlmop-line") -> mo.Html:
    """Return a string as text: what stands in a file is never read as Markdown or HTML."""
    return mo.Html(f'<div class="{style}">{html.escape(str(string))}</div>')


def callout(string: object, kind: str = "warn") -> mo.Html:
    return mo.callout(text(string), kind=kind)


def stop_with(problem: object) -> None:
    """End a script with one line and exit status 2; in a notebook, show the problem instead of this cell's output."""
    if is_script():
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    mo.stop(True, callout(problem))


def picture(figure: Figure, description: str = "", chosen: dict | None = None):
    """Return a figure for a page: clickable where something in it can be clicked, and anybody may."""
    from browser.widgets import Picture, data_url

    if getattr(figure, "clickable", None) and not is_export():
        return mo.ui.anywidget(Picture(figure, description, chosen))
    source, width = data_url(figure), round(figure.get_figwidth() * 96)
    label = html.escape(description, quote=True)
    return mo.Html(f'<div class="rlmop-figure"><img src="{source}" alt="{label}" style="width:{width}px"></div>')


def beside(*parts: tuple[object, int]):
    """Return parts side by side, each (content, least width in pixels); below each other where there is no room."""
    boxes = (
        f'<div style="flex: {width} 1 {width}px; min-width: min({width}px, 100%)">{mo.as_html(content)}</div>'
        for content, width in parts
    )
    return mo.Html(f'<div style="display:flex;flex-wrap:wrap;gap:10px;align-items:flex-start">{"".join(boxes)}</div>')


def show(make: Callable[[], Figure], description: str = ""):
    """Return what `make` draws, or a line of text where there is nothing to show."""
    try:
        return picture(make(), description)
    except NothingToShow as error:
        return text(f"Nothing to show: {error}.", "rlmop-note")


def progress(total: int, what: str):
    """Return a progress bar of a script or a page; both know `update(n)`."""
    if is_script():
        return tqdm(total=total, desc=what, leave=False)
    return mo.status.progress_bar(total=total, title=what, remove_on_exit=True)


def remembered(name: str, choices: Iterable[str] | None = None, default: str = "") -> str:
    """Return what the page's address says under a name, `default` where it says nothing or none of the choices."""
    value = None if is_script() else mo.query_params().get(name)
    if isinstance(value, list):  # it is said more than once
        value = value[-1] if value else None
    return default if value is None or (choices is not None and value not in choices) else value


def remember(**values) -> None:
    """Write values into the page's address, so that it can be sent, bookmarked and loaded again."""
    if is_script() or is_export():
        return
    parameters = mo.query_params()
    for name, value in values.items():
        if value is None:
            if name in parameters:
                parameters.remove(name)
        elif parameters.get(name) != str(value):
            parameters.set(name, str(value))
