"""Is a model better than another one, or is it chance? Paired differences on the same images, over their lesions.

    python examples/research/compare.py --checkpoints mfsf2_tiny_clsseg.ham10000 runs/longer/best --data.name ham10000 \
        --data.folder HAM10000 --split_file examples/splits/ham10000.json --out runs/longer/compared

Each model after the first is compared with the first, at the input size that it was trained at. By default on the
validation split, which is there to choose from; ask for the test split once a model is chosen.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

# The modules beside train.py, before installed packages of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from cli import run_function
from data import targets_of
from datasets import Data, DataError, Dataset, Sample, check_files, read_dataset
from evaluate import find_splits, for_model
from files import OutputFolder, to_json
from inference import Prediction, predict_samples
from metrics import bootstrap, mean_dice, summary
from models import load_model
from torch import Tensor

FILE = "compared.json"
OF_CLASSES = ("balanced_accuracy", "mean_sensitivity", "auc", "macro_f1")


def compare(
    checkpoints: list[str],
    data: Data,
    split_file: str,
    out: str,
    split: Literal["val", "test"] = "val",
    tta: bool = False,
    n_bootstrap: int = 1000,
) -> dict[str, Any]:
    """Measure models on the same images, with paired bootstrap intervals of their differences. Research only.

    Args:
        checkpoints: two or more folders, ``best`` of a run, or names with their pretrained tags; one after the other.
        data: the data set.
        split_file: the split of the trainings, ``split.json``.
        out: folder that receives compared.json.
        split: which split of it.
        tta: measure means over each image and its three mirror images.
        n_bootstrap: samples of the bootstrap.

    Returns:
        Metrics by checkpoint; for all but the first with ``difference`` and ``interval``.
    """
    from accelerate import Accelerator

    if len(set(checkpoints)) < 2:
        raise DataError(f"checkpoints={checkpoints}: give at least two different ones")
    if n_bootstrap < 1:
        raise DataError(f"n_bootstrap={n_bootstrap} must be at least 1")
    folder = OutputFolder(Path(out).expanduser())
    folder.check([FILE])
    models = {checkpoint: load_model(checkpoint) for checkpoint in checkpoints}
    measures = {}
    for checkpoint, model in models.items():
        dataset = for_model(read_dataset(data, masks=model.mask_head is not None), model)
        splits, _ = find_splits(dataset, split_file, split)
        samples = splits[split]
        check_files(samples, dataset.mask_format)
        predictions = predict_samples(model, samples, Accelerator(), dataset.mask_format, tta=tta)
        measures[checkpoint] = Measure(predictions, samples, dataset)
    groups = [sample.group for sample in samples]
    results = differences(measures, groups, n_bootstrap)
    print(
        f"{split} split: {len(samples)} images of {len(set(groups))} {dataset.group_kind}s; differences from "
        f"{checkpoints[0]} (95 % interval)"
    )
    print_table(results)
    folder.write(FILE, to_json(results))
    return results


class Measure:
    """The metrics of one model's predictions, of the images at some positions.

    Args:
        predictions: of all images.
        samples: the images.
        dataset: with the model's classes.
    """

    def __init__(self, predictions: Sequence[Prediction], samples: Sequence[Sample], dataset: Dataset) -> None:
        self.probabilities = self.dice = None
        if len(predictions[0].logits):
            logits = torch.tensor([prediction.logits for prediction in predictions])
            self.probabilities = logits.sigmoid() if dataset.multi_label else logits.softmax(1)
            self.labels = targets_of(samples)
        if len(predictions[0].dice):
            self.dice = torch.tensor([prediction.dice for prediction in predictions])

    def __call__(self, at: Tensor) -> dict[str, float]:
        found: dict[str, float] = {}
        if self.probabilities is not None:
            values = summary(self.probabilities[at], self.labels[at])
            found |= {name: value for name in OF_CLASSES if (value := values.get(name)) is not None}
        if self.dice is not None:
            found["dice"] = mean_dice(self.dice[at])
        return found


def differences(measures: dict[str, Measure], groups: Sequence[str], n_bootstrap: int) -> dict[str, Any]:
    """Metrics of each model, and of all but the first how much more they are than the first one's."""
    first, *others = measures
    every = torch.arange(len(groups))
    values = {name: measure(every) for name, measure in measures.items()}
    results: dict[str, Any] = {first: values[first]}
    for name in others:

        def paired(at: Tensor, name: str = name) -> dict[str, float]:
            one, two = measures[first](at), measures[name](at)
            return {metric: two[metric] - one[metric] for metric in one.keys() & two.keys()}

        results[name] = values[name] | {
            "difference": paired(every),
            "interval": bootstrap(paired, groups, n_bootstrap),
        }
    return results


def print_table(results: dict[str, Any]) -> None:
    for name, row in results.items():
        print(name)
        for metric, value in row.items():
            if metric in ("difference", "interval"):
                continue
            text = f"  {metric:<18} {value:.4f}"
            if metric in row.get("difference", {}):
                low, high = row["interval"][metric]
                text += f"  {row['difference'][metric]:+.4f} ({low:+.4f} to {high:+.4f})"
            print(text)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    return run_function(compare, argv)


if __name__ == "__main__":
    main()
