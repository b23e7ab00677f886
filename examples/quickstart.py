"""Classify and segment images with a trained network, and draw the predicted outlines.

    python examples/quickstart.py lesion.jpg --checkpoint runs/both --masks lesion_mask.png --figure outlines.png

Research only: this is not a diagnostic device.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation import mask_logits
from ham10000 import CLASS_NAMES, LABELS
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch.nn import functional as F

import mfsf2
from mfsf2.layers import foreground_probability

UNTRAINED = "UNTRAINED WEIGHTS: what is predicted below means nothing (give --checkpoint)"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Classify and segment images. Research only.")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--checkpoint", help="folder that a training script wrote; without it nothing is trained")
    parser.add_argument("--masks", nargs="+", metavar="MASK", help="true mask of each image, drawn beside")
    parser.add_argument("--figure", default="quickstart.png", help="where to draw the outlines of the masks")
    args = parser.parse_args(argv)
    if args.masks and len(args.masks) != len(args.images):
        raise SystemExit(f"--masks: {len(args.masks)} masks for {len(args.images)} images; give one for each, in order")
    return args


def load_network(checkpoint: str | None) -> Any:
    """The network of a folder, or an untrained one of both tasks."""
    if checkpoint is None:
        print(UNTRAINED)
        return mfsf2.create_model("mfsf2_tiny_clsseg", num_classes=len(LABELS)).eval()
    try:
        return mfsf2.create_model(f"local-dir:{checkpoint}").eval()
    except (OSError, ValueError) as error:
        raise SystemExit(f"--checkpoint {checkpoint}: {error}") from error


def read(path: str, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except OSError as error:
        raise SystemExit(f"{path}: not a readable image: {error}") from error


def classify(model: Any, image: Image.Image) -> dict[str, float]:
    """Probabilities by label, the largest first."""
    cfg = model.pretrained_cfg
    transform: Any = create_transform(**resolve_data_config(pretrained_cfg=cfg))
    forward = getattr(model, "forward_logits", model)
    with torch.inference_mode():
        probabilities = forward(transform(image).unsqueeze(0)).softmax(1)[0].tolist()
    labels = cfg.get("label_names") or LABELS
    return dict(sorted(zip(labels, probabilities, strict=True), key=lambda pair: -pair[1]))


def segment(model: Any, image: Image.Image) -> np.ndarray:
    """Predicted foreground of the whole image, bool ``(height, width)``."""
    data = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    transform: Any = create_transform(**{**data, "crop_pct": 1.0, "crop_mode": "squash"})
    with torch.inference_mode():
        logits = mask_logits(model, transform(image).unsqueeze(0))
        logits = F.interpolate(logits, size=(image.height, image.width), mode="bilinear")
    return (foreground_probability(logits)[0, 0] > 0.5).numpy()


def draw(
    images: list[Image.Image], predicted: list[np.ndarray], truths: list[np.ndarray], note: str, path: str
) -> None:
    """One column an image: above the predicted outline in red, below, where it is known, the true one in green."""
    from matplotlib.figure import Figure

    rows = [("predicted", "red", predicted)] + ([("true", "lime", truths)] if truths else [])
    figure = Figure(figsize=(3 * len(images) + 0.4, 2.6 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(images), squeeze=False)
    for line, (label, colour, masks) in zip(axes, rows):
        for axis, image, mask in zip(line, images, masks):
            axis.imshow(image)
            if mask.any() and not mask.all():
                axis.contour(mask, levels=[0.5], colors=colour, linewidths=1.5)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, color="black")
    figure.suptitle(note, fontsize=9)
    figure.savefig(path, dpi=120)
    print(f"\nmasks drawn in {path}")


def main(argv: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Print the classes of each image with their probabilities, draw the masks; returns the probabilities by label."""
    args = parse_args(argv)
    if not Path(args.figure).absolute().parent.is_dir():
        raise SystemExit(f"--figure {args.figure}: no such folder")
    images = [read(path, "RGB") for path in args.images]
    truths = [
        np.array(read(path, "L").resize(image.size, Image.Resampling.NEAREST)) > 127
        for path, image in zip(args.masks or (), images)
    ]
    model = load_network(args.checkpoint)
    print("research only, not a diagnostic device")
    results = []
    if "head" in model.head_names:
        results = [classify(model, image) for image in images]
        for path, ranked in zip(args.images, results):
            print(f"\n{path}")
            for label, probability in ranked.items():
                print(f"  {probability:6.1%}  {label:<6} {CLASS_NAMES.get(label, '')}".rstrip())
    if "mask_head" in model.head_names:
        note = "research only" if args.checkpoint else "UNTRAINED WEIGHTS: means nothing"
        draw(images, [segment(model, image) for image in images], truths, note, args.figure)
    return results


if __name__ == "__main__":
    main()
