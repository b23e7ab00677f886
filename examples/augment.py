"""Augmentation of a batch, on the device that trains: one path for images from the disk and from memory.

Every number of an image's augmentation follows from its own seed, so that neither the batch it is in nor the process
that draws it changes anything.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Augment", "augment_batch", "random_grid", "stored_size"]

_DRAWS = 10
"""Random numbers that the augmentation of one image takes: six for the geometry, four for the colors."""


@dataclass
class Augment:
    """Augmentation of training images.

    Attributes:
        enabled: false for whole frames as they are.
        scale: smallest and largest part of the frame's sides that fills the input.
        rotate: rotate by any angle; else by quarter turns alone.
        stretch: largest stretch of one side against the other.
        shift: largest shift, in half frames.
        color: largest change of contrast; half of it of the color channels.
        mixup: parameter alpha of mixup; 0 for none.
        cutmix: parameter alpha of cutmix; 0 for none. With both, a coin decides for each batch.
    """

    enabled: bool = True
    scale: tuple[float, float] = (0.7, 1.1)
    rotate: bool = True
    stretch: float = 0.08
    shift: float = 0.15
    color: float = 0.2
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self) -> str:
        """The options that mix images, with their values; empty if none does."""
        return " and ".join(f"augment.{name}={value}" for name in ("mixup", "cutmix") if (value := getattr(self, name)))


def stored_size(size: int, augment: Augment | None) -> int:
    """Size that images are read at: a quarter more than the input's where they are to be augmented."""
    return size if augment is None or not augment.enabled else size * 5 // 4


def augment_batch(
    batch: dict[str, Tensor], seeds: Sequence[int], augment: Augment | None, size: int
) -> dict[str, Tensor]:
    """Images, masks and stacks of a batch as the model is to see them.

    Args:
        batch: ``image`` uint8 ``(B, 3, S, S)``; where there are any ``mask`` uint8 ``(B, 1, S, S)`` and ``stack`` uint8
            ``(B, slices, 3, S, S)``; other entries are kept.
        seeds: one for each image.
        augment: the limits; None for no augmentation.
        size: height and width of the results.

    Returns:
        Images and stacks float32 in [0, 1], masks float32.
    """
    batch = {key: value.float() / 255 if key in ("image", "stack") else value for key, value in batch.items()}
    if "mask" in batch:
        batch["mask"] = batch["mask"].float()
    if augment is None or not augment.enabled:
        return batch
    draws = torch.stack([_draw(seed) for seed in seeds]).to(batch["image"].device)
    grid = random_grid(draws[:, :6], augment, size)
    batch["image"] = recolor(_sample(batch["image"], grid), draws[:, 6:], augment.color)
    if "mask" in batch:
        batch["mask"] = _sample(batch["mask"], grid, mode="nearest")
    if "stack" in batch:
        # The same numbers in another order: a geometry of its own, one for all slices of a stack.
        number = batch["stack"].shape[1]
        grid = random_grid(draws.flip(1)[:, :6], augment, size).repeat_interleave(number, 0)
        batch["stack"] = _sample(batch["stack"].flatten(0, 1), grid).unflatten(0, (-1, number))
    return batch


def _draw(seed: int) -> Tensor:
    """The random numbers of one image, uniform."""
    return torch.rand(_DRAWS, generator=torch.Generator().manual_seed(seed))


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


def _sample(images: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Images seen through a grid; beyond their frame they are mirrored."""
    return F.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)


def recolor(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Contrast and color balance; ``draws`` is uniform ``(B, 4)``."""
    spread = strength * (2 * draws - 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    contrast = (1 + spread[:, :1]).view(-1, 1, 1, 1)
    balance = (1 + 0.5 * spread[:, 1:]).view(-1, 3, 1, 1)
    return (((images - mean) * contrast + mean) * balance).clamp(0, 1)
