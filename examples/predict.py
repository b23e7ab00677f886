"""Predict classes and masks of images.

    python examples/predict.py --checkpoint runs/own/best --images photos --out predictions
    accelerate launch examples/predict.py ...

``--images`` are files, folders with all their subfolders, or patterns such as ``'photos/*.jpg'``. ``--out`` receives
``predictions.csv`` with the probabilities, at the temperature that the model carries, if any, and, of models with
masks, ``NAME_mask.png`` of each image's size: foreground 255 or, of several classes, an indexed PNG of class indices,
beside ``NAME_colored.png``. Files that cannot be read are skipped and listed, and the exit status is then 1;
``--strict`` stops instead. For models of two modalities ``--stacks`` names a folder with ``NAME_1.png``,
``NAME_2.png``, ... for the images that have a stack. Research only: this is not a diagnostic device.
"""

import csv
import glob
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from cli import Parser, exit_on_data_error
from datasets import DataError, Sample, check_files
from datasets.images import is_dicom
from datasets.index import SUFFIXES, find_files
from figures import palette
from files import OutputFolder, WrittenFiles
from inference import Prediction, predict_samples
from models import class_names, is_multi_label, load_model, mask_format_of, probabilities_of
from PIL import Image
from torch import Tensor

TABLE = "predictions.csv"


@dataclass
class Found:
    """The images that the command line names.

    Attributes:
        images: path of each name that results go by.
        skipped: how many files were skipped, by what they are.
    """

    images: dict[str, Path]
    skipped: Counter[str]


def make_parser() -> Parser:
    parser = Parser(description="Predict classes and masks of images. Research only.")
    parser.add_argument("--checkpoint", type=str, required=True, help="folder of the model, or a name with its tag")
    parser.add_argument("--images", nargs="+", type=str, required=True, help="files, folders, or patterns")
    parser.add_argument("--out", type=str, required=True, help="folder for the predictions")
    parser.add_argument("--stacks", type=str, help="folder with the slices, for models of two modalities")
    parser.add_argument("--tta", type=bool, default=False, help="means over each image and its three mirror images")
    parser.add_argument("--strict", action="store_true", help="stop at a file that cannot be read")
    parser.add_argument("--device", type=Literal["auto", "cpu"], default="auto", help="auto: a GPU where there is one")
    return parser


def predict(argv: Sequence[str] | None = None) -> list[Prediction]:
    """Predict; returns what was predicted, in the order of the images.

    Raises:
        DataError: no images, a model that does not fit, files that would be replaced.
    """
    from accelerate import Accelerator

    args = make_parser().parse_args(argv)
    folder = OutputFolder(Path(args.out).expanduser())
    found = find_images(args.images)
    accelerator = Accelerator(cpu=args.device == "cpu")
    model = load_model(args.checkpoint)
    samples = [Sample(name, path, name, stack=find_slices(path, args.stacks)) for name, path in found.images.items()]
    check_stacks(model, samples, args.stacks)
    endings = () if model.mask_head is None else ("_mask.png", "_colored.png")[: 1 + (model.mask_classes > 1)]
    folder.check([TABLE, *(f"{sample.id}{ending}" for sample in samples for ending in endings)])
    if args.strict:
        check_files(samples)
    predictions = predict_samples(
        model,
        samples,
        accelerator,
        use_mask=lambda sample, mask: save(folder, sample, mask, model.mask_classes),
        tta=args.tta,
        skip_unreadable=not args.strict,
    )
    if accelerator.is_main_process:
        folder.write(TABLE, table(predictions, model))
        report(folder.folder / TABLE, predictions, found)
    return predictions


def find_images(sources: Sequence[str]) -> Found:
    """The files, and the images in the folders, by name.

    Raises:
        DataError: a source that is not there, no image, DICOM, two of one name.
    """
    listed: list[tuple[Path, Path]] = []
    skipped: Counter[str] = Counter()
    written = WrittenFiles()
    for source in (path for text in sources for path in expand(text)):
        if source.is_dir():
            images, rest = find_files(source)
            others = set(rest)
            stems = {path.with_suffix("") for path in images}
            for path in [*images, *rest]:
                if path in written:
                    skipped["written by these scripts"] += 1
                elif path in others:
                    skipped["not images"] += 1
                elif is_mask(path, stems):
                    skipped["masks beside their images"] += 1
                else:
                    listed.append((path, path.relative_to(source)))
        elif source in written:
            skipped["written by these scripts"] += 1
        elif source.suffix.lower() in SUFFIXES or is_dicom(source):
            listed.append((source, Path(source.name)))
        else:
            skipped["not images"] += 1
    if not listed:
        raise DataError(
            f"images: none in {', '.join(sources)}{describe(skipped)}; known suffixes: {', '.join(sorted(SUFFIXES))}"
        )
    return Found(name_images(list(dict.fromkeys(listed))), skipped)


def is_mask(path: Path, stems: set[Path]) -> bool:
    """Whether a file is called like the mask of an image beside it."""
    names = [path.stem.removesuffix(ending) for ending in ("_mask", "_segmentation")]
    return any(name != path.stem and path.with_name(name) in stems for name in names)


def describe(skipped: Counter[str]) -> str:
    """What was skipped, in words."""
    words = [f"{number} {what}" for what, number in skipped.items() if number]
    return f"; skipped: {', '.join(words)}" if words else ""


def name_images(listed: Sequence[tuple[Path, Path]]) -> dict[str, Path]:
    """Images by the shortest names that tell them apart: without suffix, with it, with the folder that was named.

    Raises:
        DataError: two of one name.
    """
    forms = [
        [name.with_suffix("").as_posix(), name.as_posix(), f"{source_of(path, name).name}/{name.as_posix()}"]
        for path, name in listed
    ]
    counts = [Counter(form[level] for form in forms) for level in range(3)]
    named: dict[str, Path] = {}
    for form, (path, _) in zip(forms, listed):
        key = next((form[level] for level in range(3) if counts[level][form[level]] == 1), form[2])
        if key in named:
            raise DataError(f"images: {named[key]} and {path} are both called {key}, and results go by name")
        named[key] = path
    return named


def source_of(path: Path, name: Path) -> Path:
    """The folder that ``name`` is relative to."""
    return path.absolute().parents[len(name.parts) - 1]


def expand(text: str) -> list[Path]:
    """A file or folder, or what a pattern matches.

    Raises:
        DataError: neither.
    """
    path = Path(text).expanduser()
    if path.exists():
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 (absolute patterns)
    if not found:
        raise DataError(f"images: {text} is neither a file nor a folder, and matches none")
    return found


def find_slices(path: Path, stacks: str | None) -> tuple[Path, ...]:
    """The slices ``NAME_1.png``, ``NAME_2.png``, ... of an image; empty where there is no first one."""
    slices: list[Path] = []
    while stacks is not None and (candidate := Path(stacks) / f"{path.stem}_{len(slices) + 1}.png").is_file():
        slices.append(candidate)
    return tuple(slices)


def check_stacks(model: Any, samples: Sequence[Sample], stacks: str | None) -> None:
    """Check that the stacks are what the model takes."""
    if not hasattr(model, "stem"):
        if stacks is not None:
            raise DataError("stacks: this model takes one image and no stack")
        return
    wanted = model.stem.slices.num_slices
    wrong = [sample for sample in samples if len(sample.stack) not in (0, wanted)]
    if wrong:
        raise DataError(f"stacks: {wrong[0].id} has {len(wrong[0].stack)} slices, the model takes {wanted}")


def save(folder: OutputFolder, sample: Sample, mask: Tensor, classes: int) -> None:
    """A predicted mask as PNG: foreground 255; of several classes, their indices and, in another file, colors."""
    image = Image.fromarray((mask * (255 if classes == 1 else 1)).to(torch.uint8).numpy())
    if classes > 1:
        image.putpalette([value for color in palette(classes) for value in color])
        folder.write(f"{sample.id}_colored.png", lambda path: image.convert("RGB").save(path, format="PNG"))
    folder.write(f"{sample.id}_mask.png", lambda path: image.save(path, format="PNG"))


def table(predictions: Sequence[Prediction], model: Any) -> str:
    """CSV of one row per image; a file that could not be read has its name alone."""
    classes = class_names(model) if model.num_classes else []
    names = [] if model.mask_head is None else mask_format_of(model).foregrounds
    masks = names if len(names) < 2 else [f"share of {name}" for name in names]
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    header = ["id", *(["predicted", *classes] if classes else []), *masks]
    writer.writerow(header)
    for prediction in predictions:
        row: list[Any] = [prediction.id]
        if classes and prediction.error is None:
            probabilities = probabilities_of(model, torch.tensor(prediction.logits))
            row += [said(probabilities, classes, model), *(f"{value:.6f}" for value in probabilities.tolist())]
        row += [f"{value:.6f}" for value in prediction.shares]
        writer.writerow(row + [""] * (len(header) - len(row)))
    return file.getvalue()


def said(probabilities: Tensor, classes: Sequence[str], model: Any) -> str:
    """The class or, where several may hold, all above one half."""
    if is_multi_label(model):
        return "; ".join(name for name, value in zip(classes, probabilities.tolist()) if value > 0.5)
    return classes[int(probabilities.argmax())]


def report(path: Path, predictions: Sequence[Prediction], found: Found) -> None:
    """Print what was predicted, and what was not."""
    failed = [prediction for prediction in predictions if prediction.error is not None]
    for prediction in failed:
        print(f"not readable: {found.images[prediction.id]} ({prediction.error})")
    number = len(predictions) - len(failed)
    print(f"{number} images: {path}{describe(found.skipped)}; research only, not a diagnostic device")


def main(argv: Sequence[str] | None = None) -> list[Prediction]:
    """The command line; ends with status 1 where a file could not be read."""
    with exit_on_data_error():
        predictions = predict(argv)
    failed = sum(prediction.error is not None for prediction in predictions)
    if failed:
        raise SystemExit(f"{failed} of {len(predictions)} images could not be read")
    return predictions


if __name__ == "__main__":
    main()
