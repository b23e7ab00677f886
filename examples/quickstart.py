"""Classify and segment images with a trained model, and draw what it sees.

    python examples/quickstart.py
    python examples/quickstart.py lesion.jpg --checkpoint runs/both/best --masks lesion_mask.png --figure lesion.png

Without an image it generates one; without ``--checkpoint`` it takes the weights that come with the package, trained on
HAM10000. The figure shows the outlines of the predicted mask and, for each of the four scales, how the model weighs its
CNN against its transformer at every position.

Research only: this is not a diagnostic device.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from datasets import DataError, MaskFormat
from datasets.images import open_rgb
from datasets.masks import open_mask
from figures import Cell, ColorBar, check_figure, draw_grid, outlines_of
from lesion import generate_lesion
from models import class_names, load_model, mask_format_of, probabilities_of
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

PRETRAINED = "mfsf2_tiny_clsseg.ham10000"
GENERATED = "generated image"
SEED = 1
GATES = ColorBar("weight of the CNN", "coolwarm")


@dataclass
class View:
    """What a model says of an image.

    Attributes:
        probabilities: by label, the largest first; empty without classes.
        mask: predicted class indices, uint8 ``(H, W)``; None without masks.
        gates: for each scale the CNN's weight against the transformer's, ``(h, w)`` from 0 to 1.
    """

    probabilities: dict[str, float]
    mask: Tensor | None
    gates: list[Tensor]


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an option, not how all of them are used.

    The quickstart runs with few packages installed, so not with the other scripts' command line.
    """

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {message}\n(--help lists the options)\n")
        raise SystemExit(2)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description="Classify and segment images. Research only.")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="pictures; without one, one is generated")
    parser.add_argument("--checkpoint", default=PRETRAINED, help="folder of a model, or its name with a tag")
    parser.add_argument("--masks", nargs="+", metavar="MASK", help="true mask of each image, drawn beside it")
    parser.add_argument("--figure", default="quickstart.png", help="where to draw, a PNG or PDF file")
    args = parser.parse_args(argv)
    if args.masks and len(args.masks) != len(args.images):
        raise SystemExit(
            f"--masks: {len(args.masks)} masks for {len(args.images)} images; give the images first, then one mask for "
            "each, in order"
        )
    return args


def read_image(path: str) -> Image.Image:
    """An image, upright.

    Raises:
        DataError: not a readable image.
    """
    try:
        return open_rgb(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a readable image: {error}") from error


def read_mask(path: str, image: str, mask_format: MaskFormat) -> Tensor:
    """Class indices of an image's mask, uint8 ``(H, W)``.

    Raises:
        DataError: not a usable mask, or one of another size than the image.
    """
    try:
        return torch.from_numpy(open_mask(path, image, mask_format).copy())
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a usable mask: {error}") from error


@torch.inference_mode()
def look(model: Any, image: Image.Image) -> View:
    """Classes as the model was trained to see images; mask and gates of the whole frame."""
    from timm.data import create_transform, resolve_data_config

    data = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    whole: Any = create_transform(**{**data, "crop_pct": 1.0, "crop_mode": "squash"})
    x, probabilities, mask = whole(image).unsqueeze(0), {}, None
    gates = gate_maps(model, x)
    if model.head is not None and model.num_classes:
        transform: Any = create_transform(**data)
        probabilities = classify(model, transform(image).unsqueeze(0))
    if model.mask_head is not None:
        logits = F.interpolate(model.forward_masks(x), size=(image.height, image.width), mode="bilinear")[0]
        mask = (logits[0] > 0 if len(logits) == 1 else logits.argmax(0)).to(torch.uint8)
    return View(probabilities, mask, gates)


def classify(model: Any, x: Tensor) -> dict[str, float]:
    """Probabilities by label, the largest first."""
    probabilities = probabilities_of(model, model.forward_logits(x))[0].tolist()
    return dict(sorted(zip(class_names(model), probabilities), key=lambda pair: -pair[1]))


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


def show(name: str, view: View, descriptions: dict[str, str], foregrounds: Sequence[str]) -> None:
    """Print what a model says of an image."""
    print(f"\n{name}")
    for label, probability in view.probabilities.items():
        print(f"  {probability:6.1%}  {label:<6} {descriptions.get(label, '')}".rstrip())
    if view.mask is not None:
        for index, foreground in enumerate(foregrounds, 1):
            print(f"  {(view.mask == index).float().mean():6.1%}  of it is predicted to be {foreground}")


def draw(
    labels: Sequence[str],
    images: Sequence[Image.Image],
    views: Sequence[View],
    truths: Sequence[Tensor],
    mask_format: MaskFormat,
    path: Path,
) -> None:
    """One row per image: the predicted outlines, the true ones where they are known, and the gates."""
    rows = []
    for index, (label, image, view) in enumerate(zip(labels, images, views)):
        picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        predicted = [] if view.mask is None else outlines_of(view.mask, mask_format, is_predicted=True)
        best = "".join(f"{name} ({value:.2f})" for name, value in [*view.probabilities.items()][:1])
        row = [Cell(picture, outlines=predicted, note=best, label=label)]
        if truths:
            row.append(Cell(picture, outlines=outlines_of(truths[index], mask_format, is_predicted=False)))
        rows.append(row + [Cell(picture, heat=gate, note=f"mean {gate.mean():.2f}") for gate in view.gates])
    strides = [f"gate, stride {4 * 2**scale}" for scale in range(len(views[0].gates))]
    caption = "gates: how the CNN counts against the transformer; research only, not a diagnostic device"
    draw_grid(rows, ["predicted", *(["true"] if truths else []), *strides], caption, path, GATES)
    print(f"\ndrawn in {path}")


def run(args: argparse.Namespace) -> list[View]:
    """What the model says of each image, printed and drawn.

    Raises:
        DataError: a file that cannot be used, or a model that cannot be loaded.
    """
    images = [read_image(path) for path in args.images]
    try:
        model = load_model(args.checkpoint)
    except DataError as error:
        raise DataError(f"--{error}") from error
    mask_format = mask_format_of(model)
    truths = [read_mask(mask, image, mask_format) for mask, image in zip(args.masks or (), args.images)]
    names = args.images
    if not images:
        print("no image given: this one is generated, of no patient")
        image, mask = generate_lesion(SEED)
        names, images = [GENERATED], [image]
        # A mask of one foreground says nothing on several classes.
        truths = [torch.from_numpy(np.array(mask) // 255)] if mask_format.num_classes == 1 else []
    print("research only, not a diagnostic device")
    views = [look(model, image) for image in images]
    descriptions = model.pretrained_cfg.get("label_descriptions") or {}
    for name, view in zip(names, views):
        show(name, view, descriptions, mask_format.foregrounds)
    draw([Path(name).name for name in names], images, views, truths, mask_format, Path(args.figure))
    return views


def main(argv: Sequence[str] | None = None) -> list[View]:
    """Print the classes of each image with their probabilities, and draw; returns what the model says of each."""
    args = parse_args(argv)
    try:
        check_figure(Path(args.figure), [*args.images, *(args.masks or ())])
    except DataError as error:
        raise SystemExit(f"--figure {error}") from error
    try:
        return run(args)
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
