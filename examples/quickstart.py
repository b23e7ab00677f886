"""Classify and segment images with a trained network, and draw what it sees.

    python examples/quickstart.py
    python examples/quickstart.py lesion.jpg --checkpoint runs/both/best --masks lesion_mask.png --figure lesion.png

Without an image it generates one; without ``--checkpoint`` it takes the weights that come with the package, trained on
HAM10000. The figure shows the outline of the predicted mask and, for each of the four scales, how the network weighs
its CNN against its transformer at every position.

Research only: this is not a diagnostic device.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine.figures import Cell, check_figure, draw_grid
from engine.lesion import generate_lesion
from engine.network import load_network, probabilities_of
from PIL import Image
from readers import DataError
from readers.images import open_mask, open_rgb
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from torch.nn import functional as F

from mfsf2.layers import foreground_probability

PRETRAINED = "mfsf2_tiny_clsseg.ham10000"
GENERATED = "generated image"
SEED = 1


@dataclass
class View:
    """What a network says of an image.

    Attributes:
        probabilities: by label, the largest first; empty without classes.
        mask: predicted foreground, bool ``(H, W)``; None without masks.
        gates: for each scale the CNN's weight against the transformer's, ``(h, w)`` from 0 to 1.
    """

    probabilities: dict[str, float]
    mask: Tensor | None
    gates: list[Tensor]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Classify and segment images. Research only.")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="pictures; without one, one is generated")
    parser.add_argument("--checkpoint", default=PRETRAINED, help="a network's saved folder, or its name with a tag")
    parser.add_argument("--masks", nargs="+", metavar="MASK", help="true mask of each image, drawn beside")
    parser.add_argument("--figure", default="quickstart.png", help="where to draw")
    args = parser.parse_args(argv)
    if args.masks and len(args.masks) != len(args.images):
        raise SystemExit(
            f"--masks: {len(args.masks)} masks for {len(args.images)} images; give the images first, then one mask for "
            "each, in order"
        )
    return args


def read(path: str, mask: bool = False) -> Image.Image:
    try:
        return open_mask(path) if mask else open_rgb(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise SystemExit(f"{path}: not a readable image: {error}") from error


def read_pairs(args: argparse.Namespace) -> tuple[list[str], list[Image.Image], list[Image.Image]]:
    """Names, images and, where they are known, true masks."""
    if not args.images:
        print("no image given: this one is generated, of no patient")
        image, mask = generate_lesion(SEED)
        return [GENERATED], [image], [mask]
    images = [read(path) for path in args.images]
    masks = [read(path, mask=True) for path in args.masks or ()]
    for path, mask, image in zip(args.masks or (), masks, images):
        if mask.size != image.size:
            raise SystemExit(f"{path}: mask of {mask.size} pixels for an image of {image.size}, width and height")
    return args.images, images, masks


@torch.inference_mode()
def look(model: Any, image: Image.Image) -> View:
    """Classes as the network was trained to see images; mask and gates of the whole frame."""
    data = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    whole: Any = create_transform(**{**data, "crop_pct": 1.0, "crop_mode": "squash"})
    x, probabilities, mask = whole(image).unsqueeze(0), {}, None
    gates = gate_maps(model, x)
    if model.head is not None and model.num_classes:
        transform: Any = create_transform(**data)
        probabilities = classify(model, transform(image).unsqueeze(0))
    if model.mask_head is not None:
        logits = F.interpolate(model.forward_masks(x), size=(image.height, image.width), mode="bilinear")
        mask = foreground_probability(logits)[0, 0] > 0.5
    return View(probabilities, mask, gates)


def classify(model: Any, x: Tensor) -> dict[str, float]:
    """Probabilities by label, the largest first."""
    probabilities = probabilities_of(model, model.forward_logits(x))[0].tolist()
    names = model.pretrained_cfg.get("label_names")
    labels = names or [f"class {index}" for index in range(len(probabilities))]
    return dict(sorted(zip(labels, probabilities), key=lambda pair: -pair[1]))


def gate_maps(model: Any, x: Tensor) -> list[Tensor]:
    """For each scale the weight of the CNN's map against the transformer's, ``(h, w)`` from 0 to 1."""
    maps: list[Tensor] = []
    hooks = [
        stage.gate.register_forward_pre_hook(lambda gate, inputs: maps.append(gate.weight(*inputs)[0, 0]))
        for stage in model.encoder.fusion.stages
    ]
    try:
        model.forward_features(x)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def show(name: str, view: View, descriptions: dict[str, str]) -> None:
    """Print what a network says of an image."""
    print(f"\n{name}")
    for label, probability in view.probabilities.items():
        print(f"  {probability:6.1%}  {label:<6} {descriptions.get(label, '')}".rstrip())
    if view.mask is not None:
        print(f"  {view.mask.float().mean():6.1%}  of it is predicted to be foreground")


def draw(images: list[Image.Image], views: list[View], truths: list[Image.Image], labels: list[str], path: str) -> None:
    """A row an image: the predicted outline in red, the true one in green where it is known, the gates."""
    rows = []
    for index, (image, view) in enumerate(zip(images, views)):
        picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        best = next(iter(view.probabilities.items()), None)
        outlines = [] if view.mask is None else [(view.mask, "red")]
        row = [Cell(picture, outlines=outlines, note="" if best is None else f"{best[0]} {best[1]:.0%}")]
        if truths:
            truth = torch.from_numpy(np.array(truths[index])) > 127
            row.append(Cell(picture, outlines=[(truth, "lime")]))
        rows.append(row + [Cell(picture, heat=gate, note=f"mean {gate.mean():.2f}") for gate in view.gates])
    strides = [f"gate, stride {4 * 2**scale}" for scale in range(len(views[0].gates))]
    titles = ["predicted", *(["true"] if truths else []), *strides]
    caption = "gates: red where the CNN counts more, blue where the transformer does; research only"
    try:
        draw_grid(rows, titles, labels, caption, Path(path))
    except OSError as error:
        raise SystemExit(f"--figure {path} could not be written: {error}") from error
    print(f"\ndrawn in {path}")


def main(argv: Sequence[str] | None = None) -> list[View]:
    """Print the classes of each image with their probabilities, and draw; returns what the network says of each."""
    args = parse_args(argv)
    try:
        check_figure(Path(args.figure), [*args.images, *(args.masks or ())])
    except DataError as error:
        raise SystemExit(f"--figure {error}") from error
    names, images, truths = read_pairs(args)
    try:
        model = load_network(args.checkpoint)
    except DataError as error:
        raise SystemExit(f"--{error}") from error
    print("research only, not a diagnostic device")
    views = [look(model, image) for image in images]
    descriptions = model.pretrained_cfg.get("label_descriptions") or {}
    for name, view in zip(names, views):
        show(name, view, descriptions)
    draw(images, views, truths, [Path(name).name for name in names], args.figure)
    return views


if __name__ == "__main__":
    main()
