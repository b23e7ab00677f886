"""Train ``mfsf2_tiny_rcm_cls`` on generated pairs whose class is decided by both modalities together.

    python examples/two_modalities.py --out runs/pairs --minutes 8

Each pair is an image with a brown or a blue-grey spot, and a stack of four grey slices with few or many bright discs,
like cells under a confocal microscope. The class is whether these two agree, blue with many or brown with few; colour
and number are drawn independently, so either modality alone says nothing about it. The trained network is measured with
both modalities, with either one alone, and with a mixture; ``history.json``, ``results.json`` and ``curve.png`` go to
``--out``, with the network.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from training import add_training_arguments, check_training_arguments, draw_curve, fit, load_cnn

import mfsf2

CLASSES = 2
NUM_SLICES = 4
TEST_PAIRS = 600


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
    if args.weights:
        load_cnn(model, args.weights)
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
    (out / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw_curve(history, dict.fromkeys(results["test"], 1 / CLASSES), out / "curve.png")
    print(json.dumps(results, indent=2))
    return results


if __name__ == "__main__":
    main()
