"""Augmentation of whole batches of dermatoscopic images, cheap enough for a CPU."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, size: int) -> Tensor:
    """Random crop, rotation, mirroring and colour for a whole batch: uint8 images to ``(B, 3, size, size)`` in [0, 1].

    Dermatoscopic images have no upright position, so any angle will do. All of the geometry is one affine map from the
    output's pixels to the image's, sampled once.
    """
    n, _, height, width = images.shape
    side = height * torch.empty(n).uniform_(0.65, 1.05)
    stretch = torch.empty(n).uniform_(0.92, 1.08)
    angle = torch.empty(n).uniform_(-math.pi, math.pi)
    mirror = torch.randint(0, 2, (n,)) * 2 - 1
    across, down = side * stretch, side / stretch
    shift = torch.empty(2, n).uniform_(-0.15, 0.15)
    theta = torch.stack(
        [
            torch.stack([across * mirror * angle.cos() / width, -across * angle.sin() / width, shift[0]], dim=1),
            torch.stack([down * mirror * angle.sin() / height, down * angle.cos() / height, shift[1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    x = F.grid_sample(images / 255, grid, padding_mode="reflection", align_corners=False)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * torch.empty(n, 1, 1, 1).uniform_(0.8, 1.2) + mean
    return (x * torch.empty(n, 3, 1, 1).uniform_(0.9, 1.1)).clamp(0, 1)
