"""The figures of a paper: where networks look (Grad-CAM), and predicted outlines beside the true ones.

    python examples/visualize.py gradcam --checkpoints runs/a/best runs/b/best --images x.jpg y.jpg --out gradcam.png
    python examples/visualize.py contours --checkpoints runs/seg/best --images x.jpg --masks x.png --out contours.png

Grad-CAM grid: a row an image, first the input, then for each network where it sees the class that it predicts. Contour
grid: the true outline in green, the predicted one in red. ``--titles`` names the networks' columns.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from engine.data import read_image, read_mask
from engine.figures import Cell, check_figure, draw_grid
from engine.inference import predict_records, prepare_image
from engine.network import load_network, probabilities_of
from jsonargparse import ArgumentParser, Namespace
from readers import DataError, Record, check_files
from torch import Tensor

CAPTION = "research only, not a diagnostic device"


def gradcam(args: Namespace) -> None:
    """Draw the grid of class activation maps."""
    if not 1 <= args.stage <= 4:
        raise DataError(f"--stage {args.stage}: the fused maps are 1 to 4")
    networks = [load_with(checkpoint, "head") for checkpoint in args.checkpoints]
    records = make_records(args.images)
    rows = []
    for record in records:
        picture = read_image(record.image)
        row = [Cell(picture)]
        for network in networks:
            heat, label, probability = class_activation(network, prepare_image(record.image, network), args.stage - 1)
            names = network.pretrained_cfg.get("label_names") or range(network.num_classes)
            nothing = "" if heat.any() else "\nnothing here speaks for it"
            row.append(Cell(picture, heat=heat, note=f"{names[label]} {probability:.2f}{nothing}"))
        rows.append(row)
    draw(args, rows, records, f"Grad-CAM on F_{args.stage}; {CAPTION}")


def contours(args: Namespace) -> None:
    """Draw the grid of outlines."""
    networks = [load_with(checkpoint, "mask_head") for checkpoint in args.checkpoints]
    records = make_records(args.images, args.masks)
    accelerator = Accelerator(cpu=True)
    cells: list[list[Cell]] = [[Cell(read_image(record.image), outlines=truth_of(record))] for record in records]
    for network in networks:
        masks: list[Tensor] = []
        predictions = predict_records(network, records, accelerator, partial(keep, masks))
        for row, record, mask, prediction in zip(cells, records, masks, predictions):
            note = "" if prediction.dice is None else f"Dice {prediction.dice:.3f}"
            row.append(Cell(row[0].picture, outlines=[*truth_of(record), (mask, "red")], note=note))
    truth = "" if args.masks is None else "green: true, "
    draw(args, cells, records, f"{truth}red: predicted; {CAPTION}")


def keep(masks: list[Tensor], _record: Record, mask: Tensor) -> None:
    """Masks come in the order of the records: this is one process."""
    masks.append(mask)


def class_activation(network: Any, x: Tensor, stage: int) -> tuple[Tensor, int, float]:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of the predicted class on a fused map.

    Returns:
        Activation from 0 to 1 on the map's grid, the class and its probability.
    """
    kept: list[Tensor] = []
    hook = network.encoder.fusion.stages[stage].register_forward_hook(lambda _m, _i, output: kept.append(output))
    try:
        logits = network.forward_logits(x)
    finally:
        hook.remove()
    label = int(logits[0].argmax())
    (gradient,) = torch.autograd.grad(logits[0, label], kept[0])
    heat = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].relu().detach()
    return heat / heat.amax().clamp(min=1e-12), label, probabilities_of(network, logits)[0, label].item()


def truth_of(record: Record) -> list[tuple[Tensor, str]]:
    """The true outline in green, where there is one."""
    return [] if record.mask is None else [(read_mask(record.mask)[0].bool(), "lime")]


def load_with(checkpoint: str, head: str) -> Any:
    """A network that has a head of this name."""
    network = load_network(checkpoint)
    if network.heads[head] is None:
        what = "classes" if head == "head" else "masks"
        raise DataError(f"checkpoint {checkpoint}: {network.architecture} predicts no {what}")
    return network


def make_records(images: Sequence[str], masks: Sequence[str] | None = None) -> list[Record]:
    """Records of files.

    Raises:
        DataError: not as many masks as images, a file that is no image, a mask of another size.
    """
    if masks is not None and len(masks) != len(images):
        raise DataError(f"--masks: {len(masks)} for {len(images)} images; give one for each, in order")
    of_images = [Path(mask) for mask in masks] if masks is not None else [None] * len(images)
    records = [Record(Path(image).stem, Path(image), image, mask=mask) for image, mask in zip(images, of_images)]
    check_files(records)
    return records


def draw(args: Namespace, rows: list[list[Cell]], records: list[Record], caption: str) -> None:
    """The grid, with the networks' titles."""
    # A run's network lies in RUN/best.
    paths = [Path(checkpoint) for checkpoint in args.checkpoints]
    titles = args.titles or [path.parent.name if path.name == "best" else path.name for path in paths]
    if len(titles) != len(paths):
        raise DataError(f"--titles: {len(titles)} for {len(paths)} networks; give one for each, in order")
    draw_grid(rows, ["input", *titles], [record.id for record in records], caption, Path(args.out))
    print(args.out)


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Draw figures of trained networks. Research only.")
    subcommands = parser.add_subcommands(dest="figure")
    for name, text in (("gradcam", "class activation maps"), ("contours", "predicted and true outlines")):
        figure = ArgumentParser(description=f"Draw {text}.")
        figure.add_argument("--checkpoints", nargs="+", type=str, required=True, help="folders of networks")
        figure.add_argument("--images", nargs="+", type=str, required=True, help="files")
        figure.add_argument("--out", type=str, required=True, help="the figure, a PNG or PDF file")
        figure.add_argument("--titles", nargs="+", type=str, help="the networks' names above their columns")
        if name == "gradcam":
            figure.add_argument("--stage", type=int, default=4, help="of which fused map, F_1 to F_4")
        else:
            figure.add_argument("--masks", nargs="+", type=str, help="the true masks, one for each image, in order")
        subcommands.add_subcommand(name, figure, help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    args = make_parser().parse_args(argv)
    try:
        chosen = args[args.figure]
        check_figure(Path(chosen.out), [*chosen.images, *(chosen.get("masks") or ())])
        {"gradcam": gradcam, "contours": contours}[args.figure](chosen)
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
