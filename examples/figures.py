"""Grids of images with heat maps and outlines. For confusion and reliability see ``charts.py``."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import DataError, MaskFormat
from drawing import GAP, LINE, SIZE, add_axes, draw_bar, make_figure, save, text_width, wrap
from files import OutputFolder
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "PALETTE",
    "Cell",
    "ColorBar",
    "Outline",
    "check_figure",
    "draw_grid",
    "outlines_of",
    "palette",
]

FORMATS = (".jpeg", ".jpg", ".pdf", ".png", ".svg", ".tif", ".tiff", ".webp")
"""That show transparency as it is meant, unlike EPS."""

PALETTE = (
    (0, 0, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
    (230, 159, 0),
)
"""RGB of class indices, background first: colors that color-blind people tell apart (Okabe and Ito, 2008)."""

CELL = 1.75
"""Inches of a picture in a grid."""


def palette(num_classes: int) -> list[tuple[int, int, int]]:
    """A different RGB color for each class index, uint8; black for the background, index 0."""
    colors = list(PALETTE)
    step = 0
    while len(colors) < num_classes:
        # Hues a golden ratio apart stay apart, however many there are.
        r, g, b = colorsys.hsv_to_rgb(0.618034 * step % 1, (0.9, 0.5)[step % 2], (1.0, 0.65, 0.85)[step % 3])
        color = (round(255 * r), round(255 * g), round(255 * b))
        colors += [] if color in colors else [color]
        step += 1
    return colors[:num_classes]


def check_figure(path: Path, inputs: Sequence[str | Path] = ()) -> None:
    """Check, before anything slow, that a figure can be written and replaces nothing but an older figure.

    Raises:
        DataError: no such folder, or one that cannot be written to; a folder; one of the inputs; an unknown format; a
            file that no script wrote.
    """
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path}: no such folder")
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; give the name of a file")
    if path.resolve() in {Path(name).resolve() for name in inputs}:
        raise DataError(f"{path}: this is one of the images or masks, which would be lost; give another name")
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: figures are files that end in {', '.join(FORMATS)}")
    if path.exists() and path not in OutputFolder(path.parent).written:
        raise DataError(
            f"{path}: there already and not written by this script, or changed since; give another name, or move it "
            "away"
        )


@dataclass(frozen=True)
class Outline:
    """An outline on a picture.

    Attributes:
        mask: bool ``(H, W)``.
        color: any that matplotlib knows.
        label: in the legend.
        is_dashed: whether it is dashed, which the legend calls predicted.
    """

    mask: Tensor
    color: str
    label: str
    is_dashed: bool = False


@dataclass
class Cell:
    """One picture of a grid.

    Attributes:
        picture: uint8 ``(3, H, W)``.
        heat: from 0 to 1 on a grid of any size, laid over the picture.
        outlines: drawn on the picture.
        note: below the picture.
        label: left of the picture.
    """

    picture: Tensor
    heat: Tensor | None = None
    outlines: list[Outline] = field(default_factory=list)
    note: str = ""
    label: str = ""


@dataclass(frozen=True)
class ColorBar:
    """What the colors of heat maps mean: a label, and a color map of matplotlib."""

    label: str
    colors: str = "turbo"


def outlines_of(indices: Tensor, mask_format: MaskFormat, is_predicted: bool) -> list[Outline]:
    """The outline of each foreground: of one, green if true and red if predicted; of several, each in its own color.

    Args:
        indices: class indices ``(H, W)``.
        mask_format: names of the classes.
        is_predicted: whether a model predicts them.
    """
    if mask_format.num_classes == 1:
        return [Outline(indices == 1, "red", "predicted") if is_predicted else Outline(indices == 1, "lime", "true")]
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in palette(mask_format.num_classes)]
    return [
        Outline(indices == index, colors[index], name, is_predicted)
        for index, name in enumerate(mask_format.foregrounds, 1)
    ]


def draw_grid(
    rows: Sequence[Sequence[Cell]], titles: Sequence[str], caption: str, path: Path, bar: ColorBar | None = None
) -> None:
    """Pictures in rows and columns.

    Args:
        rows: the pictures, all rows but the last of the same length.
        titles: above the columns.
        caption: above all; may hold formulas between dollar signs.
        path: the figure's file.
        bar: what heat means, if any cell has it.
    """
    lefts, right = _place_columns(rows, len(titles))
    tops, heights, bottom = _place_rows(rows)
    figure = make_figure(right, bottom)
    for row, top, height in zip(rows, tops, heights):
        for cell, left in zip(row, lefts):
            _draw_cell(add_axes(figure, left, top, CELL, height), cell, height, bar)
    titles = [wrap(title, CELL, SIZE + 1) for title in titles]
    for axis, title in zip(figure.axes, titles):
        # Names of files are no formulas, whatever dollar signs they hold.
        axis.set_title(title, fontsize=SIZE + 1, parse_math=False, pad=3)
    above = 0.12 + LINE * max(title.count("\n") + 1 for title in titles)
    figure.text(0.5, 1 + above / bottom, wrap(caption, right, SIZE), fontsize=SIZE, ha="center", va="bottom")
    if bar is not None:
        from matplotlib.cm import ScalarMappable

        height = tops[-1] + heights[-1]
        length = min(3, height)
        draw_bar(figure, ScalarMappable(cmap=bar.colors), right + 0.12, (height - length) / 2, length, bar.label)
    _draw_legend(figure, [outline for row in rows for cell in row for outline in cell.outlines])
    save(figure, path)


def _place_columns(rows: Sequence[Sequence[Cell]], columns: int) -> tuple[list[float], float]:
    """Inches from the left to each column, and to the end of the last one."""
    lefts, right = [], 0.0
    for column in range(columns):
        is_labeled = any(row[column].label for row in rows if column < len(row))
        lefts.append(right + (0.24 if is_labeled else 0) + GAP)
        right = lefts[-1] + CELL
    return lefts, right


def _place_rows(rows: Sequence[Sequence[Cell]]) -> tuple[list[float], list[float], float]:
    """Inches from the top to each row, its height, and inches to the end of the last one's notes."""
    tops, heights, bottom = [], [], 0.0
    for row in rows:
        # Very long or high pictures are fitted into a cell, not drawn on a figure without bounds.
        ratios = [min(max(cell.picture.shape[1] / cell.picture.shape[2], 0.3), 2.5) for cell in row]
        lines = max(wrap(cell.note, CELL, SIZE).count("\n") + 1 if cell.note else 0 for cell in row)
        tops.append(bottom)
        heights.append(CELL * max(ratios))
        bottom += heights[-1] + LINE * lines + 2 * GAP
    return tops, heights, bottom


def _draw_cell(axis: "Axes", cell: Cell, height: float, bar: ColorBar | None) -> None:
    """A picture in axes of so many inches in height."""
    from matplotlib.patheffects import withStroke

    size = cell.picture.shape[1:]
    if cell.heat is None or bar is None:
        axis.imshow(cell.picture.permute(1, 2, 0).numpy())
    else:
        # Of a gray picture, so that all color is heat.
        heat = F.interpolate(cell.heat[None, None], size=size, mode="bilinear")[0, 0]
        axis.imshow(cell.picture.float().mean(0).numpy(), cmap="gray", vmin=0, vmax=255)
        axis.imshow(heat.numpy(), cmap=bar.colors, alpha=0.5, vmin=0, vmax=1)
    for outline in cell.outlines:
        mask = outline.mask
        # matplotlib draws no contour of a single row or column.
        if min(mask.shape) > 1 and mask.any() and not mask.all():
            line = "dashed" if outline.is_dashed else "solid"
            drawn = axis.contour(mask.numpy(), levels=[0.5], colors=outline.color, linewidths=1.2, linestyles=line)
            drawn.set(path_effects=[withStroke(linewidth=1.8, foreground="black", alpha=0.6)])
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(wrap(cell.note, CELL, SIZE), fontsize=SIZE, parse_math=False, labelpad=3)
    axis.set_ylabel(wrap(cell.label, height, SIZE, 1), fontsize=SIZE, parse_math=False, labelpad=3)


def _draw_legend(figure: "Figure", outlines: Sequence[Outline]) -> None:
    """Below the grid: colors and, where colors stand for classes, how true and predicted outlines are drawn."""
    from matplotlib.lines import Line2D

    entries = dict.fromkeys((wrap(each.label, 2, SIZE), each.color, False) for each in outlines)
    if any(each.is_dashed for each in outlines):
        solid = [] if all(each.is_dashed for each in outlines) else [("true", "0.4", False)]
        entries |= dict.fromkeys([*solid, ("predicted", "0.4", True)])
    if entries:
        labels = [label for label, _, _ in entries]
        width = max(text_width(label, SIZE) for label in labels) + 0.5
        figure.legend(
            [
                Line2D([], [], color=color, linestyle="dashed" if is_dashed else "solid", linewidth=1.4)
                for _, color, is_dashed in entries
            ],
            labels,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            ncols=max(1, min(len(labels), int(figure.get_figwidth() / width))),
            fontsize=SIZE,
            frameon=False,
            borderaxespad=0.2,
        )
