"""Measures on the validation part: what chooses the best network of a run."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_recall

from .build import normalize
from .config import Config
from .data import DiskSamples, make_loader
from .memory import MemorySamples
from .network import outputs_of

__all__ = ["batches_of", "dice_and_iou", "score_of", "validate"]


def score_of(measures: dict[str, float]) -> float:
    """The mean of what is measured: balanced accuracy, Dice."""
    values = [measures[name] for name in ("balanced_accuracy", "dice") if name in measures]
    return sum(values) / len(values)


def dice_and_iou(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Dice and intersection over union of each pair of bool masks ``(B, 1, H, W)``; 1 for two empty ones."""
    shared = (predicted & truth).sum((1, 2, 3)).float()
    both = predicted.sum((1, 2, 3)).float() + truth.sum((1, 2, 3))
    empty = both == 0
    return torch.where(empty, 1.0, 2 * shared / both), torch.where(empty, 1.0, shared / (both - shared))


def batches_of(samples: DiskSamples | MemorySamples, batch_size: int, workers: int) -> Any:
    """All samples in order, nothing random."""
    keys = [[(i, 0) for i in part.tolist()] for part in torch.arange(len(samples)).split(batch_size)]
    if isinstance(samples, MemorySamples):
        return (samples.batch(part) for part in keys)
    return make_loader(samples, keys, workers)


@torch.inference_mode()
def validate(
    network: Any, samples: DiskSamples | MemorySamples, config: Config, device: torch.device
) -> dict[str, float]:
    """Balanced accuracy over the classes that are present, and mean Dice per image on the input's grid."""
    training = network.training
    network.eval()
    logits_seen, labels, dices = [], [], []
    for batch in batches_of(samples, config.optim.batch_size, config.data.workers):
        batch = {key: value.to(device) for key, value in batch.items()}
        inputs = [normalize(batch[name], network.pretrained_cfg) for name in ("image", "stack") if name in batch]
        logits, masks = outputs_of(network, *inputs)
        if logits is not None:
            logits_seen.append(logits.float().cpu())
            labels.append(batch["label"].cpu())
        if masks is not None:
            masks = F.interpolate(masks, size=batch["mask"].shape[2:], mode="bilinear")
            dices.append(dice_and_iou(masks > 0, batch["mask"] > 0.5)[0].cpu())
    network.train(training)
    measures = {}
    if logits_seen:
        predicted, truth = torch.cat(logits_seen), torch.cat(labels)
        recalls = multiclass_recall(predicted, truth, predicted.shape[1], average="none")
        measures["balanced_accuracy"] = recalls[truth.unique()].mean().item()
    if dices:
        measures["dice"] = torch.cat(dices).mean().item()
    return measures
