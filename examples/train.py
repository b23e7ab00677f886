"""Train ``mfsf2_tiny_cls`` on HAM10000, on a CPU in half an hour.

    python examples/train.py --data HAM10000 --out runs/tiny --weights resnet18.safetensors --minutes 30

``--out`` receives the network after the last step (``mfsf2.create_model("local-dir:OUT")`` loads it), ``history.json``,
``results.json`` and ``curve.png``. The lesions of the test part are looked at once, at the end; those of the validation
part choose nothing, they only draw the curve.

The images are CC BY-NC 4.0: research only, and so is a network trained on them.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from augment import augment
from evaluation import balanced_accuracy, head_inputs, logits_of, normalize, path_slices, recalls, stored_size
from ham10000 import LABELS, Record, labels_of, load_images, read_records, split_by_lesion
from torch import Tensor, nn
from torch.nn import functional as F
from training import History, add_training_arguments, check_training_arguments, draw_curve, fit, load_cnn

import mfsf2


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train mfsf2_tiny_cls on HAM10000.")
    parser.add_argument("--data", required=True, help="folder of HAM10000 as it is published")
    parser.add_argument("--path-drop", type=float, default=0.5, help="how often r4 and P are each withheld")
    parser.add_argument("--limit", type=int, help="use only this many images")
    add_training_arguments(parser)
    return parser.parse_args(argv)


@torch.no_grad()
def balance_paths(model: nn.Module, x: Tensor) -> None:
    """Scale the head's first weights so that r4, p4 and P vary equally there, as measured on one batch.

    P starts ten times smaller than the maps: a mean over convolutions that no norm follows.
    """
    model.train()
    pooled = model.forward_features(x).mean((2, 3))  # type: ignore[operator]
    weight: Tensor = model.head.hidden[0].weight  # type: ignore[union-attr, index, assignment]
    for channels in path_slices(model).values():
        weight[:, channels] *= 0.25 / pooled[:, channels].std(0).mean()


class PathDropout:
    """Forward pre-hook of the head: withholds r4 and P, each for a random share of the images.

    Only the CNN branch starts from trained weights, and it feeds the pyramid too. Left alone, the head would settle on
    these two; where they are withheld the loss is for the transformer's own map p4 to bring down.
    """

    def __init__(self, model: nn.Module, rate: float) -> None:
        slices = path_slices(model)
        self.slices = [slices["r4"], slices["P"]]
        self.rate = rate

    def __call__(self, head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if not head.training or not self.rate:
            return None
        (x,) = inputs
        mask = torch.ones(x.shape[0], x.shape[1], 1, 1)
        for channels in self.slices:
            mask[:, channels] = (torch.rand(x.shape[0], 1, 1, 1) >= self.rate).float()
        return (x * mask,)


class BalancedClassification:
    """Draws training images and measures the loss of the classes so that each class counts the same.

    Classes are drawn with the square root of their frequency, and the loss corrects the logits for what is left of the
    imbalance (Menon et al., ICLR 2021).
    """

    def __init__(self, labels: Tensor, batch_size: int) -> None:
        counts = labels.bincount(minlength=len(LABELS)).float()
        self.labels = labels
        self.batch_size = batch_size
        self.weights = counts.clamp(min=1).rsqrt()[labels]
        self.prior = (counts.sqrt() / counts.sqrt().sum()).clamp(min=1e-6).log()

    def draw(self) -> Tensor:
        """Positions of a batch's images."""
        return torch.multinomial(self.weights, self.batch_size, replacement=True)

    def loss(self, logits: Tensor, batch: Tensor) -> Tensor:
        return F.cross_entropy(logits + self.prior, self.labels[batch])


def train(model: nn.Module, args: argparse.Namespace, data: dict[str, tuple[Tensor, Tensor]]) -> History:
    """Train in place; returns the logged steps and the validations."""
    cfg: Any = model.pretrained_cfg
    images, labels = data["train"]
    classes = BalancedClassification(labels, args.batch_size)
    balance_paths(model, normalize(augment(images[torch.randperm(len(images))[:64]], args.size), cfg))
    model.head.register_forward_pre_hook(PathDropout(model, args.path_drop))  # type: ignore[union-attr]

    def batch_loss() -> Tensor:
        batch = classes.draw()
        return classes.loss(model(normalize(augment(images[batch], args.size), cfg)), batch)

    def validate() -> dict[str, float]:
        logits = logits_of(model, head_inputs(model, data["val"][0], cfg))
        return {"balanced_accuracy": balanced_accuracy(logits, data["val"][1])}

    return fit(model, args, batch_loss, validate)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = parse_args(argv)
    check_training_arguments(args)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    try:
        split = split_by_lesion(read_records(args.data, args.limit, args.seed), args.seed)
        model = mfsf2.create_model("mfsf2_tiny_cls", num_classes=len(LABELS), drop_path_rate=0.0)
        cfg: Any = model.pretrained_cfg
        cfg["input_size"] = (3, args.size, args.size)
        data = {part: load_part(records, stored_size(cfg)) for part, records in split.items()}
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print(", ".join(f"{part}: {len(labels)} images" for part, (_, labels) in data.items()), flush=True)
    if args.weights:
        load_cnn(model, args.weights)
    model.to(memory_format=torch.channels_last)
    history = train(model, args, data)
    logits = logits_of(model, head_inputs(model, data["test"][0], cfg))
    results = dict(
        val_balanced_accuracy=history["val"][-1]["balanced_accuracy"],
        test_balanced_accuracy=balanced_accuracy(logits, data["test"][1]),
        test_recall={LABELS[label]: value for label, value in recalls(logits, data["test"][1]).items()},
        images={part: len(labels) for part, (_, labels) in data.items()},
        steps=int(history["train"][-1]["step"]),
        minutes=history["train"][-1]["minutes"],
        size=args.size,
        seed=args.seed,
        limit=args.limit,
    )
    out = Path(args.out)
    mfsf2.save_pretrained(model, out, label_names=LABELS)
    (out / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw_curve(history, {"balanced_accuracy": 1 / len(LABELS)}, out / "curve.png")
    print(json.dumps(results, indent=2))
    return results


def load_part(records: list[Record], short_side: int) -> tuple[Tensor, Tensor]:
    """Images and class indices of one part of the split."""
    if not records:
        raise ValueError("a part of the split is empty: use more images (at least three lesions of one class)")
    return load_images(records, short_side), labels_of(records)


if __name__ == "__main__":
    main()
