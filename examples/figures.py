"""Figures: confusion matrix, reliability, class activation, contours."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from readers import DataError
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Cell", "check_figure", "draw_confusion", "draw_grid", "draw_reliability"]


def check_figure(path: Path, inputs: Sequence[str] = ()) -> None:
    """Check, before anything slow, that a figure can be written and takes the place of none of the inputs.

    Raises:
        DataError: no such folder, one of the inputs, a folder, or a name that ends in no format that there is.
    """
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path}: no such folder")
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; give the name of a file")
    if path.resolve() in {Path(name).resolve() for name in inputs}:
        raise DataError(f"{path}: this is one of the images or masks, which would be lost; give another name")
    # PGF asks for a TeX installation.
    known = sorted({*Figure().canvas.get_supported_filetypes()} - {"pgf"})
    if path.suffix.lower().removeprefix(".") not in known:
        raise DataError(f"{path}: figures are files that end in {', '.join(f'.{name}' for name in known)}")


def draw_confusion(matrix: Tensor, names: Sequence[str], path: Path) -> None:
    """Images by true and predicted class; colours are shares of the true class."""
    shares = matrix.float() / matrix.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(1.2 + 0.7 * len(names), 1 + 0.7 * len(names)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(int(matrix[row, column])), ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="true")
    figure.savefig(path, dpi=120)


def draw_reliability(curves: dict[str, list[tuple[float, float, int]]], path: Path) -> None:
    """Accuracy over confidence, dots as large as their share of the images; on the diagonal confidence is right."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    for name, bins in curves.items():
        confidence, accuracy, images = zip(*bins)
        (line,) = axis.plot(confidence, accuracy, linewidth=1, label=name)
        sizes = [400 * number / sum(images) for number in images]
        axis.scatter(confidence, accuracy, sizes, color=line.get_color(), clip_on=False)
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axis.legend(loc="upper left")
    figure.savefig(path, dpi=120)


@dataclass
class Cell:
    """One picture of a grid.

    Attributes:
        picture: uint8 ``(3, H, W)``.
        heat: from 0 to 1 on a grid of any size, laid over the picture.
        outlines: bool masks ``(H, W)`` with the colours of their outlines.
        note: a line below.
    """

    picture: Tensor
    heat: Tensor | None = None
    outlines: list[tuple[Tensor, str]] = field(default_factory=list)
    note: str = ""


def draw_grid(
    rows: Sequence[Sequence[Cell]], titles: Sequence[str], labels: Sequence[str], caption: str, path: Path
) -> None:
    """Cells in rows and columns, with titles above the columns, labels beside the rows and a caption above all."""
    height, width = rows[0][0].picture.shape[1:]
    # Very long or high pictures are drawn smaller, not on a figure without bounds.
    shape = min(max(height / width, 0.3), 3.0)
    figure = Figure(figsize=(2.2 * len(titles) + 0.4, (2.2 * shape + 0.2) * len(rows) + 0.6))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, cells, label in zip(axes, rows, labels):
        for axis, cell in zip(line, cells):
            _draw_cell(axis, cell)
        # Names of files are no formulas, whatever dollar signs they hold.
        line[0].set_ylabel(label, fontsize=8, parse_math=False)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=9, parse_math=False)
    figure.suptitle(caption, fontsize=8)
    figure.savefig(path, dpi=140)


def _draw_cell(axis: Any, cell: Cell) -> None:
    height, width = cell.picture.shape[1:]
    axis.imshow(cell.picture.permute(1, 2, 0).numpy())
    if cell.heat is not None:
        heat = F.interpolate(cell.heat[None, None], size=(height, width), mode="bilinear")[0, 0]
        axis.imshow(heat.numpy(), cmap="jet", alpha=0.45, vmin=0, vmax=1)
    for mask, colour in cell.outlines:
        # matplotlib draws no contour of a single row or column.
        if min(mask.shape) > 1 and mask.any() and not mask.all():
            axis.contour(mask.numpy(), levels=[0.5], colors=colour, linewidths=1.4)
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(cell.note, fontsize=8, parse_math=False)
