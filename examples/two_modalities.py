"""Train ``mfsf2_tiny_rcm_cls`` on generated pairs whose class is decided by both modalities together.

    python examples/two_modalities.py --out runs/pairs --minutes 8

Each pair is an image with a striped spot, whose stripes have one of three directions a, and a stack of four grey
slices with bright discs of one of three sizes b, like cells under a confocal microscope. The class is (a + b) mod 3,
with a and b drawn independently: either alone says nothing about it. The trained network is measured with both
modalities, with either one alone, and with a mixture; ``results.json`` and ``curve.png`` go to ``--out``, with the
network.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from training import add_training_arguments, check_training_arguments, draw_curve, fit

import mfsf2

CLASSES = 3
NUM_SLICES = 4
TEST_PAIRS = 600


def generate_pairs(n: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images ``(n, 3, size, size)``, stacks ``(n, 4, 1, 3/4 size, 3/4 size)`` and classes ``(n,)``."""
    a = torch.randint(CLASSES, (n,), generator=generator)
    b = torch.randint(CLASSES, (n,), generator=generator)
    return _spots(a, size, generator), _slices(b, size * 3 // 4, generator), (a + b) % CLASSES


def _uniform(low: float, high: float, generator: torch.Generator, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _coordinates(size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns from -1 to 1, each ``(1, size, size)``."""
    line = torch.linspace(-1, 1, size)
    return line.view(1, -1, 1).expand(1, size, size), line.view(1, 1, -1).expand(1, size, size)


def _spots(direction: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Skin-coloured images with a dark spot, whose stripes run in one of three directions."""
    n = len(direction)
    y, x = _coordinates(size)
    centre = _uniform(-0.3, 0.3, generator, 2, n, 1, 1)
    radius = _uniform(0.45, 0.65, generator, n, 1, 1)
    inside = torch.sigmoid(12 * (radius - ((y - centre[0]).square() + (x - centre[1]).square()).sqrt()))
    angle = (math.pi * direction / CLASSES).view(-1, 1, 1) + _uniform(-0.1, 0.1, generator, n, 1, 1)
    wave = torch.sin(14 * (x * angle.cos() + y * angle.sin()) + _uniform(0, 2 * math.pi, generator, n, 1, 1))
    dark = inside * (0.35 + 0.25 * wave)
    skin = torch.tensor([0.85, 0.65, 0.55]).view(1, 3, 1, 1) * _uniform(0.9, 1.1, generator, n, 3, 1, 1)
    noise = 0.04 * torch.randn(n, 3, size, size, generator=generator)
    return (skin * (1 - dark.unsqueeze(1)) + noise).clamp(0, 1)


def _slices(cell: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Dark slices with bright discs of one of three sizes; as many as cover the same area."""
    n = len(cell)
    y, x = _coordinates(size)
    radius = torch.tensor([0.08, 0.14, 0.25])[cell]
    counts = torch.tensor([40, 13, 4])[cell]
    stack = torch.full((n, NUM_SLICES, size, size), 0.25)
    for disc in range(int(counts.max())):
        centre = _uniform(-1, 1, generator, 2, n, NUM_SLICES, 1, 1)
        distance = ((y - centre[0]).square() + (x - centre[1]).square()).sqrt()
        bright = torch.sigmoid(40 * (radius.view(-1, 1, 1, 1) - distance))
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


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Train the network of two modalities on generated pairs.")
    add_training_arguments(parser)
    parser.set_defaults(minutes=8.0, size=64)
    args = parser.parse_args(argv)
    check_training_arguments(args)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model: Any = mfsf2.create_model(
        "mfsf2_tiny_rcm_cls", num_classes=CLASSES, num_slices=NUM_SLICES, drop_path_rate=0.0
    )
    held_out = {
        name: generate_pairs(TEST_PAIRS, args.size, torch.Generator().manual_seed(seed))
        for name, seed in (("val", args.seed + 1), ("test", args.seed + 2))
    }
    generator = torch.Generator().manual_seed(args.seed)

    def batch_loss() -> Tensor:
        images, stacks, labels = generate_pairs(args.batch_size, args.size, generator)
        return F.cross_entropy(model(normalize(images), normalize(stacks)), labels)

    history = fit(model, args, batch_loss, lambda: measure(model, *held_out["val"]))
    results = dict(
        test=measure(model, *held_out["test"]),
        chance=1 / CLASSES,
        steps=int(history["train"][-1]["step"]),
        minutes=history["train"][-1]["minutes"],
        size=args.size,
        seed=args.seed,
    )
    out = Path(args.out)
    mfsf2.save_pretrained(model, out)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw_curve(history, dict.fromkeys(results["test"], 1 / CLASSES), out / "curve.png")
    print(json.dumps(results, indent=2))
    return results


if __name__ == "__main__":
    main()
