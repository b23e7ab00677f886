"""The first 16 DCT filters of the table "top", as MFFE multiplies the pooled map by them.

python docs/figures/dct_filters.py
"""

from matplotlib.figure import Figure
from pages import FIGURES

from mfsf2 import dct_filter_bank, dct_frequencies

ROWS, COLUMNS = 2, 8


def draw() -> None:
    """Write dct_filters.png: one cell for each position of the grid, red for positive and blue for negative."""
    frequencies = dct_frequencies("top", ROWS * COLUMNS)
    bank = dct_filter_bank(frequencies)
    figure = Figure(figsize=(8, 2.5), layout="constrained")
    axes = figure.subplots(ROWS, COLUMNS)
    largest = float(bank.abs().max())
    for axis, (u, v), values in zip(axes.flat, frequencies, bank):
        image = axis.imshow(values.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
        axis.set_title(f"u = {u}, v = {v}", fontsize=8)
        axis.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, shrink=0.9, aspect=15).ax.tick_params(labelsize=7)
    figure.savefig(FIGURES / "dct_filters.png", dpi=160)


if __name__ == "__main__":
    draw()
