"""What the scripts share: preprocessing, prediction, the measures, and the three paths to the head."""

from typing import Any

import torch
from torch import Tensor, nn


def stored_size(cfg: dict[str, Any]) -> int:
    """Short side to load images with, so that a centre crop of the network's input size is timm's evaluation crop."""
    return int(cfg["input_size"][-1] / cfg["crop_pct"])


def normalize(images: Tensor, cfg: dict[str, Any]) -> Tensor:
    """Images in [0, 1] to the network's input."""
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def centre_crop(images: Tensor, size: int) -> Tensor:
    """The middle ``size`` x ``size`` pixels."""
    top, left = (images.shape[2] - size) // 2, (images.shape[3] - size) // 2
    return images[:, :, top : top + size, left : left + size]


@torch.inference_mode()
def head_inputs(model: nn.Module, images: Tensor, cfg: dict[str, Any], batch_size: int = 64) -> Tensor:
    """Pooled features ``(N, num_features)`` of uint8 images: r4, p4 and P side by side, what the head averages to."""
    model.eval()
    pooled = []
    for batch in images.split(batch_size):
        x = normalize(centre_crop(batch, cfg["input_size"][-1]) / 255, cfg)
        pooled.append(model.forward_features(x).mean((2, 3)))  # type: ignore[operator]
    return torch.cat(pooled)


@torch.inference_mode()
def logits_of(model: nn.Module, pooled: Tensor) -> Tensor:
    """Logits for pooled features: the head's average of a 1x1 map is that map."""
    model.eval()
    logits: Tensor = model.forward_head(pooled[:, :, None, None])  # type: ignore[operator]
    return logits


def recalls(logits: Tensor, labels: Tensor) -> dict[int, float]:
    """Share of each class's images that are recognised, for the classes present."""
    right = (logits.argmax(1) == labels).float()
    return {int(label): right[labels == label].mean().item() for label in labels.unique()}


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Mean of the recalls over the classes present; chance is one over their number."""
    values = recalls(logits, labels).values()
    return sum(values) / len(values) if values else float("nan")


def balanced_log_loss(logits: Tensor, labels: Tensor) -> float:
    """Mean over the classes present of each one's mean cross-entropy; it moves before any decision does."""
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    return torch.stack([losses[labels == label].mean() for label in labels.unique()]).mean().item()


def path_slices(model: nn.Module) -> dict[str, slice]:
    """Channels of the CNN map r4, the transformer map p4 and the pooled pyramid P in the head's input."""
    encoder: Any = model.encoder
    r4 = encoder.cnn_chans[-1]
    p4 = r4 + encoder.transformer_chans[-1]
    return {"r4": slice(0, r4), "p4": slice(r4, p4), "P": slice(p4, None)}


@torch.inference_mode()
def dice_of(model: nn.Module, images: Tensor, masks: Tensor, cfg: dict[str, Any], batch_size: int = 64) -> Tensor:
    """Dice of each image ``(N,)``: uint8 images of the network's input size against masks of any size.

    The predicted logits are resized to the masks, and positive ones are foreground.
    """
    model.eval()
    values = []
    for batch, truth in zip(images.split(batch_size), masks.split(batch_size)):
        logits = mask_logits(model, normalize(batch / 255, cfg))
        values.append(dice(nn.functional.interpolate(logits, size=truth.shape[2:], mode="bilinear") > 0, truth > 0))
    return torch.cat(values)


def mask_logits(model: nn.Module, x: Tensor) -> Tensor:
    """Logits of the masks, of a network of both tasks without those of the classes."""
    forward: Any = getattr(model, "forward_masks", model)
    logits: Tensor = forward(x)
    return logits


def dice(predicted: Tensor, truth: Tensor) -> Tensor:
    """Dice of each pair of bool masks ``(N, 1, H, W)``: twice what they share over what both cover; 1 for two empty."""
    shared = (predicted & truth).sum((1, 2, 3)).float()
    both = predicted.sum((1, 2, 3)).float() + truth.sum((1, 2, 3))
    return torch.where(both > 0, 2 * shared / both, 1.0)


def mean_mask_dice(train_masks: Tensor, masks: Tensor) -> Tensor:
    """Dice of each image for one fixed mask: the mean training mask, cut where it does best on the training masks."""
    mean = train_masks.float().mean(0, keepdim=True)
    cuts = [cut / 20 for cut in range(2, 19)]
    best = max(cuts, key=lambda cut: dice((mean > cut).expand_as(train_masks), train_masks > 0).mean().item())
    return dice((mean > best).expand_as(masks), masks > 0)
