"""Losses of classes and of masks."""

from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.nn import functional as F

from .config import Config
from .data import Batch

__all__ = ["Learner", "class_weights", "log_frequencies"]


def class_weights(counts: Tensor) -> Tensor:
    """Weights inverse to the classes' frequencies, of mean 1 over the images."""
    counts = counts.float().clamp(min=1)
    return counts.sum() / (len(counts) * counts)


def log_frequencies(counts: Tensor) -> Tensor:
    """Logarithms of the classes' frequencies.

    Logits that fit the images with these added fit equally frequent classes without them (Menon et al., "Long-tail
    learning via logit adjustment", 2021).
    """
    counts = counts.float().clamp(min=1)
    return (counts / counts.sum()).log()


class Learner(nn.Module):
    """A network with its loss, so that the two are one module for several processes.

    Classes: cross-entropy. Masks: Dice and cross-entropy (MONAI's) of the finest logit map, and of the coarser ones,
    resized to the masks, as deep supervision.

    Args:
        network: what is trained.
        config: the training's.
        counts: training images of each class; None without classes.
    """

    weight: Tensor | None
    shift: Tensor | None

    def __init__(self, network: nn.Module, config: Config, counts: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self.config = config
        balance = config.loss.balance if counts is not None else "none"
        self.register_buffer("weight", class_weights(counts) if balance == "loss" else None)  # type: ignore[arg-type]
        self.register_buffer("shift", log_frequencies(counts) if balance == "logits" else None)  # type: ignore[arg-type]
        self.dice_and_entropy = DiceCELoss(sigmoid=True)

    def forward(self, batch: Batch, targets: Tensor | None) -> Tensor:
        """The loss on a batch of normalised images; ``targets`` are class indices or, mixed, probabilities."""
        network: Any = self.network
        inputs = [batch[name] for name in ("image", "stack") if name in batch]
        if not self.config.has_masks:
            return self.class_loss(network(*inputs), targets)
        logits, deep = network.forward_deep(*inputs)
        masks = self.mask_loss(deep, batch["mask"])
        return masks if logits is None else self.class_loss(logits, targets) + self.config.loss.mask_weight * masks

    def class_loss(self, logits: Tensor, targets: Any) -> Tensor:
        logits = logits.float() if self.shift is None else logits.float() + self.shift
        return F.cross_entropy(logits, targets, self.weight, label_smoothing=self.config.loss.smoothing)

    def mask_loss(self, deep: list[Tensor], masks: Tensor) -> Tensor:
        losses = [
            self.dice_and_entropy(F.interpolate(logits.float(), size=masks.shape[2:], mode="bilinear"), masks)
            for logits in deep
        ]
        return losses[-1] + self.config.loss.deep * torch.stack(losses[:-1]).mean()
