"""What each path of a trained classifier contributes: drop it and measure again on the test split.

    python examples/research/ablate.py --run runs/ham10000

The head is given three things: the CNN map r4, the transformer map p4 and the pooled pyramid P. Each in turn is
replaced by its mean over the training images, which keeps its scale and takes away all it says about the image. The
run is one that ``train.py`` wrote with the task ``cls``; it receives ``ablation.json``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The modules beside train.py, before installed packages of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from cli import run_function
from data import targets_of
from datasets import DataError, Sample, check_files, read_dataset
from evaluate import data_of, find_splits, for_model
from files import OutputFolder, to_json
from inference import prepare_image
from metrics import summary
from models import is_multi_label, load_model
from paths import logits_of, without_each_path
from torch import Tensor
from torch.nn import functional as F

FILE = "ablation.json"


def ablate(run: str) -> dict[str, dict[str, float]]:
    """Measure a classifier without each of its paths. Research only.

    Args:
        run: folder of a training of the task cls; receives ablation.json.

    Returns:
        Metrics by what is dropped.
    """
    folder = OutputFolder(Path(run).expanduser())
    data = data_of(folder.folder)
    folder.check([FILE])
    model = load_classifier(str(folder.folder / "best"))
    dataset = for_model(read_dataset(data), model)
    splits, notes = find_splits(dataset, str(folder.folder / "split.json"), "test")
    check_files(splits["train"] + splits["test"])
    for note in notes:
        print(note)
    means = head_inputs(model, splits["train"]).mean(0)
    pooled = head_inputs(model, splits["test"])
    replaced = without_each_path(model, pooled, means)
    inputs = {"all": pooled} | {f"without {name}": values for name, values in replaced.items()}
    labels = targets_of(splits["test"])
    results = {name: measure(model, values, labels) for name, values in inputs.items()}
    print_table(results, len(labels))
    folder.write(FILE, to_json(results))
    return results


def load_classifier(checkpoint: str) -> Any:
    """The model of a training of the task cls: its folder, or its name with a tag.

    Raises:
        DataError: a model for another task, or of classes of which several may hold at once.
    """
    model = load_model(checkpoint)
    if model.architecture != "mfsf2_cls" or is_multi_label(model):
        kind = "predicts several classes at once" if model.architecture == "mfsf2_cls" else f"is {model.architecture}"
        raise DataError(f"{checkpoint}: this model {kind}, give a run of the task cls with exclusive classes")
    return model


@torch.inference_mode()
def head_inputs(model: Any, samples: Sequence[Sample]) -> Tensor:
    """Pooled features ``(N, num_features)``: r4, p4 and P side by side, what the head averages to."""
    return torch.cat([model.forward_features(prepare_image(s.image, model)).mean((2, 3)) for s in samples])


@torch.inference_mode()
def measure(model: Any, pooled: Tensor, labels: Tensor) -> dict[str, float]:
    """Balanced accuracy, and the log loss with each class counting the same, which moves before any decision does."""
    logits = logits_of(model, pooled)
    losses = F.cross_entropy(logits, labels, reduction="none")
    log_loss = torch.stack([losses[labels == label].mean() for label in labels.unique()]).mean().item()
    return {"balanced_accuracy": summary(logits.softmax(1), labels)["balanced_accuracy"] or 0.0, "log_loss": log_loss}


def print_table(results: dict[str, dict[str, float]], images: int) -> None:
    print(f"{'paths':<12} balanced accuracy  change   balanced log loss  change   ({images} test images)")
    everything = results["all"]
    for name, row in results.items():
        accuracy, loss = row["balanced_accuracy"], row["log_loss"]
        change = accuracy - everything["balanced_accuracy"], loss - everything["log_loss"]
        print(f"{name:<12} {accuracy:17.4f}  {change[0]:+.4f}  {loss:17.4f}  {change[1]:+.4f}")


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """The command line."""
    return run_function(ablate, argv)


if __name__ == "__main__":
    main()
