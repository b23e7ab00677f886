"""Metrics of classes and masks, with intervals over groups; calibration."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "auc",
    "bootstrap",
    "calibration",
    "classification_metrics",
    "confusion",
    "dice_and_iou",
    "fit_temperature",
    "flatten",
    "mean_dice",
    "per_class",
    "reliability",
    "sensitivity_at",
    "summary",
]

SPECIFICITIES = (0.90, 0.95)
ECE_BINS = 15
SUMMARY = ("accuracy", "exact_match", "balanced_accuracy", "mean_sensitivity", "macro_f1", "auc")


def summary(probabilities: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Means over the classes for which they are defined; None where there is none.

    Exclusive classes: accuracy, balanced accuracy, macro F1 and macro AUC. Several at once, at a threshold of 0.5:
    exact match, mean sensitivity, macro F1, macro AUC.

    Args:
        probabilities: ``(N, classes)``.
        labels: class indices ``(N,)``, or 0 and 1 ``(N, classes)``.
    """
    table = [row for row in per_class(probabilities, labels) if row["images"]]
    if labels.ndim == 1:
        first, right = "accuracy", probabilities.argmax(1) == labels
        names = {"balanced_accuracy": "sensitivity", "macro_f1": "f1", "auc": "auc"}
    else:
        first, right = "exact_match", ((probabilities > 0.5) == (labels > 0.5)).all(1)
        names = {"mean_sensitivity": "sensitivity", "macro_f1": "f1", "auc": "auc"}
    return {first: right.float().mean().item()} | {
        name: _mean([row[key] for row in table]) for name, key in names.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return sum(defined) / len(defined) if defined else None


def per_class(probabilities: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """Images, sensitivity, specificity, precision, F1 and AUC of each class; None where it is not defined."""
    rows = []
    predicted_classes = probabilities.argmax(1)
    for index in range(probabilities.shape[1]):
        truth = labels == index if labels.ndim == 1 else labels[:, index] > 0.5
        said = predicted_classes == index if labels.ndim == 1 else probabilities[:, index] > 0.5
        hit, actual, predicted = int((truth & said).sum()), int(truth.sum()), int(said.sum())
        others = len(truth) - actual
        rows.append(
            {
                "images": actual,
                "sensitivity": _ratio(hit, actual),
                "specificity": _ratio(others - (predicted - hit), others),
                "precision": _ratio(hit, predicted),
                "f1": _ratio(2 * hit, actual + predicted),
                "auc": auc(probabilities[:, index], truth),
            }
        )
    return rows


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def auc(scores: Tensor, truth: Tensor) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative, ties by half; None without either.

    In double precision, unlike the curve's sum in single precision, which leaves 0.9999999 of a perfect order.
    """
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts.double() - 1) / 2)[place]
    return ((ranks[truth.bool()].sum() - positives * (positives + 1) / 2) / (positives * negatives)).item()


def confusion(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Images by true class (rows) and predicted class (columns)."""
    classes = probabilities.shape[1]
    return (labels * classes + probabilities.argmax(1)).bincount(minlength=classes**2).view(classes, classes)


def dice_and_iou(predicted: Tensor, truth: Tensor, classes: int, ignore: int | None = None) -> tuple[Tensor, Tensor]:
    """Dice and intersection over union of each image and foreground, ``(B, foregrounds)``.

    Where both masks are empty, they are 1 for the one foreground, and NaN for one of several.

    Args:
        predicted, truth: class indices ``(B, H, W)``.
        classes: channels of the mask logits; 1 for one foreground.
        ignore: value of true pixels that do not count.
    """
    valid = torch.ones_like(truth, dtype=torch.bool) if ignore is None else truth != ignore
    dices, ious = [], []
    for index in range(1, max(2, classes)):
        a, b = (predicted == index) & valid, (truth == index) & valid
        shared = (a & b).sum((1, 2)).float()
        both = a.sum((1, 2)).float() + b.sum((1, 2))
        of_empty = torch.where(both == 0, 1.0 if classes == 1 else math.nan, 0.0)
        dices.append(torch.where(both == 0, of_empty, 2 * shared / both))
        ious.append(torch.where(both == 0, of_empty, shared / (both - shared)))
    return torch.stack(dices, 1), torch.stack(ious, 1)


def mean_dice(values: Tensor) -> float:
    """Mean over images, then over foregrounds, of ``(N, foregrounds)``; NaN counts in neither."""
    return values.nanmean(0).nanmean().item()


def sensitivity_at(probabilities: Tensor, labels: Tensor, index: int) -> dict[str, float]:
    """Sensitivity for one class at fixed specificities; the threshold is that of these very images."""
    from torchmetrics.functional.classification import binary_sensitivity_at_specificity

    is_class = (labels == index if labels.ndim == 1 else labels[:, index]).long()
    if not 0 < int(is_class.sum()) < len(labels):
        return {}
    return {
        f"sensitivity_at_{specificity:.0%}_specificity": binary_sensitivity_at_specificity(
            probabilities[:, index], is_class, specificity
        )[0].item()
        for specificity in SPECIFICITIES
    }


def log_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of exclusive classes, or the binary one where several may hold."""
    return (
        F.cross_entropy(logits, labels)
        if labels.ndim == 1
        else F.binary_cross_entropy_with_logits(logits, labels.to(logits))
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that the logits are to be divided by for the least log loss on these images."""
    log_temperature = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = log_loss(logits / log_temperature.exp(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    # A set that is separated would be served by ever smaller temperatures.
    return float(log_temperature.detach().clamp(-3, 3).exp())


def calibration(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """Calibration errors and log loss, as they are and with the temperature.

    The expected calibration error looks at the largest probability of each image alone; the class-wise one at every
    class's probability, and is the mean over the classes. Where several classes may hold, there is the second alone.
    """
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    metrics = {}
    for name, scaled in (("", logits), ("_with_temperature", logits / temperature)):
        classes = logits.shape[1]
        probabilities = scaled.softmax(1) if labels.ndim == 1 else scaled.sigmoid()
        if labels.ndim == 1:
            metrics[f"ece{name}"] = multiclass_calibration_error(probabilities, labels, classes, ECE_BINS).item()
        truths = [labels == index if labels.ndim == 1 else labels[:, index] for index in range(classes)]
        by_class = [
            binary_calibration_error(probabilities[:, index].contiguous(), truth.long(), ECE_BINS).item()
            for index, truth in enumerate(truths)
        ]
        metrics[f"classwise_ece{name}"] = sum(by_class) / classes
        metrics[f"log_loss{name}"] = log_loss(scaled, labels).item()
    return metrics


def reliability(probabilities: Tensor, labels: Tensor) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of each bin of confidence that is not empty.

    Of exclusive classes, confidence is the largest probability of an image, and accuracy whether that class is right.
    Of several at once, every class of every image counts: its probability, and whether it holds.
    """
    if labels.ndim == 1:
        confidence, predicted = probabilities.max(1)
        right = (predicted == labels).float()
    else:
        confidence, right = probabilities.flatten(), labels.flatten().float()
    bins = (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1)
    return [
        (confidence[bins == b].mean().item(), right[bins == b].mean().item(), int((bins == b).sum()))
        for b in bins.unique().tolist()
    ]


def classification_metrics(logits: Tensor, labels: Tensor, names: Sequence[str], temperature: float) -> dict[str, Any]:
    """All of the above, of class indices ``(N,)`` or 0 and 1 ``(N, classes)``."""
    probabilities = logits.softmax(1) if labels.ndim == 1 else logits.sigmoid()
    metrics: dict[str, Any] = summary(probabilities, labels)
    metrics["temperature"] = temperature
    metrics |= calibration(logits, labels, temperature)
    metrics["per_class"] = dict(zip(names, per_class(probabilities, labels)))
    melanoma = next((index for index, name in enumerate(names) if name.lower() in ("mel", "melanoma")), None)
    if melanoma is not None:
        metrics["melanoma"] = sensitivity_at(probabilities, labels, melanoma)
    return metrics


def flatten(metrics: dict[str, Any]) -> dict[str, float]:
    """Metrics under one name each, those of a class after the class's name; what is not defined is left out.

    So are calibration errors: drawing images again makes them larger, so that no interval comes of it.
    """
    flat = {name: metrics[name] for name in SUMMARY if name in metrics}
    for label, row in [*metrics["per_class"].items(), ("melanoma", metrics.get("melanoma", {}))]:
        flat |= {f"{label} {name}": value for name, value in row.items() if name != "images"}
    return {name: value for name, value in flat.items() if value is not None}


def bootstrap(
    measure: Callable[[Tensor], dict[str, float]], groups: Sequence[str], n_bootstrap: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of metrics, over samples of groups with replacement.

    Args:
        measure: metrics of the images at some positions.
        groups: each image's group.
        n_bootstrap: number of samples.
        seed: of the draws.
    """
    names = sorted(set(groups))
    numbers = {name: number for number, name in enumerate(names)}
    positions: list[list[int]] = [[] for _ in names]
    for position, group in enumerate(groups):
        positions[numbers[group]].append(position)
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, list[float]] = {}
    for _ in range(n_bootstrap):
        drawn = torch.randint(len(names), (len(names),), generator=generator).tolist()
        chosen = torch.tensor([position for number in drawn for position in positions[number]])
        for name, value in measure(chosen).items():
            values.setdefault(name, []).append(value)
    quantiles = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return {
        name: tuple(torch.tensor(column, dtype=torch.float64).nanquantile(quantiles).tolist())
        for name, column in values.items()
    }
