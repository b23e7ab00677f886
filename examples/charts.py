"""Charts of a classification: confusion matrices and reliability."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from drawing import GAP, SIZE, add_axes, draw_bar, make_figure, save, text_width, wrap
from metrics import ECE_BINS
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_confusion", "draw_label_confusions", "draw_reliability"]


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
    figure = make_figure(side, side)
    axis = figure.add_axes((0, 0, 1, 1))
    numbers = font if cell > 0.45 else 0
    image = _draw_matrix(axis, matrix, numbers)
    labels = [wrap(name, 1.6, font, 2) for name in names]
    is_wide = max(text_width(label, font) for label in labels) > 0.9 * cell
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_wide else {}
    axis.set_xticks(range(len(names)), labels, fontsize=font, parse_math=False, **turned)
    axis.set_yticks(range(len(names)), labels, fontsize=font, parse_math=False)
    axis.set_xlabel("predicted class", fontsize=SIZE + 1)
    axis.set_ylabel("true class", fontsize=SIZE + 1)
    draw_bar(figure, image, side + 0.12, 0, side, "share of true class")
    save(figure, path)


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
    figure = make_figure(pitch[0] * columns, pitch[1] * rows)
    for index, (matrix, name) in enumerate(zip(matrices, names)):
        row, column = divmod(index, columns)
        axis = add_axes(figure, column * pitch[0], row * pitch[1], side, side)
        _draw_matrix(axis, matrix, SIZE)
        axis.set_title(wrap(name, pitch[0] - GAP, SIZE, 2), fontsize=SIZE, parse_math=False, pad=3)
        axis.set_xticks([0, 1], ["no", "yes"], fontsize=SIZE)
        axis.set_yticks([0, 1], ["no", "yes"], fontsize=SIZE)
        axis.tick_params(length=2, pad=2)
        if index + columns >= len(names):
            axis.set_xlabel("predicted", fontsize=SIZE)
        if column == 0:
            axis.set_ylabel("true", fontsize=SIZE)
    save(figure, path)


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
    figure = make_figure(2.8, 3.7)
    upper = add_axes(figure, 0, 0, 2.8, 2.8)
    lower = add_axes(figure, 0, 2.9, 2.8, 0.8)
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
    save(figure, path)
