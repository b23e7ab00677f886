"""Measure a trained model on a data set.

    python examples/evaluate.py --run runs/own
    python examples/evaluate.py --checkpoint runs/own/best --data.name folder --data.folder OTHER --out runs/other
    accelerate launch examples/evaluate.py ...

``--run`` is the folder of a training: its test split is measured. Without it, give a checkpoint and the data. ``--out``
receives ``results.json``, ``predictions.csv`` and, for classes, ``confusion`` and ``reliability`` as PNG and PDF. The
temperature is fitted on the validation split; without a split file it is that of the model. Images that the model was
trained or chosen on are left out, and their number is printed. Intervals are 95 % bootstrap intervals over lesions (or
what the data set has as groups). Masks are measured on their own grid, beside one fixed mask for all images.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from cli import run_function
from data import class_counts, targets_of
from datasets import (
    SPLITS,
    Data,
    DataError,
    Dataset,
    Sample,
    Splits,
    check_files,
    load_split,
    read_dataset,
    without_seen,
)
from files import OutputFolder
from inference import Prediction, predict_samples
from losses import log_class_prior
from metrics import (
    bootstrap,
    classification_metrics,
    fit_temperature,
    flatten,
    mean_dice,
)
from models import class_names, is_multi_label, load_model, mask_format_of
from report import FIGURES, FILES, write_report
from torch import Tensor


def evaluate(
    run: str | None = None,
    checkpoint: str | None = None,
    data: Data | None = None,
    split_file: str | None = None,
    split: Literal["train", "val", "test"] = "test",
    out: str | None = None,
    n_bootstrap: int = 1000,
    input_size: int | None = None,
    tta: bool = False,
    class_prior: bool = False,
    device: Literal["auto", "cpu"] = "auto",
) -> dict[str, Any]:
    """Measure a trained model. Research only.

    Args:
        run: folder of a training, which has the checkpoint, the data and the split; further arguments override it.
        checkpoint: folder of the model, ``best`` of a run; or a name of a model with its pretrained tag.
        data: the data set.
        split_file: the split of a training, ``split.json``; without one the data's own, or all images.
        split: which split of it.
        out: folder for the results; for a run, by default, the split's name in it.
        n_bootstrap: samples of the bootstrap.
        input_size: height and width of the model's input; None for what it was trained at.
        tta: test-time augmentation: measure means over each image and its three mirror images.
        class_prior: add the logarithms of the classes' frequencies in the training split to the logits, for models that
            were trained to count all classes as equally frequent.
        device: ``auto`` takes an accelerator where there is one.
    """
    from accelerate import Accelerator

    if run is not None:
        data, split_file = data or data_of(Path(run)), split_file or (f"{run}/split.json" if data is None else None)
        checkpoint, out = checkpoint or f"{run}/best", out or f"{run}/{split}"
    if checkpoint is None or data is None or out is None:
        raise DataError("give --run, or --checkpoint, --data.name, --data.folder and --out")
    if n_bootstrap < 1:
        raise DataError(f"n_bootstrap={n_bootstrap} must be at least 1")
    folder = OutputFolder(Path(out).expanduser())
    folder.check([*FILES, *FIGURES])
    accelerator = Accelerator(cpu=device == "cpu")
    model = load_model(checkpoint)
    set_input_size(model, input_size)
    dataset = for_model(read_dataset(data, masks=model.mask_head is not None), model)
    splits, notes = find_splits(dataset, split_file, split)
    samples, left_out = left_over(model, dataset, splits, split)
    prior = prior_of(model, splits, dataset) if class_prior else None
    check_files(samples, dataset.mask_format)
    for note in (*notes, left_out) if accelerator.is_main_process else ():
        print(note)

    def predict(chosen: list[Sample]) -> list[Prediction]:
        found = predict_samples(model, chosen, accelerator, dataset.mask_format, tta=tta)
        return found if prior is None else [shifted(prediction, prior) for prediction in found]

    predictions = predict(samples)
    temperature = float(model.pretrained_cfg.get("temperature", 1.0))
    source = "model" if "temperature" in model.pretrained_cfg else "none"
    if len(predictions[0].logits) and split != "val" and splits.get("val"):
        temperature, source = temperature_of(predict(splits["val"]), splits["val"]), "validation split"
    if not accelerator.is_main_process:
        return {}
    results = measure(predictions, samples, dataset, temperature, n_bootstrap)
    results |= {"checkpoint": checkpoint, "data": data.name, "split": split if len(splits) > 1 else "all"}
    results |= {"tta": tta, "class_prior": class_prior, "input_size": model.pretrained_cfg["input_size"][1]}
    if len(predictions[0].logits):
        results["temperature_from"] = source
    if len(predictions[0].dice) == 1 and splits.get("train"):
        from baseline import fixed_mask_dice

        results["fixed_mask_dice"] = fixed_mask_dice(splits["train"], samples, dataset.mask_format)
    write_report(folder, results, predictions, samples, dataset)
    return results


def data_of(run: Path) -> Data:
    """The data of a training.

    Raises:
        DataError: not the folder of a training.
    """
    import yaml
    from datasets import TrainData

    try:
        content = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        return TrainData(**content["data"])
    except OSError as error:
        raise DataError(f"run {run}: not the folder of a training: no config.yaml that can be read") from error
    except (KeyError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"run {run}: config.yaml is not that of a training: {error}") from error


def find_splits(dataset: Dataset, path: str | None, split: str) -> tuple[Splits, list[str]]:
    """The splits of a file; without one, those that the data have or all images. Then notes for the log.

    Raises:
        DataError: a file of another data set, or a split without images.
    """
    if path is None:
        given = {name: [sample for sample in dataset.samples if sample.split == name] for name in SPLITS}
        return given if given[split] else {split: dataset.samples}, list(dataset.notes)
    splits, unlisted = load_split(path, dataset)
    if not splits[split]:
        raise DataError(f"{path}: no image in {split}")
    return splits, [*dataset.notes, *([f"left out: {unlisted} images that {path} does not list"] if unlisted else [])]


def set_input_size(model: Any, size: int | None) -> None:
    """Have a model measured at another size than it was trained at.

    Raises:
        DataError: too small a size.
    """
    if size is None:
        return
    least = model.pretrained_cfg["min_input_size"][1]
    if size < least:
        raise DataError(f"input_size={size} must be at least {least}")
    model.pretrained_cfg["input_size"] = (3, size, size)


def for_model(dataset: Dataset, model: Any) -> Dataset:
    """The data set with the model's classes, in its order, and masks read as the model's.

    A test set may lack classes, but not have others.

    Raises:
        DataError: classes that the model does not know, or a model without classes or without their names.
    """
    dataset = replace(dataset, mask_format=mask_format_of(model))
    if model.head is None:
        return dataset
    if not model.num_classes:
        raise DataError("this model has no classifier (num_classes=0)")
    if not dataset.labels:
        raise DataError(f"{dataset.name} has no classes, which this model predicts: use data with labels")
    if dataset.multi_label != is_multi_label(model):
        kinds = ["exclusive classes", "several classes at once"]
        of_model, of_data = kinds[is_multi_label(model)], kinds[dataset.multi_label]
        raise DataError(f"the model predicts {of_model}, the data have {of_data}: {', '.join(dataset.labels)}")
    names = class_names(model)
    if not model.pretrained_cfg.get("label_names"):
        if len(names) != len(dataset.labels):
            raise DataError(f"the model has {len(names)} classes without names, {dataset.name} has {dataset.labels}")
        names = dataset.labels
    unknown = [name for name in dataset.labels if name not in names]
    if unknown or (dataset.multi_label and len(names) != len(dataset.labels)):
        raise DataError(f"the model tells {names} apart, {dataset.name} has the classes {dataset.labels}")
    place = [dataset.labels.index(name) if name in dataset.labels else None for name in names]
    samples = [renumbered(sample, place) for sample in dataset.samples]
    return replace(dataset, samples=samples, classes={name: dataset.classes.get(name, "") for name in names})


def renumbered(sample: Sample, place: list[int | None]) -> Sample:
    """A sample with other class indices: ``place`` is where each of the new classes was."""
    if sample.labels:
        return replace(sample, labels=tuple(sample.labels[old] for old in place if old is not None))
    return replace(sample, label=place.index(sample.label))


def left_over(model: Any, dataset: Dataset, splits: Splits, split: str) -> tuple[list[Sample], str]:
    """The samples of a split that the model was neither trained nor chosen on, unless it is that very one; and a note.

    Raises:
        DataError: there is none.
    """
    seen = [("train", "trained_on"), ("val", "chosen_on")]
    hashes = [code for own, key in seen if own != split for code in model.pretrained_cfg.get(key, ())]
    left = without_seen(dataset, splits[split], hashes)
    if not left:
        raise DataError("no image is left to measure: the model was trained or chosen on all of them")
    number = len(splits[split])
    return left, f"{number - len(left)} of {number} images left out, as the model was trained or chosen on them"


def prior_of(model: Any, splits: Splits, dataset: Dataset) -> Tensor:
    """What brings logits that count all classes as equally frequent to the training split's frequencies."""
    if model.head is None:
        raise DataError("class_prior: this model predicts no classes")
    if not splits.get("train"):
        raise DataError("class_prior: it is that of the training split; give the --split_file")
    counts = class_counts(splits["train"], len(dataset.labels))
    return log_class_prior(counts, len(splits["train"]) if dataset.multi_label else None)


def shifted(prediction: Prediction, shift: Tensor) -> Prediction:
    """A prediction with something added to its logits."""
    return replace(prediction, logits=(torch.tensor(prediction.logits) + shift).tolist())


def temperature_of(predictions: list[Prediction], samples: Sequence[Sample]) -> float:
    return fit_temperature(torch.tensor([prediction.logits for prediction in predictions]), targets_of(samples))


def measure(
    predictions: list[Prediction], samples: Sequence[Sample], dataset: Dataset, temperature: float, n_bootstrap: int
) -> dict[str, Any]:
    """All metrics with their intervals."""
    groups = [sample.group for sample in samples]
    results: dict[str, Any] = {"images": len(samples), "groups": len(set(groups)), "intervals": {}}
    if len(predictions[0].logits):
        logits, labels = torch.tensor([prediction.logits for prediction in predictions]), targets_of(samples)
        results |= classification_metrics(logits, labels, dataset.labels, temperature)
        results["intervals"] |= bootstrap(
            lambda at: flatten(classification_metrics(logits[at], labels[at], dataset.labels, temperature)),
            groups,
            n_bootstrap,
        )
    if len(predictions[0].dice):
        overlap = {name: torch.tensor([getattr(p, name) for p in predictions]) for name in ("dice", "iou")}
        foregrounds = dataset.mask_format.foregrounds

        def of_masks(at: Tensor) -> dict[str, float]:
            found = {name: mean_dice(values[at]) for name, values in overlap.items()}
            for column, foreground in enumerate(foregrounds if len(foregrounds) > 1 else ()):
                found |= {
                    f"{foreground} {name}": values[at, column].nanmean().item() for name, values in overlap.items()
                }
            return found

        results |= of_masks(torch.arange(len(samples)))
        results["intervals"] |= bootstrap(of_masks, groups, n_bootstrap)
    return results


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    return run_function(evaluate, argv)


if __name__ == "__main__":
    main()
