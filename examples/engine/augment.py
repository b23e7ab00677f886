"""Augmentation of images, masks and stacks: from the disk one by one, in memory a batch at a time, the same numbers."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from .config import Augment

__all__ = ["Geometry", "draw", "random_grid", "recolour", "sample", "stored_size"]

_DRAWS = 10
"""Random numbers that the augmentation of one image takes: six for the geometry, four for the colours."""


def stored_size(size: int, augment: Augment | None) -> int:
    """Size that images are read at: a quarter more than the input's where they are to be augmented."""
    return size if augment is None else size * 5 // 4


def draw(seed: int) -> Tensor:
    """The random numbers of one image, uniform."""
    return torch.rand(_DRAWS, generator=torch.Generator().manual_seed(seed))


class Geometry(v2.Transform):
    """One geometry for an image and its mask, or for the slices of a stack.

    Args:
        draws: uniform ``(6,)``.
        augment: its limits.
        size: height and width of the results.
    """

    def __init__(self, draws: Tensor, augment: Augment, size: int) -> None:
        super().__init__()
        self.grid = random_grid(draws.unsqueeze(0), augment, size)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Tensor:
        """float32; masks stay 0 and 1, images go from [0, 255] to [0, 1]."""
        x = inpt.as_subclass(Tensor).float()
        if isinstance(inpt, tv_tensors.Mask):
            return sample(x.unsqueeze(0), self.grid, mode="nearest")[0]
        images = x.unflatten(0, (-1, 3)) if x.ndim == 3 else x
        return sample(images / 255, self.grid.expand(len(images), -1, -1, -1)).view(
            *x.shape[:-2], *self.grid.shape[1:3]
        )


def random_grid(draws: Tensor, augment: Augment, size: int) -> Tensor:
    """Sampling grid: a part of the frame, stretched, rotated, mirrored, shifted; ``draws`` is uniform ``(B, 6)``."""
    low, high = augment.scale
    scale = low + (high - low) * draws[:, 0]
    stretch = 1 + augment.stretch * (2 * draws[:, 1] - 1)
    turn = draws[:, 2] if augment.rotate else (4 * draws[:, 2]).floor() / 4
    angle = 2 * math.pi * turn
    mirror = torch.where(draws[:, 3] < 0.5, -1.0, 1.0)
    shift = augment.shift * (2 * draws[:, 4:6] - 1)
    across, down = scale * stretch, scale / stretch
    theta = torch.stack(
        [
            torch.stack([across * mirror * angle.cos(), -across * angle.sin(), shift[:, 0]], dim=1),
            torch.stack([down * mirror * angle.sin(), down * angle.cos(), shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    return F.affine_grid(theta, [len(draws), 1, size, size], align_corners=False)


def sample(images: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Images seen through a grid; beyond their frame they are mirrored."""
    return F.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)


def recolour(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Contrast and colour balance; ``draws`` is uniform ``(B, 4)``."""
    spread = strength * (2 * draws - 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    contrast = (1 + spread[:, :1]).view(-1, 1, 1, 1)
    balance = (1 + 0.5 * spread[:, 1:]).view(-1, 3, 1, 1)
    return (((images - mean) * contrast + mean) * balance).clamp(0, 1)
