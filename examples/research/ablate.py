"""What each path of a trained classifier contributes: withhold it and measure again on the held-out lesions.

    python examples/ablate.py --data ham10000 --folder HAM10000 --run runs/ham10000

The head is given three things: the CNN map r4, the transformer map p4 and the pooled pyramid P. Each in turn is
replaced by its mean over the training images, which keeps its scale and takes away all it says about the image. The
split is that of the run, which ``train.py`` wrote with the task ``cls``.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from engine.inference import prepare_image
from engine.measures import summary
from engine.network import load_network
from engine.paths import path_slices
from readers import READERS, DataError, Record, load_split, read_dataset
from torch import Tensor
from torch.nn import functional as F


@torch.inference_mode()
def head_inputs(network: Any, records: Sequence[Record]) -> Tensor:
    """Pooled features ``(N, num_features)``: r4, p4 and P side by side, what the head averages to."""
    features = [network.forward_features(prepare_image(record.image, network)).mean((2, 3)) for record in records]
    return torch.cat(features)


@torch.inference_mode()
def measure(network: Any, pooled: Tensor, labels: Tensor) -> dict[str, float]:
    """Balanced accuracy, and the log loss with each class counting the same, which moves before any decision does."""
    # The head's average of a 1x1 map is that map.
    logits = network.forward_head(pooled[:, :, None, None])
    losses = F.cross_entropy(logits, labels, reduction="none")
    log_loss = torch.stack([losses[labels == label].mean() for label in labels.unique()]).mean().item()
    return dict(balanced_accuracy=summary(logits.softmax(1), labels)["balanced_accuracy"], log_loss=log_loss)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Print and write the measures; returns them by what is withheld."""
    parser = argparse.ArgumentParser(description="Balanced accuracy without r4, p4 or P.")
    parser.add_argument("--data", required=True, choices=sorted(READERS))
    parser.add_argument("--folder", required=True, help="where the data set lies")
    parser.add_argument("--run", required=True, help="folder that train.py wrote; receives ablation.json")
    args = parser.parse_args(argv)
    run = Path(args.run)
    try:
        network = load_network(str(run / "best"))
        if network.architecture != "mfsf2_cls":
            raise DataError(f"--run {run}: its network is {network.architecture}, give one of the task cls")
        parts = load_split(run / "split.json", read_dataset(args.data, args.folder))
    except DataError as error:
        raise SystemExit(str(error)) from error
    means = head_inputs(network, parts["train"]).mean(0)
    inputs = {"all": head_inputs(network, parts["test"])}
    for name, channels in path_slices(network).items():
        inputs[f"without {name}"] = withheld = inputs["all"].clone()
        withheld[:, channels] = means[channels]
    labels = torch.tensor([record.label for record in parts["test"]])
    results = {name: measure(network, pooled, labels) for name, pooled in inputs.items()}
    print(f"{'paths':<12} balanced accuracy  change   balanced log loss  change   ({len(labels)} held-out images)")
    for name, row in results.items():
        accuracy, loss = row["balanced_accuracy"], row["log_loss"]
        change = accuracy - results["all"]["balanced_accuracy"], loss - results["all"]["log_loss"]
        print(f"{name:<12} {accuracy:17.4f}  {change[0]:+.4f}  {loss:17.4f}  {change[1]:+.4f}")
    (run / "ablation.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
