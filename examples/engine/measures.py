"""Measures of a classification, with intervals over lesions; calibration."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_calibration_error,
    binary_sensitivity_at_specificity,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

__all__ = [
    "bootstrap",
    "classification_measures",
    "fit_temperature",
    "flatten",
    "per_class",
    "sensitivity_at",
    "summary",
]

SPECIFICITIES = (0.90, 0.95)
ECE_BINS = 15


def summary(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1 and macro AUC over the classes that are present."""
    table = per_class(probabilities, labels)
    present = [row for row in table if row["images"]]
    measures = {"accuracy": (probabilities.argmax(1) == labels).float().mean().item()}
    for name, key in (("balanced_accuracy", "sensitivity"), ("macro_f1", "f1"), ("auc", "auc")):
        values = [row[key] for row in present if row[key] is not None]
        measures[name] = sum(values) / len(values) if values else float("nan")
    return measures


def per_class(probabilities: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """Images, sensitivity, specificity, precision, F1 and AUC of each class; None where it is not defined."""
    matrix = confusion(probabilities, labels).double()
    rows = []
    for index in range(len(matrix)):
        hit, actual, predicted = matrix[index, index], matrix[index].sum(), matrix[:, index].sum()
        others = matrix.sum() - actual
        is_class = (labels == index).long()
        both = 0 < int(actual) < len(labels)
        rows.append(
            {
                "images": int(actual),
                "sensitivity": _ratio(hit, actual),
                "specificity": _ratio(others - (predicted - hit), others),
                "precision": _ratio(hit, predicted),
                "f1": _ratio(2 * hit, actual + predicted),
                "auc": binary_auroc(probabilities[:, index], is_class).item() if both else None,
            }
        )
    return rows


def _ratio(part: Tensor, whole: Tensor) -> float | None:
    return (part / whole).item() if whole else None


def confusion(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Images by true class (rows) and predicted class (columns)."""
    return multiclass_confusion_matrix(probabilities.argmax(1), labels, probabilities.shape[1])


def sensitivity_at(probabilities: Tensor, labels: Tensor, index: int) -> dict[str, float]:
    """Sensitivity for one class at fixed specificities; the threshold is that of these very images."""
    is_class = (labels == index).long()
    if not 0 < int(is_class.sum()) < len(labels):
        return {}
    return {
        f"sensitivity_at_{specificity:.0%}_specificity": binary_sensitivity_at_specificity(
            probabilities[:, index], is_class, specificity
        )[0].item()
        for specificity in SPECIFICITIES
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that the logits are to be divided by for the least log loss on these images."""
    log_temperature = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / log_temperature.exp(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    # A set that is separated would be served by ever smaller temperatures.
    return float(log_temperature.detach().clamp(-3, 3).exp())


def calibration(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """Calibration errors and log loss, as they are and with the temperature.

    The expected calibration error looks at the largest probability of each image alone; the class-wise one at every
    class's probability, and is the mean over the classes.
    """
    measures = {}
    for name, scaled in (("", logits), ("_with_temperature", logits / temperature)):
        probabilities = scaled.softmax(1)
        classes = probabilities.shape[1]
        measures[f"ece{name}"] = multiclass_calibration_error(probabilities, labels, classes, ECE_BINS).item()
        by_class = [
            binary_calibration_error(probabilities[:, index].contiguous(), (labels == index).long(), ECE_BINS).item()
            for index in range(classes)
        ]
        measures[f"classwise_ece{name}"] = sum(by_class) / classes
        measures[f"log_loss{name}"] = F.cross_entropy(scaled, labels).item()
    return measures


def reliability(probabilities: Tensor, labels: Tensor) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and images of each bin of confidence that is not empty."""
    confidence, predicted = probabilities.max(1)
    bins = (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1)
    right = (predicted == labels).float()
    return [
        (confidence[bins == b].mean().item(), right[bins == b].mean().item(), int((bins == b).sum()))
        for b in bins.unique().tolist()
    ]


def classification_measures(logits: Tensor, labels: Tensor, names: Sequence[str], temperature: float) -> dict[str, Any]:
    """All of the above."""
    probabilities = logits.softmax(1)
    measures: dict[str, Any] = summary(probabilities, labels)
    measures["temperature"] = temperature
    measures |= calibration(logits, labels, temperature)
    measures["per_class"] = dict(zip(names, per_class(probabilities, labels)))
    melanoma = next((index for index, name in enumerate(names) if name.lower() == "mel"), None)
    if melanoma is not None:
        measures["melanoma"] = sensitivity_at(probabilities, labels, melanoma)
    return measures


def flatten(measures: dict[str, Any]) -> dict[str, float]:
    """Measures under one name each, those of a class after the class's name; what is not defined is left out.

    So are calibration errors: drawing images again makes them larger, so that no interval comes of it.
    """
    flat = {name: measures[name] for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc")}
    for label, row in {**measures["per_class"], "melanoma": measures.get("melanoma", {})}.items():
        flat |= {f"{label} {name}": value for name, value in row.items() if name != "images"}
    return {name: value for name, value in flat.items() if value is not None}


def bootstrap(
    measure: Callable[[Tensor], dict[str, float]], groups: Sequence[str], rounds: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of measures, over samples of groups with replacement.

    Args:
        measure: measures of the images at some positions.
        groups: each image's group.
        rounds: samples.
    """
    names = sorted(set(groups))
    numbers = {name: number for number, name in enumerate(names)}
    positions: list[list[int]] = [[] for _ in names]
    for position, group in enumerate(groups):
        positions[numbers[group]].append(position)
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, list[float]] = {}
    for _ in range(rounds):
        drawn = torch.randint(len(names), (len(names),), generator=generator).tolist()
        chosen = torch.tensor([position for number in drawn for position in positions[number]])
        for name, value in measure(chosen).items():
            values.setdefault(name, []).append(value)
    quantiles = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return {
        name: tuple(torch.tensor(column, dtype=torch.float64).nanquantile(quantiles).tolist())
        for name, column in values.items()
    }
