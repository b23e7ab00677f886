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
from engine.figures import check_figure
from PIL import Image
from readers import DataError
from readers.ham10000 import CLASSES
from readers.images import open_mask, open_rgb
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
        untrained: Any = mfsf2.create_model("mfsf2_tiny_clsseg", num_classes=len(CLASSES)).eval()
        untrained.pretrained_cfg["label_names"] = list(CLASSES)
        return untrained
    if Path(checkpoint).is_file():
        raise SystemExit(f"--checkpoint {checkpoint}: give the folder that holds the network and its config.json")
    try:
        model: Any = mfsf2.create_model(f"local-dir:{checkpoint}").eval()
    except (OSError, ValueError) as error:
        raise SystemExit(f"--checkpoint {checkpoint}: {error}") from error
    channels = model.pretrained_cfg["input_size"][0]
    if channels != 3:
        raise SystemExit(f"--checkpoint {checkpoint}: its network takes {channels} channels, images here have 3")
    return model


def read(path: str, mask: bool = False) -> Image.Image:
    try:
        return open_mask(path) if mask else open_rgb(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise SystemExit(f"{path}: not a readable image: {error}") from error


def classify(model: Any, image: Image.Image) -> dict[str, float]:
    """Probabilities by label, the largest first."""
    cfg = model.pretrained_cfg
    transform: Any = create_transform(**resolve_data_config(pretrained_cfg=cfg))
    forward = getattr(model, "forward_logits", model)
    with torch.inference_mode():
        probabilities = forward(transform(image).unsqueeze(0)).softmax(1)[0].tolist()
    labels = cfg.get("label_names") or [f"class {index}" for index in range(len(probabilities))]
    return dict(sorted(zip(labels, probabilities), key=lambda pair: -pair[1]))


def segment(model: Any, image: Image.Image) -> np.ndarray:
    """Predicted foreground of the whole image, bool ``(height, width)``."""
    data = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    transform: Any = create_transform(**{**data, "crop_pct": 1.0, "crop_mode": "squash"})
    with torch.inference_mode():
        # Of a network of both tasks, the masks alone.
        logits = getattr(model, "forward_masks", model)(transform(image).unsqueeze(0))
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
    try:
        check_figure(Path(args.figure))
    except DataError as error:
        raise SystemExit(f"--figure {error}") from error
    images = [read(path) for path in args.images]
    truths = [
        np.array(read(path, mask=True).resize(image.size, Image.Resampling.NEAREST)) > 127
        for path, image in zip(args.masks or (), images)
    ]
    model = load_network(args.checkpoint)
    print("research only, not a diagnostic device")
    results = []
    if "head" in model.head_names and model.num_classes:
        results = [classify(model, image) for image in images]
        for path, ranked in zip(args.images, results):
            print(f"\n{path}")
            for label, probability in ranked.items():
                print(f"  {probability:6.1%}  {label:<6} {CLASSES.get(label, '')}".rstrip())
    if "mask_head" in model.head_names:
        note = "research only" if args.checkpoint else "UNTRAINED WEIGHTS: means nothing"
        masks = [segment(model, image) for image in images]
        for path, mask in zip(args.images, masks):
            print(f"\n{path}: {mask.mean():.1%} of it is predicted to be foreground")
        draw(images, masks, truths, note, args.figure)
    return results


if __name__ == "__main__":
    main()
