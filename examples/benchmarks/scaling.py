"""The time of ``mfsf2_cls`` and of its backbones against the size of the image and the number of images."""

from typing import Any

import torch

import mfsf2

from .classification import NAME, SIZE, Backbones, images
from .timing import rounds_of

__all__ = ["scaling"]

SIZES = (128, 192, 256, 320, 384, 448, 512)
BATCHES = (1, 2, 4, 8, 16, 32)


def scaling(rounds: int) -> dict[str, dict[int, dict[str, list[float]]]]:
    """Milliseconds of every round: by size at batch 1, and by batch at 224 pixels."""
    model, backbones = mfsf2.create_model(NAME).eval(), Backbones().eval()

    def at(batch: int, size: int) -> dict[str, list[float]]:
        x = images(batch, "contiguous", size)
        functions: dict[str, Any] = dict(mfsf2=lambda: model(x), backbones=lambda: backbones(x))
        return rounds_of(functions, rounds, 0)

    with torch.no_grad():
        return {
            "size": {size: at(1, size) for size in SIZES},
            "batch": {batch: at(batch, SIZE) for batch in BATCHES},
        }
