"""Train ``mfsf2_tiny_cls`` on HAM10000, on a CPU in half an hour.

    python examples/train.py --data HAM10000 --out runs/tiny --weights resnet18.safetensors --minutes 30

``--out`` receives the network after the last step (``mfsf2.create_model("local-dir:OUT")`` loads it), ``history.json``,
``results.json`` and ``curve.png``. The lesions of the test part are looked at once, at the end; those of the validation
part choose nothing, they only draw the curve.

The images are CC BY-NC 4.0: research only, and so is a network trained on them.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from augment import augment
from evaluation import balanced_accuracy, head_inputs, logits_of, normalize, path_slices, recalls, stored_size
from ham10000 import LABELS, Record, labels_of, load_images, read_records, split_by_lesion
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2

LOG_EVERY = 25
WARM_UP = 0.05


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train mfsf2_tiny_cls on HAM10000.")
    parser.add_argument("--data", required=True, help="folder of HAM10000 as it is published")
    parser.add_argument("--out", required=True, help="folder for the network and the results")
    parser.add_argument("--weights", help="safetensors file with timm's resnet18 keys, to start the CNN branch from")
    parser.add_argument("--minutes", type=float, default=30.0, help="time for training and validation together")
    parser.add_argument("--steps", type=int, help="train this many steps in place of --minutes")
    parser.add_argument("--size", type=int, default=112, help="height and width of the network's input")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of all that starts at random")
    parser.add_argument("--cnn-lr", type=float, default=2e-4, help="peak learning rate of the CNN branch")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--path-drop", type=float, default=0.5, help="how often r4 and P are each withheld")
    parser.add_argument("--evaluations", type=int, default=5, help="how often to validate")
    parser.add_argument("--limit", type=int, help="use only this many images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def load_cnn(model: nn.Module, path: str) -> None:
    """Start the CNN branch from a file of timm's ResNet keys; it may be partial, what it lacks is printed.

    timm starts the last norm of a block at 0, so that a fresh block is its shortcut. For fresh blocks on top of trained
    ones that would leave r4 ten times smaller than p4, and the head would hardly see it: these norms start at 1.
    """
    if not Path(path).is_file():
        raise SystemExit(f"--weights {path}: no such file; give a safetensors file with timm's resnet18 keys")
    try:
        state = load_file(path)
        result = model.encoder.cnn.load_state_dict(state, strict=False)  # type: ignore[union-attr, operator]
    except (SafetensorError, RuntimeError) as error:
        raise SystemExit(f"--weights {path}: not weights of timm's resnet18: {error}") from error
    if len(result.unexpected_keys) == len(state):
        raise SystemExit(f"--weights {path}: none of its {len(state)} keys is one of timm's resnet18")
    random = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    for name, parameter in model.encoder.cnn.named_parameters():  # type: ignore[union-attr]
        if name in random and parameter.ndim == 1 and name.endswith("bn2.weight"):
            nn.init.ones_(parameter)
    print(f"CNN branch: {len(state) - len(result.unexpected_keys)} tensors loaded, unused: {result.unexpected_keys}")
    print(f"CNN branch: {len(random)} tensors start at random: {', '.join(random) or 'none'}", flush=True)


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


def make_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW: a lower rate for the CNN branch, which starts trained; no decay for biases, norms and the like."""
    spared = model.no_weight_decay()  # type: ignore[operator]
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        key = (name.startswith("encoder.cnn."), parameter.ndim > 1 and name not in spared)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        {"params": params, "peak": args.cnn_lr if cnn else args.lr, "weight_decay": args.weight_decay * decay}
        for (cnn, decay), params in groups.items()
    )


def lr_factor(progress: float) -> float:
    """Linear warm-up, then half a cosine to 0; ``progress`` runs from 0 to 1."""
    if progress < WARM_UP:
        return max(progress, 1e-3) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def train(
    model: nn.Module, args: argparse.Namespace, data: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, list[dict[str, float]]]:
    """Train in place; returns the logged steps and the validations.

    With ``--minutes`` the schedule follows the clock and not a count of steps, so that the learning rate reaches 0 in
    time whatever else the machine has to do. Classes are drawn with the square root of their frequency; the loss
    corrects the logits for what is left of the imbalance (Menon et al., ICLR 2021), since each class counts the same.
    """
    cfg: Any = model.pretrained_cfg
    images, labels = data["train"]
    counts = labels.bincount(minlength=len(LABELS)).float()
    weights = counts.clamp(min=1).rsqrt()[labels]
    prior = (counts.sqrt() / counts.sqrt().sum()).clamp(min=1e-6).log()
    balance_paths(model, normalize(augment(images[torch.randperm(len(images))[:64]], args.size), cfg))
    optimizer = make_optimizer(model, args)
    model.head.register_forward_pre_hook(PathDropout(model, args.path_drop))  # type: ignore[union-attr]
    history: dict[str, list[dict[str, float]]] = {"train": [], "val": []}
    losses: list[float] = []
    start, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * lr_factor(progress)
        batch = torch.multinomial(weights, args.batch_size, replacement=True)
        model.train()
        logits = model(normalize(augment(images[batch], args.size), cfg))
        loss = F.cross_entropy(logits + prior, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        losses.append(loss.item())
        step += 1
        minutes = (time.monotonic() - start) / 60
        progress = step / args.steps if args.steps else minutes / args.minutes
        if step % LOG_EVERY == 0 or progress >= 1:
            entry = dict(
                step=step, minutes=minutes, loss=sum(losses) / len(losses), lr=optimizer.param_groups[-1]["lr"]
            )
            print("step {step:5d}  {minutes:6.2f} min  loss {loss:.4f}  lr {lr:.2e}".format(**entry), flush=True)
            history["train"].append(entry)
            losses = []
        if progress >= (len(history["val"]) + 1) / args.evaluations or progress >= 1:
            value = balanced_accuracy(logits_of(model, head_inputs(model, data["val"][0], cfg)), data["val"][1])
            history["val"].append(dict(step=step, minutes=minutes, balanced_accuracy=value))
            print(f"step {step:5d}  validation balanced accuracy {value:.4f}", flush=True)
    return history


def draw(history: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Training loss and validation balanced accuracy over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    left.plot([e["step"] for e in history["train"]], [e["loss"] for e in history["train"]], color="C0")
    right.plot([e["step"] for e in history["val"]], [e["balanced_accuracy"] for e in history["val"]], "o-", color="C1")
    right.axhline(1 / len(LABELS), color="C1", linestyle=":", linewidth=1)
    left.set(xlabel=f"step ({history['train'][-1]['minutes']:.1f} minutes in all)", ylim=(0, None))
    left.set_ylabel("training loss", color="C0")
    right.set_ylabel("validation balanced accuracy (dotted: chance)", color="C1")
    right.set_ylim(0, 1)
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = parse_args(argv)
    steps = 1 if args.steps is None else args.steps
    if min(steps, args.evaluations) < 1 or args.minutes <= 0 or args.batch_size < 2:
        raise SystemExit("--steps and --evaluations must be at least 1, --minutes above 0, --batch-size at least 2")
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
    draw(history, out / "curve.png")
    print(json.dumps(results, indent=2))
    return results


def load_part(records: list[Record], short_side: int) -> tuple[Tensor, Tensor]:
    """Images and class indices of one part of the split."""
    if not records:
        raise ValueError("a part of the split is empty: use more images (at least three lesions of one class)")
    return load_images(records, short_side), labels_of(records)


if __name__ == "__main__":
    main()
