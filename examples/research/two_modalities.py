"""Train ``mfsf2_tiny_rcm_cls`` on generated pairs whose class is decided by both modalities together.

    python examples/two_modalities.py --out runs/pairs

Each pair is an image with a brown or a blue-grey spot, and a stack of four grey slices with few or many bright discs,
like cells under a confocal microscope. The class is whether these two agree, blue with many or brown with few; colour
and number are drawn independently, so either modality alone says nothing about it. The trained network is measured with
both modalities, with either one alone, and with a mixture; ``history.json``, ``results.json`` and ``curves.png`` go to
``--out``, with the network.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from engine.build import load_cnn
from engine.run import draw_curves
from readers import DataError
from torch import Tensor
from torch.nn import functional as F

import mfsf2

CLASSES = 2
NUM_SLICES = 4
TEST_PAIRS = 600
LOG_EVERY = 100


def generate_pairs(n: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images ``(n, 3, size, size)``, stacks ``(n, 4, 1, 3/4 size, 3/4 size)`` and classes ``(n,)``."""
    blue = torch.randint(2, (n,), generator=generator)
    many = torch.randint(2, (n,), generator=generator)
    return _spots(blue, size, generator), _slices(many, size * 3 // 4, generator), (blue == many).long()


def _uniform(low: float, high: float, generator: torch.Generator, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _distance(centre: Tensor, size: int) -> Tensor:
    """Distance of each pixel from centres ``(2, ..., 1, 1)``, in units of half the side."""
    line = torch.linspace(-1, 1, size)
    return ((line.view(-1, 1) - centre[0]).square() + (line - centre[1]).square()).sqrt()


def _spots(blue: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Skin-coloured images with a spot, brown or blue-grey."""
    n = len(blue)
    radius = _uniform(0.4, 0.7, generator, n, 1, 1)
    inside = torch.sigmoid(12 * (radius - _distance(_uniform(-0.3, 0.3, generator, 2, n, 1, 1), size))).unsqueeze(1)
    colours = torch.tensor([[0.45, 0.28, 0.18], [0.35, 0.38, 0.50]])
    spot = colours[blue].view(n, 3, 1, 1) * _uniform(0.8, 1.2, generator, n, 1, 1, 1)
    skin = torch.tensor([0.85, 0.65, 0.55]).view(1, 3, 1, 1) * _uniform(0.9, 1.1, generator, n, 3, 1, 1)
    noise = 0.05 * torch.randn(n, 3, size, size, generator=generator)
    return (inside * spot + (1 - inside) * skin + noise).clamp(0, 1)


def _slices(many: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Dark slices with bright discs, 3 to 6 or 12 to 18 in each stack's slices."""
    n = len(many)
    counts = torch.where(
        many == 1, torch.randint(12, 19, (n,), generator=generator), torch.randint(3, 7, (n,), generator=generator)
    )
    stack = torch.full((n, NUM_SLICES, size, size), 0.25)
    for disc in range(int(counts.max())):
        centre = _uniform(-1, 1, generator, 2, n, NUM_SLICES, 1, 1)
        bright = torch.sigmoid(40 * (0.14 - _distance(centre, size)))
        stack = torch.maximum(stack, 0.8 * bright * (disc < counts).view(-1, 1, 1, 1))
    return (stack + 0.05 * torch.randn(stack.shape, generator=generator)).clamp(0, 1).unsqueeze(2)


def normalize(images: Tensor) -> Tensor:
    """From [0, 1] to about zero mean and unit deviation."""
    return (images - 0.5) / 0.25


@torch.inference_mode()
def measure(model: Any, images: Tensor, stacks: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy with both modalities, with either one, and where every third image and every third stack is missing."""
    model.eval()
    position = torch.arange(len(labels))
    has_image, has_stack = position % 3 != 0, position % 3 != 1
    right: dict[str, list[Tensor]] = {"both": [], "image_alone": [], "stack_alone": [], "a_third_missing_each": []}
    for part in position.split(60):
        x, s = normalize(images[part]), normalize(stacks[part])
        outputs = (model(x, s), model(x), model(None, s), model(x, s, has_image[part], has_stack[part]))
        for values, logits in zip(right.values(), outputs):
            values.append(logits.argmax(1) == labels[part])
    return {name: torch.cat(values).float().mean().item() for name, values in right.items()}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the network of two modalities on generated pairs.")
    parser.add_argument("--out", required=True, help="folder for the network and the results")
    parser.add_argument("--weights", help="safetensors file with timm's resnet18 keys, to start the CNN branch from")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.steps < 1 or args.batch_size < 2:
        parser.error("--steps must be at least 1, --batch-size at least 2")
    return args


def train(model: Any, args: argparse.Namespace) -> list[dict[str, float]]:
    """Train in place on ever new pairs; returns the logged steps."""
    generator = torch.Generator().manual_seed(args.seed)
    held_out = generate_pairs(TEST_PAIRS, args.size, torch.Generator().manual_seed(args.seed + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps, pct_start=0.05)
    history: list[dict[str, float]] = []
    losses: list[float] = []
    for step in range(1, args.steps + 1):
        model.train()
        images, stacks, labels = generate_pairs(args.batch_size, args.size, generator)
        loss = F.cross_entropy(model(normalize(images), normalize(stacks)), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % LOG_EVERY == 0 or step == args.steps:
            history.append(dict(step=step, loss=sum(losses) / len(losses), **measure(model, *held_out)))
            print("  ".join(f"{name} {value:.4g}" for name, value in history[-1].items()), flush=True)
            losses = []
    return history


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train and measure; returns the results."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model: Any = mfsf2.create_model(
        "mfsf2_tiny_rcm_cls", num_classes=CLASSES, num_slices=NUM_SLICES, drop_path_rate=0.0
    )
    if args.weights:
        try:
            load_cnn(model, args.weights)
        except DataError as error:
            raise SystemExit(str(error)) from error
    history = train(model, args)
    test = generate_pairs(TEST_PAIRS, args.size, torch.Generator().manual_seed(args.seed + 2))
    results = dict(test=measure(model, *test), chance=1 / CLASSES, steps=args.steps, size=args.size, seed=args.seed)
    out = Path(args.out)
    mfsf2.save_pretrained(model, out)
    (out / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw_curves(history, list(results["test"]), out / "curves.png", over="step")
    print(json.dumps(results, indent=2))
    return results


if __name__ == "__main__":
    main()
