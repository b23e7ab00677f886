"""Measure a trained network on a data set.

    python examples/evaluate.py --checkpoint runs/ham10000/best --data ham10000 --folder HAM10000 \
        --split runs/ham10000/split.json --out runs/ham10000/test
    accelerate launch examples/evaluate.py ...

``--out`` receives ``results.json``, ``predictions.csv`` and, for classes, ``confusion.png`` and ``reliability.png``.
The temperature is fitted on the validation part of the split. Images that the network was trained or chosen on, by
their hashed names, are left out, and their number is printed. Intervals are 95 % bootstrap intervals over lesions (or
what the data set has as groups). Masks are measured on their own grid, beside one fixed mask for all images.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from engine.baseline import fixed_mask_dice
from engine.checkpoint import check_folder
from engine.data import class_counts
from engine.figures import draw_confusion, draw_reliability
from engine.inference import Prediction, predict_records
from engine.losses import log_frequencies
from engine.measures import (
    bootstrap,
    classification_measures,
    confusion,
    fit_temperature,
    flatten,
    reliability,
)
from engine.network import load_network
from jsonargparse import auto_cli
from readers import DataError, Dataset, Record, check_files, load_split, read_dataset, without_overlap
from torch import Tensor


def evaluate(
    checkpoint: str,
    data: Literal["ham10000", "isic2018", "isic2019", "kvasir", "psinkd"],
    folder: str,
    out: str,
    split: str | None = None,
    part: Literal["train", "val", "test"] = "test",
    rounds: int = 1000,
    input_size: int | None = None,
    flips: bool = False,
    frequencies: bool = False,
    device: Literal["auto", "cpu"] = "auto",
) -> dict[str, Any]:
    """Measure a trained network. Research only.

    Args:
        checkpoint: folder of the network, ``best`` of a run; or a name of a network with its pretrained tag.
        data: the data set.
        folder: where it lies.
        out: folder for the results.
        split: the split of the run, ``split.json``; without one all images are measured.
        part: which part of the split.
        rounds: samples of the bootstrap.
        input_size: height and width of the network's input; None for what it was trained at.
        flips: measure means over each image and its three mirror images.
        frequencies: add the logarithms of the classes' frequencies in the training part to the logits, for networks
            that were trained to count all classes as equally frequent.
        device: ``auto`` takes an accelerator where there is one.
    """
    try:
        check_folder(Path(out))
        accelerator = Accelerator(cpu=device == "cpu")
        network = load_network(checkpoint)
        set_input_size(network, input_size)
        dataset = read_dataset(data, folder, masks=network.mask_head is not None)
        parts = load_split(split, dataset) if split is not None else {str(part): dataset.records}
        check_labels(network, dataset)
        records = left_over(network, parts, part, accelerator.is_main_process)
        shift = frequency_shift(network, parts, dataset) if frequencies else None
        check_files(records)

        def predict(chosen: list[Record]) -> list[Prediction]:
            found = predict_records(network, chosen, accelerator, flips=flips)
            return found if shift is None else [shifted(prediction, shift) for prediction in found]

        predictions = predict(records)
        temperature = 1.0
        if predictions[0].logits and part != "val" and "val" in parts:
            temperature = temperature_of(predict(parts["val"]), parts["val"])
        if not accelerator.is_main_process:
            return {}
        results = measure(predictions, records, dataset.labels, temperature, rounds)
        results |= {"checkpoint": checkpoint, "data": data, "part": part if split else "all", "flips": flips}
        results["frequencies"] = frequencies
        results["input_size"] = network.pretrained_cfg["input_size"][1]
        if predictions[0].dice is not None and "train" in parts:
            results["fixed_mask_dice"] = fixed_mask_dice(parts["train"], records)
        write(Path(out), results, predictions, records, dataset.labels)
        return results
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error


def set_input_size(network: Any, size: int | None) -> None:
    """Have a network measured at another size than it was trained at."""
    if size is None:
        return
    least = network.pretrained_cfg["min_input_size"][1]
    if size < least:
        raise DataError(f"input_size={size} must be at least {least}")
    network.pretrained_cfg["input_size"] = (3, size, size)


def check_labels(network: Any, dataset: Dataset) -> None:
    """Check that the network's classes are the data set's."""
    if network.head is None:
        return
    if not dataset.labels:
        raise DataError(f"{dataset.name} has no classes, which this network predicts: use ham10000, isic2019 or psinkd")
    names = network.pretrained_cfg.get("label_names")
    if names and list(names) != dataset.labels:
        raise DataError(f"the network tells {names} apart, {dataset.name} has the classes {dataset.labels}")


def left_over(network: Any, parts: dict[str, list[Record]], part: str, report: bool) -> list[Record]:
    """The records of a part that the network was neither trained nor chosen on, unless it is that very part."""
    cfg = network.pretrained_cfg
    seen = [("train", "trained_on"), ("val", "chosen_on")]
    left = without_overlap(parts[part], [name for own, key in seen if own != part for name in cfg.get(key, ())])
    if report:
        dropped = len(parts[part]) - len(left)
        print(f"{dropped} of {len(parts[part])} images left out, as the network was trained or chosen on them")
    if not left:
        raise DataError("no image is left to measure: the network was trained or chosen on all of them")
    return left


def frequency_shift(network: Any, parts: dict[str, list[Record]], dataset: Dataset) -> Tensor:
    """What brings logits that count all classes as equally frequent to the training part's frequencies."""
    if network.head is None:
        raise DataError("frequencies: this network predicts no classes")
    if "train" not in parts:
        raise DataError("frequencies: they are those of the training part; give the --split")
    return log_frequencies(class_counts(parts["train"], len(dataset.labels)))


def shifted(prediction: Prediction, shift: Tensor) -> Prediction:
    """A prediction with something added to its logits."""
    return replace(prediction, logits=(torch.tensor(prediction.logits) + shift).tolist())


def temperature_of(predictions: list[Prediction], records: Sequence[Record]) -> float:
    return fit_temperature(*logits_and_labels(predictions, records))


def logits_and_labels(predictions: list[Prediction], records: Sequence[Record]) -> tuple[Tensor, Tensor]:
    """Logits ``(N, classes)`` and class indices ``(N,)``."""
    logits = torch.tensor([prediction.logits for prediction in predictions])
    return logits, torch.tensor([record.label for record in records])


def measure(
    predictions: list[Prediction], records: Sequence[Record], names: list[str], temperature: float, rounds: int
) -> dict[str, Any]:
    """All measures with their intervals."""
    groups = [record.group for record in records]
    results: dict[str, Any] = {"images": len(records), "groups": len(set(groups)), "intervals": {}}
    if predictions[0].logits:
        logits, labels = logits_and_labels(predictions, records)
        results |= classification_measures(logits, labels, names, temperature)
        results["intervals"] |= bootstrap(
            lambda at: flatten(classification_measures(logits[at], labels[at], names, temperature)), groups, rounds
        )
    if predictions[0].dice is not None:
        overlap = {name: torch.tensor([getattr(p, name) for p in predictions]) for name in ("dice", "iou")}
        results |= {name: values.mean().item() for name, values in overlap.items()}

        def means(at: Tensor) -> dict[str, float]:
            return {name: values[at].mean().item() for name, values in overlap.items()}

        results["intervals"] |= bootstrap(means, groups, rounds)
    return results


def write(
    out: Path,
    results: dict[str, Any],
    predictions: list[Prediction],
    records: Sequence[Record],
    names: list[str],
) -> None:
    """All files, and a printed summary."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_predictions(out / "predictions.csv", predictions, records, names)
    if predictions[0].logits:
        draw_classes(out, predictions, records, names, results["temperature"])
    print_results(results)


def write_predictions(path: Path, predictions: list[Prediction], records: Sequence[Record], names: list[str]) -> None:
    """One row per image: label and probabilities, Dice and IoU, where available."""
    with_classes, with_masks = bool(predictions[0].logits), predictions[0].dice is not None
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(["label", *names] if with_classes else []), *(["dice", "iou"] if with_masks else [])])
        for prediction, record in zip(predictions, records):
            row: list[Any] = [prediction.id]
            if with_classes:
                probabilities = torch.tensor(prediction.logits).softmax(0).tolist()
                row += [names[record.label or 0], *(f"{value:.6f}" for value in probabilities)]
            if with_masks:
                row += [f"{prediction.dice:.6f}", f"{prediction.iou:.6f}"]
            writer.writerow(row)


def draw_classes(
    out: Path, predictions: list[Prediction], records: Sequence[Record], names: list[str], temperature: float
) -> None:
    """Confusion matrix, and confidence beside accuracy."""
    logits, labels = logits_and_labels(predictions, records)
    draw_confusion(confusion(logits, labels), names, out / "confusion.png")
    curves = {"as it is": reliability(logits.softmax(1), labels)}
    if temperature != 1:
        curves[f"temperature {temperature:.2f}"] = reliability((logits / temperature).softmax(1), labels)
    draw_reliability(curves, out / "reliability.png")


def print_results(results: dict[str, Any]) -> None:
    """Measures with their intervals, and the table of classes."""
    intervals = results["intervals"]
    values = {**results, **(flatten(results) if "per_class" in results else {})}
    of_classes = results.get("per_class", {})
    for name, (low, high) in intervals.items():
        if name.split()[0] not in of_classes:
            print(f"{name:<42} {values[name]:.4f}  ({low:.4f} to {high:.4f})")
    if "fixed_mask_dice" in results:
        print(f"{'fixed mask, Dice':<42} {results['fixed_mask_dice']:.4f}")
    for name in ("ece", "classwise_ece", "log_loss"):
        if name in results:
            fitted = f"{results[f'{name}_with_temperature']:.4f} with temperature {results['temperature']:.4f}"
            print(f"{name:<42} {results[name]:.4f}, {fitted}")
    for name, row in of_classes.items():
        cells = [f"{key} {_with_interval(row[key], intervals.get(f'{name} {key}'))}" for key in row if key != "images"]
        print(f"{name:<8} {row['images']:>6} images  {'  '.join(cells)}")


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return "-"
    return f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    results: dict[str, Any] = auto_cli(evaluate, args=None if argv is None else list(argv), as_positional=False)
    return results


if __name__ == "__main__":
    main()
