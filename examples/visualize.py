"""Figures for a paper: where models look (Grad-CAM), and predicted outlines beside true ones.

    python examples/visualize.py gradcam --checkpoints runs/a/best runs/b/best --images photos --out gradcam.pdf
    python examples/visualize.py contours --checkpoints runs/seg/best --images x.jpg --masks x.png --out contours.png

Grad-CAM: first the image, then for each model the evidence for the class that it predicts; ``--labels`` gives the true
classes. It is taken on F_1, the finest of the fused maps, which has 14 x 14 cells or more for inputs from 53 pixels:
the deeper ones are too coarse to show where a small image holds the evidence. ``--stage`` chooses another.
Contours: the outline of each predicted class, and of the true masks, if any.

``--images`` are files or folders, ``--columns`` is how many images stand side by side, ``--titles`` names the models.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from cli import Parser, exit_on_data_error
from data import read_image, read_mask
from datasets import DataError, MaskFormat, Sample, check_files
from datasets.index import find_files
from figures import Cell, ColorBar, Outline, check_figure, draw_grid, outlines_of
from files import WrittenFiles
from inference import Prediction, predict_samples, prepare_image
from models import class_names, is_multi_label, load_model, mask_format_of, probabilities_of
from torch import Tensor

if TYPE_CHECKING:
    from jsonargparse import Namespace

CAPTION = "research only, not a diagnostic device"
HEAT = ColorBar("relative evidence")
MAX_IMAGES = 100


def gradcam(args: "Namespace", samples: list[Sample]) -> None:
    """Draw the grid of class activation maps."""
    if not 1 <= args.stage <= 4:
        raise DataError(f"--stage {args.stage}: the fused maps are 1 to 4")
    models = [load_with(checkpoint, "head") for checkpoint in args.checkpoints]
    check_labels(args.labels, len(samples), models)
    check_files(samples)
    notes = [""] * len(samples) if args.labels is None else [f"true: {label}" for label in args.labels]
    groups = []
    for sample, note in zip(samples, notes):
        picture = read_image(sample.image)
        group = [Cell(picture, label=sample.id, note=note)]
        for model in models:
            heat, label, probability = class_activation(model, prepare_image(sample.image, model), args.stage)
            group.append(Cell(picture, heat=heat, note=note_of(model, label, probability, bool(heat.any()))))
        groups.append(group)
    draw(args, groups, f"Grad-CAM on $F_{args.stage}$; {CAPTION}", HEAT)


def class_activation(model: Any, x: Tensor, stage: int) -> tuple[Tensor, int, float]:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of the class with the largest logit on a fused map, 1 to 4.

    Returns:
        Activation from 0 to 1 on the map's grid, the class and its probability.
    """
    kept: list[Tensor] = []
    hook = model.encoder.fusion.stages[stage - 1].register_forward_hook(lambda _m, _i, output: kept.append(output))
    try:
        logits = model.forward_logits(x)
    finally:
        hook.remove()
    label = int(logits[0].argmax())
    (gradient,) = torch.autograd.grad(logits[0, label], kept[0])
    heat = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].relu().detach()
    return heat / heat.amax().clamp(min=1e-12), label, probabilities_of(model, logits)[0, label].item()


def note_of(model: Any, label: int, probability: float, has_evidence: bool) -> str:
    """What stands below a class activation map."""
    # Where several classes may hold, the most probable one need not be predicted.
    predicted = "" if is_multi_label(model) else "predicted: "
    nothing = "" if has_evidence else "\nno evidence on this map"
    return f"{predicted}{class_names(model)[label]} ({probability:.2f}){nothing}"


def check_labels(labels: Sequence[str] | None, number: int, models: Sequence[Any]) -> None:
    """Check that there is a label for each image and, where a model has names for exclusive classes, that it is one.

    Raises:
        DataError: says which label is wrong.
    """
    if labels is not None and len(labels) != number:
        raise DataError(f"--labels: {len(labels)} for {number} images; give one for each, in order")
    for model in models:
        names = class_names(model)
        is_checked = model.pretrained_cfg.get("label_names") and not is_multi_label(model)
        unknown = [label for label in labels or () if is_checked and label not in names]
        if unknown:
            raise DataError(f"--labels: {unknown[0]} is not one of the classes {', '.join(names)}")


def contours(args: "Namespace", samples: list[Sample]) -> None:
    """Draw the grid of outlines."""
    from accelerate import Accelerator

    models = [load_with(checkpoint, "mask_head") for checkpoint in args.checkpoints]
    formats = [mask_format_of(model) for model in models]
    for checkpoint, other in zip(args.checkpoints, formats):
        if other != formats[0]:
            raise DataError(
                f"--checkpoints: the masks of {args.checkpoints[0]} and {checkpoint} show different classes"
            )
    check_files(samples, formats[0])
    truths = [truth_of(sample, formats[0]) for sample in samples]
    groups = [
        [Cell(read_image(sample.image), label=sample.id, outlines=truth)] for sample, truth in zip(samples, truths)
    ]
    accelerator = Accelerator(cpu=True)
    for model in models:
        masks: list[Tensor] = []
        predictions = predict_samples(model, samples, accelerator, formats[0], partial(keep, masks))
        for group, truth, mask, prediction in zip(groups, truths, masks, predictions):
            outlines = [*truth, *outlines_of(mask, formats[0], is_predicted=True)]
            group.append(Cell(group[0].picture, outlines=outlines, note=dice_of(prediction)))
    draw(args, groups, CAPTION)


def keep(masks: list[Tensor], _sample: Sample, mask: Tensor) -> None:
    """Masks come in the order of the samples: this is one process."""
    masks.append(mask)


def truth_of(sample: Sample, mask_format: MaskFormat) -> list[Outline]:
    """The true outlines, if known."""
    if sample.mask is None:
        return []
    return outlines_of(read_mask(sample, mask_format)[0], mask_format, is_predicted=False)


def dice_of(prediction: Prediction) -> str:
    """Dice of the foreground, or its mean over those of several that are there."""
    values = torch.tensor(list(prediction.dice))
    mean = "mean " if len(values) > 1 else ""
    return "" if values.isnan().all() else f"{mean}Dice {values.nanmean():.3f}"


def load_with(checkpoint: str, head: str) -> Any:
    """A model that has a head of this name.

    Raises:
        DataError: it has none.
    """
    model = load_model(checkpoint)
    if model.heads[head] is None or (head == "head" and not model.num_classes):
        what = "classes" if head == "head" else "masks"
        raise DataError(f"checkpoint {checkpoint}: {model.architecture} predicts no {what}")
    return model


def find_images(sources: Sequence[str]) -> list[Path]:
    """The files, and the images in the folders by name, except what scripts wrote there, as earlier figures.

    Raises:
        DataError: a source that is not there, a folder without images, or too many images for a figure.
    """
    found: list[Path] = []
    written = WrittenFiles()
    for source in map(Path, sources):
        if not source.exists():
            raise DataError(f"--images: {source} is neither a file nor a folder")
        images = [path for path in find_files(source)[0] if path not in written] if source.is_dir() else [source]
        if not images:
            raise DataError(f"--images: no images in {source}")
        found += images
    if len(found) > MAX_IMAGES:
        raise DataError(f"--images: {len(found)} are too many for a figure, which takes up to {MAX_IMAGES}")
    return found


def make_samples(images: Sequence[Path], masks: Sequence[str] | None) -> list[Sample]:
    """Samples of files.

    Raises:
        DataError: not as many masks as images.
    """
    if masks is not None and len(masks) != len(images):
        raise DataError(f"--masks: {len(masks)} for {len(images)} images; give one for each, in order")
    of_images = [None] * len(images) if masks is None else [Path(mask) for mask in masks]
    return [Sample(image.stem, image, image.stem, mask=mask) for image, mask in zip(images, of_images)]


def draw(args: "Namespace", groups: list[list[Cell]], caption: str, bar: ColorBar | None = None) -> None:
    """The grid: a group of cells for each image, as many groups in a row as there are columns."""
    columns = min(args.columns, len(groups))
    rows = [
        [cell for group in groups[start : start + columns] for cell in group]
        for start in range(0, len(groups), columns)
    ]
    draw_grid(rows, ["input", *titles_of(args)] * columns, caption, Path(args.out), bar)
    print(args.out)


def titles_of(args: "Namespace") -> list[str]:
    """Names of the models, by default those of their folders."""
    # A run's model lies in RUN/best.
    paths = [Path(checkpoint).resolve() for checkpoint in args.checkpoints]
    return args.titles or [path.parent.name if path.name == "best" else path.name for path in paths]


def check_arguments(args: "Namespace") -> None:
    """Check what needs neither a file nor a model.

    Raises:
        DataError: a title too many or too few, or no column.
    """
    if args.titles and len(args.titles) != len(args.checkpoints):
        raise DataError(f"--titles: {len(args.titles)} for {len(args.checkpoints)} models; give one for each, in order")
    if args.columns < 1:
        raise DataError(f"--columns {args.columns} must be at least 1")


FIGURES = {"gradcam": (gradcam, "class activation maps"), "contours": (contours, "predicted and true outlines")}


def make_parser() -> Parser:
    parser = Parser(description="Draw figures of trained models. Research only.")
    subcommands = parser.add_subcommands(dest="figure")
    for name, (_, text) in FIGURES.items():
        figure = Parser(description=f"Draw {text}.")
        figure.add_argument("--checkpoints", nargs="+", type=str, required=True, help="folders of models, or names")
        figure.add_argument("--images", nargs="+", type=str, required=True, help="files, or folders of images")
        figure.add_argument("--out", type=str, required=True, help="the figure, a PNG or PDF file")
        figure.add_argument("--titles", nargs="+", type=str, help="names of the models, above their columns")
        figure.add_argument("--columns", type=int, default=1, help="images side by side")
        if name == "gradcam":
            figure.add_argument("--labels", nargs="+", type=str, help="true classes, one for each image, in order")
            figure.add_argument("--stage", type=int, default=1, help="the fused map, 1 (finest) to 4")
        else:
            figure.add_argument("--masks", nargs="+", type=str, help="true masks, one for each image, in order")
        subcommands.add_subcommand(name, figure, help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parsed = make_parser().parse_args(argv)
    args, (function, _) = parsed[parsed.figure], FIGURES[parsed.figure]
    with exit_on_data_error():
        check_arguments(args)
        images = find_images(args.images)
        masks = args.get("masks")
        check_figure(Path(args.out), [*images, *(masks or ())])
        function(args, make_samples(images, masks))


if __name__ == "__main__":
    main()
