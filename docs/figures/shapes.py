"""The table of shapes in docs/how_it_works.md, from the models themselves.

python docs/figures/shapes.py
"""

from typing import Any

import torch
from pages import SIZES, markdown, put
from torch import Tensor

import mfsf2

__all__ = ["PAGE", "TABLE", "shapes_table"]

PAGE, TABLE = "how_it_works.md", "shapes"
IMAGE = 224
TIMES = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"


def shapes_table() -> str:
    """A row for each map: its grid for an image of 224 x 224 pixels, and its channels in each size.

    Raises:
        ValueError: the sizes differ in a grid, which has only one column.
    """
    columns = [maps_of(f"{size}_cls") for size in SIZES]
    rows = []
    for name in columns[0]:
        shapes = [column[name].shape[1:] for column in columns]
        grids = {f"{height}{TIMES}{width}" for _, height, width in shapes}
        if len(grids) > 1:
            raise ValueError(f"{name} has the grids {sorted(grids)}: give each size a column of its own")
        rows.append([name, *grids, *(channels for channels, _, _ in shapes)])
    return markdown(["map", "grid", *(f"channels, `{size}_*`" for size in SIZES)], rows)


@torch.no_grad()
def maps_of(model: str) -> dict[str, Tensor]:
    """r_1..r_4, p_1..p_4, F_1..F_4 and P, by name."""
    # Without memory: only shapes are computed.
    encoder: Any = mfsf2.create_model(model, device="meta").eval().encoder
    r, p = encoder(torch.empty(1, 3, IMAGE, IMAGE, device="meta"))
    fused, pyramid = encoder.fusion(r, p, pooled=False)
    names = [f"{letter}{stage}" for letter in "rpF" for stage in "₁₂₃₄"]
    return dict(zip([*names, "P"], [*r, *p, *fused, pyramid], strict=True))


if __name__ == "__main__":
    put(PAGE, TABLE, shapes_table())
