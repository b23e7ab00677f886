"""What all figures share: sizes in inches, text that fits, color bars, and saving."""

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files import OutputFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GAP", "LINE", "SIZE", "add_axes", "draw_bar", "make_figure", "save", "text_width", "wrap"]

SIZE = 8
"""Points of text."""

LINE = 0.15
"""Inches of a line of text."""

GAP = 0.06
"""Inches between pictures."""

_FOR_PRINT = (".pdf", ".svg", ".tif", ".tiff")


def make_figure(width: float, height: float) -> "Figure":
    """A figure for axes of so many inches in all; :func:`save` makes room for the text around them."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def add_axes(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Axes, placed in inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def draw_bar(figure: "Figure", colors: Any, left: float, top: float, height: float, label: str) -> None:
    """A color bar from 0 to 1, placed in inches from the figure's upper left corner."""
    bar = figure.colorbar(colors, cax=add_axes(figure, left, top, 0.09, height), ticks=[0, 0.5, 1])
    bar.set_label(wrap(label, height, SIZE), fontsize=SIZE)
    bar.ax.tick_params(labelsize=SIZE - 1, length=2, pad=2)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of its name.

    Raises:
        DataError: a file that no script wrote is there, the disk is full, or the like.
    """
    import matplotlib

    suffix = path.suffix.lower()
    dpi = 300 if suffix in _FOR_PRINT else 200
    write = partial(figure.savefig, format=suffix[1:], dpi=dpi, bbox_inches="tight", pad_inches=0.05)
    # TrueType fonts, because journals reject matplotlib's default, Type 3.
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        OutputFolder(path.parent).write(path.name, write)


def wrap(text: str, inches: float, size: float, lines: int = 3) -> str:
    """Break text into lines of at most so many inches; what needs more lines ends in an ellipsis.

    Lines break after spaces and after the signs that are common in file names.
    """
    wrapped: list[str] = []
    # Names of files may hold bytes that are no text.
    for paragraph in text.encode(errors="replace").decode().split("\n"):
        wrapped.append("")
        for piece in re.split(r"(?<=[\s_\-/.,])", paragraph):
            for part in [piece] if text_width(piece, size) <= inches else piece:
                if text_width((wrapped[-1] + part).rstrip(), size) > inches:
                    wrapped.append("")
                wrapped[-1] += part
    if len(wrapped) > lines:
        last = wrapped[lines - 1]
        while last and text_width(f"{last}…", size) > inches:
            last = last[:-1]
        wrapped = [*wrapped[: lines - 1], f"{last.rstrip()}…"]
    return "\n".join(line.rstrip() for line in wrapped)


def text_width(text: str, size: float) -> float:
    """Inches of the longest line of a text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size)
    widths = [text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")]
    return float(max(widths)) / 72
