"""The time of ``mfsf2_cls`` and of its backbones against the size of the image and the number of images."""

from functools import partial

import torch
from torch import nn

import mfsf2

from .classification import NAME, SIZE, Backbones, images
from .timing import rounds_of

__all__ = ["scaling"]

SIZES = (128, 192, 256, 320, 384, 448, 512)
BATCHES = (1, 2, 4, 8, 16, 32)


def scaling(rounds: int) -> dict[str, dict[int, dict[str, list[float]]]]:
    """Milliseconds of every round: by size at batch 1, and by batch at 224 pixels."""
    model, backbones = mfsf2.create_model(NAME).eval(), Backbones().eval()

    with torch.no_grad():
        return {
            "size": {size: times_at(model, backbones, 1, size, rounds) for size in SIZES},
            "batch": {batch: times_at(model, backbones, batch, SIZE, rounds) for batch in BATCHES},
        }


def times_at(model: nn.Module, backbones: nn.Module, batch: int, size: int, rounds: int) -> dict[str, list[float]]:
    x = images(batch, "contiguous", size)
    return rounds_of({"mfsf2": partial(model, x), "backbones": partial(backbones, x)}, rounds)
