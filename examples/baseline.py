"""What masks are worth that look at no image: one fixed mask for all."""

from collections.abc import Sequence

import torch
from readers import Record
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from .data import read_mask
from .validation import dice_and_iou

__all__ = ["fixed_mask_dice"]

GRID = 96


def fixed_mask_dice(train: Sequence[Record], records: Sequence[Record]) -> float:
    """Mean Dice per image of one mask: the mean training mask, cut where it does best on the training images.

    The mean is taken on a grid of 96 x 96; the Dice on each mask's own grid.
    """
    masks = torch.stack([_squeeze(read_mask(record.mask)) for record in train]) > 0
    mean = masks.float().mean(0, keepdim=True)
    cuts = [cut / 20 for cut in range(2, 19)]
    best = max(cuts, key=lambda cut: dice_and_iou((mean > cut).expand_as(masks), masks)[0].mean().item())
    return sum(_dice(mean - best, record) for record in records) / len(records)


def _squeeze(mask: Tensor) -> Tensor:
    return v2.functional.resize(mask, [GRID, GRID], interpolation=v2.InterpolationMode.NEAREST)


def _dice(fixed: Tensor, record: Record) -> float:
    truth = read_mask(record.mask).unsqueeze(0) > 0
    predicted = F.interpolate(fixed, size=truth.shape[2:], mode="bilinear") > 0
    return dice_and_iou(predicted, truth)[0].item()
