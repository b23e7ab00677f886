"""Augmentation of whole batches of images, cheap enough for a CPU.

Neither dermatoscopic nor endoscopic images have an upright position, so any angle will do. All of the geometry is one
affine map from the output's pixels to the image's, sampled once.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, size: int) -> Tensor:
    """Random square crop, rotation, mirroring and colour: uint8 images to ``(B, 3, size, size)`` in [0, 1]."""
    n, _, height, width = images.shape
    side = height * torch.empty(n).uniform_(0.65, 1.05)
    return _recolour(_sample(images, _random_grid(side, side, width, height, size)))


def augment_with_masks(images: Tensor, masks: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The same, but of the whole frame squeezed to a square: ``(B, 3, size, size)`` and ``(B, 1, size, size)``.

    Masks may have another number of pixels than the images: they show the same frame.
    """
    n, _, height, width = images.shape
    scale = torch.empty(n).uniform_(0.75, 1.1)
    grid = _random_grid(scale * width, scale * height, width, height, size)
    return _recolour(_sample(images, grid)), _sample(masks, grid, mode="nearest", maximum=1)


def _random_grid(part_width: Tensor, part_height: Tensor, width: int, height: int, size: int) -> Tensor:
    """Sampling grid for a part of an image of ``width`` x ``height``, stretched, rotated, mirrored and shifted."""
    n = len(part_width)
    stretch = torch.empty(n).uniform_(0.92, 1.08)
    angle = torch.empty(n).uniform_(-math.pi, math.pi)
    mirror = torch.randint(0, 2, (n,)) * 2 - 1
    shift = torch.empty(2, n).uniform_(-0.15, 0.15)
    across, down = part_width * mirror, part_height
    theta = torch.stack(
        [
            torch.stack([stretch * across * angle.cos() / width, -stretch * down * angle.sin() / width, shift[0]], 1),
            torch.stack([across * angle.sin() / stretch / height, down * angle.cos() / stretch / height, shift[1]], 1),
        ],
        dim=1,
    )
    return F.affine_grid(theta, [n, 1, size, size], align_corners=False)


def _sample(images: Tensor, grid: Tensor, mode: str = "bilinear", maximum: float = 255) -> Tensor:
    return F.grid_sample(images / maximum, grid, mode=mode, padding_mode="reflection", align_corners=False)


def _recolour(x: Tensor) -> Tensor:
    """Random contrast and colour balance."""
    n = len(x)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * torch.empty(n, 1, 1, 1).uniform_(0.8, 1.2) + mean
    return (x * torch.empty(n, 3, 1, 1).uniform_(0.9, 1.1)).clamp(0, 1)
