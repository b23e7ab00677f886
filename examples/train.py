"""Train mfsf2_tiny_cls on HAM10000, plainly: one process, images in memory, one schedule.

    python examples/train.py --data HAM10000 --out runs/tiny --weights resnet18.safetensors --minutes 27

The schedule follows the clock, so it ends in time on any machine; with --steps it follows the step count instead, and
runs of one seed are then equal. Research only: the result is not a diagnostic device.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ham10000 import CLASSES, load_images, read_samples, split_by_lesion
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with HAM10000_metadata.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, its curve and its figures")
    parser.add_argument("--weights", type=Path, help="safetensors with timm's ResNet-18 keys to start the CNN from")
    parser.add_argument("--minutes", type=float, default=27, help="length of the training")
    parser.add_argument("--steps", type=int, help="length in steps, in place of --minutes")
    parser.add_argument("--size", type=int, default=112, help="short side of the images in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3, help="of what starts at random; the CNN gets 0.3 of it")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--evaluations", type=int, default=5, help="how often validation is looked at")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.weights is not None and not args.weights.is_file():
        parser.error(f"--weights {args.weights} is no file")
    return args


def start_cnn(cnn: nn.Module, path: Path) -> None:
    """Load what a file of ResNet weights has; all the rest keeps its random start and is named."""
    result = cnn.load_state_dict(load_file(path), strict=False)
    if result.unexpected_keys:
        raise SystemExit(f"{path} has keys that the CNN does not: {result.unexpected_keys[:5]} ...")
    print(f"CNN from {path.name}; at random: {[k for k in result.missing_keys if 'num_batches' not in k]}")


def normalize(images: Tensor, cfg: dict[str, Any]) -> Tensor:
    """uint8 to what the network expects."""
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (images.float() / 255 - mean) / std


def augment(images: Tensor, size: int) -> Tensor:
    """Random square crop, flips and a quarter turn, one draw for each image."""
    crops = []
    for image in images:
        top, left = (int(torch.randint(extent - size + 1, ())) for extent in image.shape[1:])
        crop = image[:, top : top + size, left : left + size]
        crops.append(torch.rot90(crop.flip(2) if torch.rand(()) < 0.5 else crop, int(torch.randint(4, ())), (1, 2)))
    return torch.stack(crops)


@torch.no_grad()
def balanced_accuracy(model: nn.Module, images: Tensor, labels: Tensor, cfg: dict[str, Any]) -> tuple[float, list[float]]:
    """Mean recall over the classes, and each class's recall, on whole images."""
    model.eval()
    predicted = torch.cat([model(normalize(batch, cfg)).argmax(1) for batch in images.split(64)])
    recalls = [(predicted[labels == c] == c).float().mean().item() for c in range(len(CLASSES)) if (labels == c).any()]
    return sum(recalls) / len(recalls), recalls


def parameter_groups(model: Any, lr: float) -> list[dict[str, Any]]:
    """The pretrained CNN learns slowly; norms and biases are spared from weight decay."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = lr * (0.3 if name.startswith("encoder.cnn.") else 1.0)
        groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "base_lr": rate, **({} if decay else {"weight_decay": 0.0})}
        for (rate, decay), parameters in groups.items()
    ]


def train(model: Any, data: dict[str, tuple[Tensor, Tensor]], args: argparse.Namespace) -> list[dict[str, float]]:
    """Train in place; returns the history, an entry for each step, validation where it was measured."""
    images, labels = data["train"]
    cfg = model.pretrained_cfg
    counts = torch.bincount(labels, minlength=len(CLASSES)).float()
    # Rare classes are drawn more often, by the root of their frequency; the rest of the imbalance is taken out of the
    # loss by adding the log frequency of what is drawn to the logits ("logit adjustment").
    drawn = counts.sqrt() / counts.sqrt().sum()
    prior = drawn.clamp_min(1e-12).log()
    per_image = (drawn / counts.clamp_min(1))[labels]
    optimizer = torch.optim.AdamW(parameter_groups(model, args.lr), weight_decay=args.weight_decay)
    history: list[dict[str, float]] = []
    start, step, evaluated, done = time.monotonic(), 0, 0, 0.0
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * min(1, done / 0.1 + 1e-3) * 0.5 * (1 + math.cos(math.pi * done))
        model.train()
        chosen = torch.multinomial(per_image, args.batch_size, replacement=True)
        logits = model(normalize(augment(images[chosen], args.size), cfg))
        loss = F.cross_entropy(logits + prior, labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        elapsed = time.monotonic() - start
        done = step / args.steps if args.steps else elapsed / (60 * args.minutes)
        history.append({"step": step, "minutes": elapsed / 60, "loss": loss.item()})
        if done * args.evaluations >= evaluated + 1:
            evaluated = int(done * args.evaluations)
            history[-1]["val"] = balanced_accuracy(model, *data["val"], cfg)[0]
        if step % 25 == 0 or "val" in history[-1]:
            print({key: round(value, 4) for key, value in history[-1].items()}, flush=True)
    return history


def plot(history: list[dict[str, float]], path: Path) -> None:
    """Training loss and validation figure over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps, losses = [h["step"] for h in history], torch.tensor([h["loss"] for h in history])
    window = max(1, len(history) // 40)
    smooth = F.avg_pool1d(losses.view(1, 1, -1), window, 1).flatten()
    measured = [(h["step"], h["val"]) for h in history if "val" in h]
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    left.plot(steps, losses, color="tab:blue", alpha=0.2)
    left.plot(steps[window - 1 :], smooth, color="tab:blue", label="training loss (mean of neighbours)")
    left.set(xlabel="step", ylabel="training loss")
    right = left.twinx()
    right.plot(*zip(*measured), "o-", color="tab:red", label="balanced accuracy, validation lesions")
    right.axhline(1 / len(CLASSES), color="tab:gray", linestyle=":", label="chance")
    right.set(ylabel="balanced accuracy", ylim=(0, 1))
    figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.97), ncols=1, fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = parse_args(argv)
    torch.manual_seed(args.seed)
    parts = split_by_lesion(read_samples(args.data), args.seed)
    for part, samples in parts.items():
        counts = [sum(s.label == c for s in samples) for c in range(len(CLASSES))]
        print(f"{part}: {len({s.lesion for s in samples})} lesions, images {dict(zip(CLASSES, counts))}")
    data = {part: load_images(samples, args.size) for part, samples in parts.items()}
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", num_classes=len(CLASSES))
    if args.weights is not None:
        start_cnn(model.encoder.cnn, args.weights)
    history = train(model, data, args)
    test, recalls = balanced_accuracy(model, *data["test"], model.pretrained_cfg)
    results = {
        "test_balanced_accuracy": test,
        "test_recall": dict(zip(CLASSES, recalls)),
        "val_balanced_accuracy": history[-1].get("val"),
        "steps": len(history),
        "minutes": history[-1]["minutes"],
        "seed": args.seed,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    model.pretrained_cfg.update(input_size=(3, args.size, args.size), crop_pct=1.0, license="cc-by-nc-4.0")
    mfsf2.save_pretrained(model, args.out / "model", label_names=CLASSES)
    (args.out / "history.json").write_text(json.dumps(history))
    (args.out / "results.json").write_text(json.dumps(results, indent=2))
    plot(history, args.out / "curve.png")
    print(json.dumps(results, indent=2))
    return results


if __name__ == "__main__":
    main()
