"""Losses of classes and of masks."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from data import class_weights
from datasets.masks import IGNORE
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Loss", "ModelWithLoss", "log_class_prior"]


@dataclass
class Loss:
    """Losses.

    Attributes:
        balance: against unequal classes: draw them equally often (``sampling``), weigh them (``loss``), add the
            logarithm of their frequencies to the logits while training (``logits``), or nothing.
        smoothing: label smoothing.
        mask_weight: weight of the masks' loss where there are classes too.
        deep: weight of the coarser logit maps together, beside 1 of the finest.
    """

    balance: Literal["none", "sampling", "loss", "logits"] = "sampling"
    smoothing: float = 0.0
    mask_weight: float = 1.0
    deep: float = 1.0


def log_class_prior(counts: Tensor, images: int | None = None) -> Tensor:
    """Logarithms of the classes' frequencies or, where several may hold among ``images``, of their odds.

    Logits that fit the images with these added fit equally frequent classes without them (Menon et al., "Long-tail
    learning via logit adjustment", 2021).
    """
    counts = counts.float().clamp(min=1)
    return (counts / counts.sum()).log() if images is None else (counts / (images - counts).clamp(min=1)).log()


class ModelWithLoss(nn.Module):
    """A model with its loss, so that the two are one module for several processes.

    Exclusive classes: cross-entropy; several at once: binary cross-entropy. Masks: Dice (MONAI's) and cross-entropy of
    the finest logit map, and of the coarser ones, resized to the masks, as deep supervision; pixels without a class
    count in neither.

    Args:
        model: what is trained.
        loss: the settings.
        counts: training images of each class; None without classes.
        images: number of training images, where several classes may hold; else None.
    """

    weight: Tensor | None
    prior: Tensor | None

    def __init__(self, model: nn.Module, loss: Loss, counts: Tensor | None = None, images: int | None = None) -> None:
        from monai.losses import DiceLoss

        super().__init__()
        self.model = model
        self.loss = loss
        self.multi_label = images is not None
        weight = prior = None
        if counts is not None and loss.balance == "loss":
            weight = class_weights(counts) if images is None else (images - counts) / counts.clamp(min=1)
        if counts is not None and loss.balance == "logits":
            prior = log_class_prior(counts, images)
        self.register_buffer("weight", weight)
        self.register_buffer("prior", prior)
        self.dice = DiceLoss()

    def forward(self, batch: dict[str, Tensor], targets: Tensor | None) -> Tensor:
        """The loss on a batch of normalized images.

        Args:
            batch: ``image`` and, where there are any, ``stack`` and ``mask``; of images that are mixed, ``other_mask``
                and ``share``, how much the first mask counts.
            targets: class indices, probabilities of mixed images, or 0 and 1 for each class; None without classes.
        """
        model: Any = self.model
        inputs = [batch[name] for name in ("image", "stack") if name in batch]
        if "mask" not in batch:
            return self.class_loss(model(*inputs), targets)
        logits, deep = model.forward_deep(*inputs)
        masks = self.mask_loss(deep, batch["mask"])
        if "other_mask" in batch:
            masks = batch["share"] * masks + (1 - batch["share"]) * self.mask_loss(deep, batch["other_mask"])
        return masks if logits is None else self.class_loss(logits, targets) + self.loss.mask_weight * masks

    def class_loss(self, logits: Tensor, targets: Any) -> Tensor:
        logits = logits.float() if self.prior is None else logits.float() + self.prior
        smoothing = self.loss.smoothing
        if self.multi_label:
            targets = targets * (1 - smoothing) + 0.5 * smoothing
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weight)
        return F.cross_entropy(logits, targets, self.weight, label_smoothing=smoothing)

    def mask_loss(self, deep: list[Tensor], masks: Tensor) -> Tensor:
        losses = [
            self.dice_and_entropy(F.interpolate(logits.float(), size=masks.shape[2:], mode="bilinear"), masks)
            for logits in deep
        ]
        return losses[-1] + self.loss.deep * torch.stack(losses[:-1]).mean()

    def dice_and_entropy(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Of logits ``(B, classes, H, W)`` and masks ``(B, 1, H, W)``."""
        valid = (masks != IGNORE).float()
        classes = logits.shape[1]
        number = valid.sum().clamp(min=1)
        if classes == 1:
            truth, probabilities = masks * valid, logits.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(logits, truth, valid, reduction="sum") / number
        else:
            indices = masks[:, 0].long()
            entropy = F.cross_entropy(logits, indices, ignore_index=IGNORE, reduction="sum") / number
            truth = F.one_hot(indices * (indices != IGNORE), classes).movedim(-1, 1) * valid
            probabilities = logits.softmax(1)
        return self.dice(probabilities * valid, truth) + entropy
