"""Figures as files: in which formats, how wide, under which names, each with a CSV of the numbers it shows."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from basics.errors import UserError
from basics.files import atomic_write
from plotting.data import NothingToShow
from plotting.style import numbers_of, page

DPI = {"column": 300, "page": 300, "screen": 150}  # of PNGs


def file_name(*parts: str) -> str:
    """Return a name for a file of parts that say what a figure shows; what file systems refuse becomes a dash."""
    return "_".join(re.sub(r"[^\w.+=-]+", "-", part).strip("-") for part in parts if part)


def write_figure(
    figure: Figure, path: Path, file_formats: Sequence[str] = ("png",), width: str = "screen"
) -> list[Path]:
    """Write a figure that was made for a page of the given width in each format, and its numbers as CSV.

    Args:
        path: of the PNG of the screen's width; other widths are part of the name (`..._column.pdf`).

    Returns:
        the paths written.

    Raises:
        UserError: a file cannot be written.
    """
    stem = path.stem if width == "screen" else f"{path.stem}_{width}"
    saved = [path.with_name(f"{stem}.{file_format}") for file_format in file_formats]
    for target in saved:
        # no date in the file: the same data gives the same bytes
        metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(target.suffix[1:])
        buffer = io.BytesIO()
        with matplotlib_settings():
            figure.savefig(buffer, format=target.suffix[1:], dpi=DPI[width], metadata=metadata)
        with atomic_write(target, "wb") as file:
            file.write(buffer.getvalue())
    return saved + save_numbers(figure, path.with_name(f"{stem}.csv"))


def matplotlib_settings():
    """Keep text as text in PDF (TrueType, which journals accept) and SVG, and names in SVG the same every time."""
    return matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "rl-mop"})


def save_numbers(figure: Figure, path: Path) -> list[Path]:
    rows = numbers_of(figure)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return [path]


def save_all(
    figures: dict[str, Callable[[], Figure]],
    path_of: Callable[[str], Path],
    file_formats: Sequence[str],
    width: str,
    on_saved: Callable[[list[Path]], object] | None = None,
    on_nothing: Callable[[str], object] | None = None,
) -> list[Path]:
    """Make and write every figure (`write_figure`); return the paths.

    Args:
        path_of: where a figure of a name goes.
        on_saved: called with the paths of each figure.
        on_nothing: called with the reason why there is no figure of a name; the others are saved.

    Raises:
        UserError: a file cannot be written.
    """
    saved = []
    for name, make in figures.items():
        paths: list[Path] = []
        try:
            with page(width):
                figure = make()
        except (NothingToShow, UserError) as error:
            if on_nothing is not None:
                on_nothing(f"no {name}: {error}")
        else:
            paths = write_figure(figure, path_of(name), file_formats, width)
        saved += paths
        if on_saved is not None:
            on_saved(paths)
    return saved
