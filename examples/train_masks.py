"""Train ``mfsf2_tiny_seg`` on HAM10000 or Kvasir-SEG, or ``mfsf2_tiny_clsseg`` on HAM10000, on a CPU in minutes.

    python examples/train_masks.py --data HAM10000 --task clsseg --out runs/both --weights resnet18.safetensors

Whole images are squeezed to a square; Dice is that of each image, on the stored masks' own grid. ``--out`` receives the
network after the last step (``mfsf2.create_model("local-dir:OUT")`` loads it), ``history.json``, ``results.json`` and
``curve.png``. The test part is looked at once, at the end; the validation part chooses nothing, it only draws the
curve.

HAM10000 is CC BY-NC 4.0, Kvasir-SEG is for research and education: so are networks trained on them.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ham10000
import kvasir
import torch
from augment import augment_with_masks
from evaluation import balanced_accuracy, dice_of, head_inputs, logits_of, mean_mask_dice, normalize
from images import read_images, read_masks
from torch import Tensor, nn
from torch.nn import functional as F
from train import BalancedClassification, PathDropout, balance_paths
from training import History, add_training_arguments, check_training_arguments, draw_curve, fit, load_cnn

import mfsf2

MASK_SIZES = {"ham10000": (150, 200), "kvasir": (352, 352)}
"""Height and width of the grid on which Dice is measured."""


@dataclass(frozen=True)
class Part:
    """One part of the split, in memory."""

    images: Tensor
    masks: Tensor
    labels: Tensor


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a segmentation network.")
    parser.add_argument("--data", required=True, help="folder of the data set as it is published")
    parser.add_argument("--dataset", choices=sorted(MASK_SIZES), default="ham10000")
    parser.add_argument("--task", choices=["seg", "clsseg"], default="seg")
    parser.add_argument("--path-drop", type=float, default=0.5, help="clsseg: how often r4 and P are each withheld")
    add_training_arguments(parser)
    parser.set_defaults(minutes=15.0, size=96)
    args = parser.parse_args(argv)
    if args.task == "clsseg" and args.dataset != "ham10000":
        raise SystemExit(f"--task clsseg needs classes, and {args.dataset} has none: use --task seg")
    return args


def load_parts(args: argparse.Namespace) -> dict[str, Part]:
    """Read the data set; images for training are a quarter larger than the network's input."""
    split: dict[str, list[Any]]
    if args.dataset == "kvasir":
        split = dict(kvasir.split_pairs(kvasir.read_pairs(args.data), args.seed))
    else:
        records = ham10000.read_records(args.data)
        ham10000.check_masks(records)
        split = dict(ham10000.split_by_lesion(records, args.seed))
    height, width = MASK_SIZES[args.dataset]
    larger = args.size * 5 // 4
    parts = {}
    for name, records in split.items():
        if not records:
            raise ValueError(f"the {name} part of the split is empty: use more images")
        size = (larger, larger * width // height) if name == "train" else (args.size, args.size)
        parts[name] = Part(
            read_images([record.path for record in records], *size),
            read_masks([record.mask for record in records], height, width),
            torch.tensor([getattr(record, "label", 0) for record in records]),
        )
    return parts


def mask_loss(deep: list[Tensor], masks: Tensor) -> Tensor:
    """Deep supervision: cross-entropy and 1 - Dice of every logit map, resized to the masks, averaged over the maps."""
    losses = []
    for logits in deep:
        logits = F.interpolate(logits, size=masks.shape[2:], mode="bilinear")
        probability = logits.sigmoid()
        shared, both = (probability * masks).sum((1, 2, 3)), (probability + masks).sum((1, 2, 3))
        soft_dice = (2 * shared + 1) / (both + 1)
        losses.append(F.binary_cross_entropy_with_logits(logits, masks) + (1 - soft_dice).mean())
    return torch.stack(losses).mean()


def segmentation_loss(model: Any, args: argparse.Namespace, part: Part) -> Callable[[], Tensor]:
    """Draws a batch and returns the loss of its masks."""
    cfg = model.pretrained_cfg

    def batch_loss() -> Tensor:
        batch = torch.randint(len(part.images), (args.batch_size,))
        x, masks = augment_with_masks(part.images[batch], part.masks[batch], args.size)
        return mask_loss(model.deep_logits(normalize(x, cfg)), masks)

    return batch_loss


def joint_loss(model: Any, args: argparse.Namespace, part: Part) -> Callable[[], Tensor]:
    """Draws a batch, balanced over the classes, and returns the sum of both tasks' losses."""
    cfg = model.pretrained_cfg
    classes = BalancedClassification(part.labels, args.batch_size)
    first = torch.randperm(len(part.images))[:64]
    balance_paths(model, normalize(augment_with_masks(part.images[first], part.masks[first], args.size)[0], cfg))
    model.head.register_forward_pre_hook(PathDropout(model, args.path_drop))

    def batch_loss() -> Tensor:
        batch = classes.draw()
        x, masks = augment_with_masks(part.images[batch], part.masks[batch], args.size)
        logits, deep = model.forward_deep(normalize(x, cfg))
        return classes.loss(logits, batch) + mask_loss(deep, masks)

    return batch_loss


def measure(model: Any, part: Part) -> dict[str, float]:
    """Mean Dice per image and, of a network of both tasks, balanced accuracy."""
    cfg = model.pretrained_cfg
    measures = {"dice": dice_of(model, part.images, part.masks, cfg).mean().item()}
    if hasattr(model, "forward_logits"):
        logits = logits_of(model, head_inputs(model, part.images, cfg))
        measures["balanced_accuracy"] = balanced_accuracy(logits, part.labels)
    return measures


def build(args: argparse.Namespace) -> nn.Module:
    model = mfsf2.create_model(f"mfsf2_tiny_{args.task}", drop_path_rate=0.0)
    cfg: Any = model.pretrained_cfg
    cfg.update(input_size=(3, args.size, args.size), crop_pct=1.0, crop_mode="squash")
    if args.weights:
        load_cnn(model, args.weights)
    return model.to(memory_format=torch.channels_last)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = parse_args(argv)
    check_training_arguments(args)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    try:
        model = build(args)
        parts = load_parts(args)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print(", ".join(f"{name}: {len(part.images)} images" for name, part in parts.items()), flush=True)
    make_loss = joint_loss if args.task == "clsseg" else segmentation_loss
    history = fit(model, args, make_loss(model, args, parts["train"]), lambda: measure(model, parts["val"]))
    results = make_results(model, args, parts, history)
    out = Path(args.out)
    mfsf2.save_pretrained(model, out, ham10000.LABELS if args.task == "clsseg" else None)
    (out / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    baselines = {"dice": results["mean_mask_dice"]["val"]}
    if args.task == "clsseg":
        baselines["balanced_accuracy"] = 1 / len(ham10000.LABELS)
    draw_curve(history, baselines, out / "curve.png")
    print(json.dumps(results, indent=2))
    return results


def make_results(
    model: nn.Module, args: argparse.Namespace, parts: dict[str, Part], history: History
) -> dict[str, Any]:
    """Measures on the validation and the test part, beside those of the mean training mask."""
    fixed = {name: mean_mask_dice(parts["train"].masks, parts[name].masks).mean().item() for name in ("val", "test")}
    return dict(
        val={key: value for key, value in history["val"][-1].items() if key not in ("step", "minutes")},
        test=measure(model, parts["test"]),
        mean_mask_dice=fixed,
        images={name: len(part.images) for name, part in parts.items()},
        steps=int(history["train"][-1]["step"]),
        minutes=history["train"][-1]["minutes"],
        dataset=args.dataset,
        task=args.task,
        size=args.size,
        seed=args.seed,
    )


if __name__ == "__main__":
    main()
