"""Figures: confusion matrices, reliability, and grids of images with heat maps and outlines."""

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import DataError, MaskFormat
from files import OutputFolder
from metrics import ECE_BINS
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
    "draw_confusion",
    "draw_grid",
    "draw_label_confusions",
    "draw_reliability",
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

CELL = 1.8
"""Inches of an image in a grid."""

SIZE = 8
"""Points of text."""

LINE = 0.15
"""Inches of a line of text."""

GAP = 0.06


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
    if path.exists() and not OutputFolder(path.parent).is_own(path.name):
        raise DataError(
            f"{path}: there already and not written by this script, or changed since; give another name, or move it away"
        )


def draw_confusion(matrix: Tensor, names: Sequence[str], path: Path) -> None:
    """Images by true and predicted class: number and share of the true class.

    Args:
        matrix: numbers ``(classes, classes)``, a row for each true class.
        names: of the classes.
        path: the figure's file.
    """
    cell = min(0.6, 18 / len(names))
    side = cell * len(names)
    font = min(SIZE, 60 * cell)
    figure = _figure(side, side)
    axis = figure.add_axes((0, 0, 1, 1))
    numbers = font if cell > 0.45 else 0
    image = _draw_matrix(axis, matrix, numbers)
    labels = [_wrap(name, 1.6, font, 2) for name in names]
    is_wide = max(_width(label, font) for label in labels) > 0.9 * cell
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_wide else {}
    axis.set_xticks(range(len(names)), labels, fontsize=font, parse_math=False, **turned)
    axis.set_yticks(range(len(names)), labels, fontsize=font, parse_math=False)
    axis.set_xlabel("predicted class", fontsize=SIZE + 1)
    axis.set_ylabel("true class", fontsize=SIZE + 1)
    _draw_bar(figure, image, side + 0.12, 0, side, "share of true class")
    _save(figure, path)


def draw_label_confusions(matrices: Tensor, names: Sequence[str], path: Path) -> None:
    """For classes of which several may hold at once: whether each holds and whether it is predicted.

    Args:
        matrices: numbers ``(classes, 2, 2)``: true no and yes, by predicted no and yes.
        names: of the classes.
        path: the figure's file.
    """
    side, pitch = 1.1, (1.6, 1.75)
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = _figure(pitch[0] * columns, pitch[1] * rows)
    for index, (matrix, name) in enumerate(zip(matrices, names)):
        row, column = divmod(index, columns)
        axis = _add_axes(figure, column * pitch[0], row * pitch[1], side, side)
        _draw_matrix(axis, matrix, SIZE)
        axis.set_title(_wrap(name, pitch[0] - GAP, SIZE, 2), fontsize=SIZE, parse_math=False, pad=3)
        axis.set_xticks([0, 1], ["no", "yes"], fontsize=SIZE)
        axis.set_yticks([0, 1], ["no", "yes"], fontsize=SIZE)
        axis.tick_params(length=2, pad=2)
        if index + columns >= len(names):
            axis.set_xlabel("predicted", fontsize=SIZE)
        if column == 0:
            axis.set_ylabel("true", fontsize=SIZE)
    _save(figure, path)


def _draw_matrix(axis: "Axes", matrix: Tensor, font: float) -> Any:
    """Number and share of the row in each cell, none with font 0; the darker, the larger the share."""
    totals = matrix.sum(1, keepdim=True)
    shares = matrix.float() / totals.clamp(min=1)
    image = axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in torch.cartesian_prod(*map(torch.arange, matrix.shape)).tolist() if font else ():
        share = f"\n{shares[row, column]:.0%}" if totals[row] else ""
        color = "white" if shares[row, column] > 0.5 else "black"
        text = f"{int(matrix[row, column])}{share}"
        axis.text(column, row, text, ha="center", va="center", color=color, fontsize=font - 0.5, linespacing=1.1)
    return image


def draw_reliability(curves: dict[str, list[tuple[float, float, int]]], path: Path) -> None:
    """Accuracy by confidence, which are equal on the diagonal, and below how the confidences are distributed.

    Args:
        curves: by name, mean confidence, accuracy and number of each bin, as :func:`metrics.reliability` gives them.
        path: the figure's file.
    """
    figure = _figure(2.8, 3.7)
    upper = _add_axes(figure, 0, 0, 2.8, 2.8)
    lower = _add_axes(figure, 0, 2.9, 2.8, 0.8)
    upper.plot([0, 1], [0, 1], color="0.5", linestyle=":", linewidth=1, label="calibrated")
    for marker, (name, bins) in zip("os^Dv" * len(curves), curves.items()):
        confidence, accuracy, numbers = zip(*bins)
        (line,) = upper.plot(confidence, accuracy, marker=marker, markersize=4, linewidth=1, label=name, clip_on=False)
        shares = torch.zeros(ECE_BINS)
        for value, number in zip(confidence, numbers):
            shares[min(int(value * ECE_BINS), ECE_BINS - 1)] += number / sum(numbers)
        edges = torch.linspace(0, 1, ECE_BINS + 1)
        lower.stairs(shares.numpy(), edges.numpy(), color=line.get_color(), fill=True, alpha=0.25)
        lower.stairs(shares.numpy(), edges.numpy(), color=line.get_color(), linewidth=1)
    upper.set(xlim=(0, 1), ylim=(0, 1), xticklabels=[])
    upper.set_ylabel("accuracy", fontsize=SIZE + 1)
    upper.legend(loc="upper left", fontsize=SIZE, frameon=False)
    lower.set(xlim=(0, 1))
    lower.set_xlabel("confidence", fontsize=SIZE + 1)
    lower.set_ylabel("share", fontsize=SIZE + 1)
    for axis in (upper, lower):
        axis.tick_params(labelsize=SIZE)
        axis.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    _save(figure, path)


@dataclass(frozen=True)
class Outline:
    """An outline on a picture.

    Attributes:
        mask: bool ``(H, W)``.
        color: any that matplotlib knows.
        label: in the legend.
        style: in the legend, if colors stand for classes: ``true``, drawn solid, or ``predicted``, dashed.
    """

    mask: Tensor
    color: str
    label: str
    style: str = ""


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


def outlines_of(indices: Tensor, mask_format: MaskFormat, style: str) -> list[Outline]:
    """The outline of each foreground; one foreground is green where ``style`` is ``true`` and red if ``predicted``.

    Args:
        indices: class indices ``(H, W)``.
        mask_format: names of the classes.
        style: ``true`` or ``predicted``.
    """
    if mask_format.num_classes == 1:
        return [Outline(indices == 1, {"true": "lime", "predicted": "red"}[style], style)]
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in palette(mask_format.num_classes)]
    return [
        Outline(indices == index, colors[index], name, style) for index, name in enumerate(mask_format.foregrounds, 1)
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
    # Very long or high pictures are fitted into a cell, not drawn on a figure without bounds.
    heights = [
        CELL * max(min(max(cell.picture.shape[1] / cell.picture.shape[2], 0.3), 2.5) for cell in row) for row in rows
    ]
    lefts, right = [], 0.0
    for column in range(len(titles)):
        labeled = any(row[column].label for row in rows if column < len(row))
        lefts.append(right + (0.24 if labeled else 0) + GAP)
        right = lefts[-1] + CELL
    tops, bottom = [], 0.0
    for row, height in zip(rows, heights):
        tops.append(bottom)
        bottom += (
            height + LINE * max(_wrap(cell.note, CELL, SIZE).count("\n") + bool(cell.note) for cell in row) + 2 * GAP
        )
    titles = [_wrap(title, CELL, SIZE + 1) for title in titles]
    figure = _figure(right, bottom)
    for row, top, height in zip(rows, tops, heights):
        for cell, left in zip(row, lefts):
            _draw_cell(_add_axes(figure, left, top, CELL, height), cell, bar)
    for axis, title in zip(figure.axes, titles):
        # Names of files are no formulas, whatever dollar signs they hold.
        axis.set_title(title, fontsize=SIZE + 1, parse_math=False, pad=3)
    lines = max(title.count("\n") + 1 for title in titles)
    above = 1 + (1.15 * LINE * lines + 2 * GAP) / bottom
    figure.text(0.5, above, _wrap(caption, right, SIZE), fontsize=SIZE, ha="center", va="bottom")
    if bar is not None:
        height = tops[-1] + heights[-1]
        _draw_bar(figure, _mappable(bar), right + 0.12, max(0, height - 3) / 2, min(3, height), bar.label)
    _draw_legend(figure, [outline for row in rows for cell in row for outline in cell.outlines])
    _save(figure, path)


def _draw_cell(axis: "Axes", cell: Cell, bar: ColorBar | None) -> None:
    from matplotlib.patheffects import withStroke

    height, width = cell.picture.shape[1:]
    axis.imshow(cell.picture.permute(1, 2, 0).numpy())
    if cell.heat is not None and bar is not None:
        heat = F.interpolate(cell.heat[None, None], size=(height, width), mode="bilinear")[0, 0]
        axis.imshow(heat.numpy(), cmap=bar.colors, alpha=0.5, vmin=0, vmax=1)
    for outline in cell.outlines:
        mask = outline.mask
        # matplotlib draws no contour of a single row or column.
        if min(mask.shape) > 1 and mask.any() and not mask.all():
            style = "dashed" if outline.style == "predicted" else "solid"
            lines = axis.contour(mask.numpy(), levels=[0.5], colors=outline.color, linewidths=1.4, linestyles=style)
            lines.set(path_effects=[withStroke(linewidth=2, foreground="black", alpha=0.6)])
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(_wrap(cell.note, CELL, SIZE), fontsize=SIZE, parse_math=False, labelpad=3)
    size = axis.get_window_extent().height / axis.figure.dpi
    axis.set_ylabel(_wrap(cell.label, size, SIZE, 1), fontsize=SIZE, parse_math=False, labelpad=3)


def _mappable(bar: ColorBar) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, 1), bar.colors)


def _draw_bar(figure: "Figure", colors: Any, left: float, top: float, height: float, label: str) -> None:
    bar = figure.colorbar(colors, cax=_add_axes(figure, left, top, 0.09, height), ticks=[0, 0.5, 1])
    bar.set_label(_wrap(label, height, SIZE), fontsize=SIZE)
    bar.ax.tick_params(labelsize=SIZE - 1, length=2, pad=2)


def _draw_legend(figure: "Figure", outlines: Sequence[Outline]) -> None:
    """Below the grid: colors and, where colors stand for classes, how true and predicted outlines are drawn."""
    from matplotlib.lines import Line2D

    entries = dict.fromkeys((_wrap(each.label, 2, SIZE), each.color, "solid") for each in outlines)
    styles = {each.style for each in outlines}
    entries |= {
        (style, "0.4", line): None for style, line in (("true", "solid"), ("predicted", "dashed")) if style in styles
    }
    if entries:
        width = max(_width(label, SIZE) for label, _, _ in entries) + 0.5
        handles = [Line2D([], [], color=color, linestyle=line, linewidth=1.4) for _, color, line in entries]
        figure.legend(
            handles,
            [label for label, _, _ in entries],
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            ncols=max(1, min(len(entries), int(figure.get_figwidth() / width))),
            fontsize=SIZE,
            frameon=False,
            borderaxespad=0.2,
        )


def _wrap(text: str, inches: float, size: float, lines: int = 3) -> str:
    """Text in lines that are no longer than so many inches; what does not fit ends in an ellipsis.

    Lines break after spaces and the signs that file names have.
    """
    wrapped = [""]
    # Names of files may be no valid text.
    for piece in re.split(r"(?<=[\s_\-/.,])", text.encode(errors="replace").decode()):
        for part in [piece] if _width(piece, size) <= inches else piece:
            if part == "\n" or _width((wrapped[-1] + part).rstrip(), size) > inches:
                wrapped.append("")
            wrapped[-1] += part.strip("\n")
    if len(wrapped) > lines:
        last = wrapped[lines - 1]
        while last and _width(f"{last}…", size) > inches:
            last = last[:-1]
        wrapped = [*wrapped[: lines - 1], f"{last.rstrip()}…"]
    return "\n".join(line.rstrip() for line in wrapped)


def _width(text: str, size: float) -> float:
    """Inches of text of one line or several."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size)
    return (
        max(text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")) / 72
    )


def _figure(width: float, height: float) -> "Figure":
    """A figure of so many inches; text that stands out is added when it is saved."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _add_axes(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Axes by their inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def _save(figure: "Figure", path: Path) -> None:
    """Write a figure, if that replaces nothing but an older figure."""
    import matplotlib

    save = partial(figure.savefig, format=path.suffix.lower()[1:], dpi=200, bbox_inches="tight", pad_inches=0.05)
    # TrueType, as journals want it.
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        OutputFolder(path.parent).write(path.name, save)
