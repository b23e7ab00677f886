"""Predict classes and masks of images.

    python examples/predict.py --checkpoint runs/ham10000/best --images photos --out predictions
    accelerate launch examples/predict.py ...

``--images`` are files or folders of them. ``--out`` receives ``predictions.csv`` with the probabilities, at the
temperature that the network carries, if any, and, of networks with masks, ``NAME_mask.png`` of each image's size. For
networks of two modalities ``--stacks`` names a folder with ``NAME_1.png``, ``NAME_2.png``, ... for the images that have
a stack. Research only: this is not a diagnostic device.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from engine.checkpoint import check_folder
from engine.inference import Prediction, predict_records
from engine.network import load_network, probabilities_of
from jsonargparse import ArgumentParser
from PIL import Image
from readers import DataError, Record, check_files
from torch import Tensor

import mfsf2

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Predict classes and masks of images. Research only.")
    parser.add_argument("--checkpoint", type=str, required=True, help="folder of the network, best/ of a run")
    parser.add_argument("--images", nargs="+", type=str, required=True, help="files, or folders of images")
    parser.add_argument("--out", type=str, required=True, help="folder for the predictions")
    parser.add_argument("--stacks", type=str, help="folder with the slices, for networks of two modalities")
    parser.add_argument("--device", type=Literal["auto", "cpu"], default="auto", help="auto: a GPU where there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> list[Prediction]:
    """Predict; returns what was predicted, in the order of the images."""
    args = make_parser().parse_args(argv)
    try:
        check_folder(Path(args.out))
        accelerator = Accelerator(cpu=args.device == "cpu")
        network = load_network(args.checkpoint)
        paths = find_images(args.images)
        records = [Record(path.stem, path, path.stem, stack=find_slices(path, args.stacks)) for path in paths]
        check_network(network, records, args.stacks)
        check_files(records)
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        predictions = predict_records(network, records, accelerator, lambda record, mask: save(folder, record, mask))
        if accelerator.is_main_process:
            write(folder, predictions, network)
        return predictions
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error


def find_images(sources: Sequence[str]) -> list[Path]:
    """The files, and the images in the folders, by name.

    Raises:
        DataError: a source that is not there, no image, two of one name.
    """
    paths: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            paths += sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
        elif source.is_file():
            paths.append(source)
        else:
            raise DataError(f"images: {source} is neither a file nor a folder")
    if not paths:
        raise DataError(
            f"images: none in {', '.join(sources)}; known are files ending in {', '.join(sorted(SUFFIXES))}"
        )
    names = [path.stem for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"images: more than one file is called {twice[0]}; results go by name")
    return paths


def find_slices(path: Path, stacks: str | None) -> tuple[Path, ...]:
    """The slices ``NAME_1.png``, ``NAME_2.png``, ... of an image; empty where there is no first one."""
    slices: list[Path] = []
    while stacks is not None and (candidate := Path(stacks) / f"{path.stem}_{len(slices) + 1}.png").is_file():
        slices.append(candidate)
    return tuple(slices)


def check_network(network: Any, records: Sequence[Record], stacks: str | None) -> None:
    """Check that the stacks are what the network takes."""
    if not isinstance(network, mfsf2.MFSF2TwoModality):
        if stacks is not None:
            raise DataError("stacks: this network takes one image and no stack")
        return
    wanted = network.stem.slices.num_slices
    wrong = [record for record in records if len(record.stack) not in (0, wanted)]
    if wrong:
        raise DataError(f"stacks: {wrong[0].id} has {len(wrong[0].stack)} slices, the network takes {wanted}")


def save(out: Path, record: Record, mask: Tensor) -> None:
    """A predicted mask as an image, foreground 255."""
    Image.fromarray(mask.to(torch.uint8).mul(255).numpy()).save(out / f"{record.id}_mask.png")


def write(out: Path, predictions: Sequence[Prediction], network: Any) -> None:
    """The table."""
    classes = len(predictions[0].logits)
    names = list(network.pretrained_cfg.get("label_names") or range(classes)) if classes else []
    with (out / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(["predicted", *names] if classes else []), *_mask_columns(predictions)])
        for prediction in predictions:
            row: list[Any] = [prediction.id]
            if classes:
                probabilities = probabilities_of(network, torch.tensor(prediction.logits))
                row += [names[int(probabilities.argmax())], *(f"{value:.6f}" for value in probabilities.tolist())]
            if prediction.foreground is not None:
                row.append(f"{prediction.foreground:.6f}")
            writer.writerow(row)
    print(f"{len(predictions)} images: {out / 'predictions.csv'}; research only, not a diagnostic device")


def _mask_columns(predictions: Sequence[Prediction]) -> list[str]:
    return [] if predictions[0].foreground is None else ["foreground"]


if __name__ == "__main__":
    main()
