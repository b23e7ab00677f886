"""What ``evaluate.py`` writes and prints."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from data import targets_of
from datasets import Dataset, Sample
from files import OutputFolder, to_json
from inference import Prediction
from metrics import confusion, flatten, reliability

__all__ = ["FIGURES", "FILES", "write_report"]

FILES = ("results.json", "predictions.csv")
FIGURES = tuple(f"{name}.{kind}" for name in ("confusion", "reliability") for kind in ("png", "pdf"))


def write_report(
    folder: OutputFolder,
    results: dict[str, Any],
    predictions: list[Prediction],
    samples: Sequence[Sample],
    dataset: Dataset,
) -> None:
    """All files, and a printed summary."""
    folder.write("results.json", to_json(results))
    folder.write("predictions.csv", predictions_table(predictions, samples, dataset))
    if len(predictions[0].logits):
        draw_classes(folder.folder, predictions, samples, dataset, results["temperature"])
    print_results(results)
    print(f"written to {folder.folder}")


def predictions_table(predictions: list[Prediction], samples: Sequence[Sample], dataset: Dataset) -> str:
    """CSV of one row per image: labels and probabilities, Dice and IoU, where available."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    names, with_classes = dataset.labels, bool(predictions[0].logits)
    columns = [""] if len(predictions[0].dice) == 1 else [f" {name}" for name in dataset.mask_format.foregrounds]
    of_masks = [f"{name}{column}" for column in columns for name in ("dice", "iou")] if predictions[0].dice else []
    writer.writerow(["id", *(["label", *names] if with_classes else []), *of_masks])
    for prediction, sample in zip(predictions, samples):
        row: list[Any] = [prediction.id]
        if with_classes:
            logits = torch.tensor(prediction.logits)
            probabilities = logits.sigmoid() if dataset.multi_label else logits.softmax(0)
            row.append("; ".join(names[index] for index in sample.classes))
            row += [f"{value:.6f}" for value in probabilities.tolist()]
        row += [f"{value:.6f}" for pair in zip(prediction.dice, prediction.iou) for value in pair]
        writer.writerow(row)
    return file.getvalue()


def draw_classes(
    out: Path, predictions: list[Prediction], samples: Sequence[Sample], dataset: Dataset, temperature: float
) -> None:
    """Confusion matrix, and confidence beside accuracy."""
    from charts import draw_confusion, draw_label_confusions, draw_reliability

    logits, labels = torch.tensor([prediction.logits for prediction in predictions]), targets_of(samples)
    scaled = {"as it is": logits}
    if temperature != 1:
        scaled[f"temperature {temperature:.2f}"] = logits / temperature
    curves = {
        name: reliability(values.sigmoid() if dataset.multi_label else values.softmax(1), labels)
        for name, values in scaled.items()
    }
    for kind in ("png", "pdf"):
        draw_reliability(curves, out / f"reliability.{kind}")
        if dataset.multi_label:
            both = torch.stack([-logits, logits], 2)
            matrices = [confusion(both[:, index], labels[:, index].long()) for index in range(len(dataset.labels))]
            draw_label_confusions(torch.stack(matrices), dataset.labels, out / f"confusion.{kind}")
        else:
            draw_confusion(confusion(logits, labels), dataset.labels, out / f"confusion.{kind}")


def print_results(results: dict[str, Any]) -> None:
    """Metrics with their intervals, and the table of classes."""
    intervals = results["intervals"]
    values = {**results, **(flatten(results) if "per_class" in results else {})}
    of_classes = results.get("per_class", {})
    of_one = {f"{label} {name}" for label, row in of_classes.items() for name in row}
    for name, (low, high) in intervals.items():
        if name not in of_one:
            print(f"{name:<42} {values[name]:.4f}  ({low:.4f} to {high:.4f})")
    if "fixed_mask_dice" in results:
        print(f"{'fixed mask, Dice':<42} {results['fixed_mask_dice']:.4f}")
    for name in ("ece", "classwise_ece", "log_loss"):
        if name in results:
            fitted = f"{results[f'{name}_with_temperature']:.4f} with temperature {results['temperature']:.4f}"
            source = results["temperature_from"]
            print(f"{name:<42} {results[name]:.4f}" + (f", {fitted}, from the {source}" if source != "none" else ""))
    width = max((len(name) for name in of_classes), default=0)
    for name, row in of_classes.items():
        cells = [f"{key} {_with_interval(row[key], intervals.get(f'{name} {key}'))}" for key in row if key != "images"]
        print(f"{name:<{width}} {row['images']:>6} images  {'  '.join(cells)}")


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return "-"
    return f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"
