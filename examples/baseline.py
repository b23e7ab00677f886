"""What masks are worth that look at no image: one fixed mask for all."""

from collections.abc import Sequence

import torch
from data import read_mask
from datasets import MaskFormat, Sample
from datasets.masks import IGNORE
from metrics import dice_and_iou
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fixed_mask_dice"]

GRID = 96


def fixed_mask_dice(train: Sequence[Sample], samples: Sequence[Sample], mask_format: MaskFormat) -> float:
    """Mean Dice per image of one mask: the mean training mask, cut where it does best on the training images.

    The mean is taken on a grid of 96 x 96; the Dice on each mask's own grid. For masks of one foreground.
    """
    masks = torch.stack([_squeeze(read_mask(sample, mask_format)) for sample in train])
    mean = (masks == 1).float().mean(0, keepdim=True)
    cuts = [cut / 20 for cut in range(2, 19)]
    best = max(cuts, key=lambda cut: dice_and_iou((mean > cut).expand_as(masks), masks, 1, IGNORE)[0].mean().item())
    return sum(_dice(mean - best, sample, mask_format) for sample in samples) / len(samples)


def _squeeze(mask: Tensor) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode, functional

    return functional.resize(mask, [GRID, GRID], interpolation=InterpolationMode.NEAREST)[0]


def _dice(fixed: Tensor, sample: Sample, mask_format: MaskFormat) -> float:
    truth = read_mask(sample, mask_format)
    predicted = F.interpolate(fixed[None], size=truth.shape[1:], mode="bilinear")[0] > 0
    return dice_and_iou(predicted, truth, 1, IGNORE)[0].item()
