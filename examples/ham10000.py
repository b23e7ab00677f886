"""HAM10000 in its published layout: images and labels in memory, split by lesion.

Tschandl et al., "The HAM10000 dataset", Scientific Data 2018. The images are CC BY-NC 4.0.
"""

import csv
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
NAMES = {
    "akiec": "actinic keratosis or intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One image: its file, its class as a position in ``CLASSES``, and its lesion."""

    path: Path
    label: int
    lesion: str


def read_samples(folder: Path) -> list[Sample]:
    """Read ``HAM10000_metadata.csv`` and find every image in ``HAM10000_images_part_1`` and ``_part_2``.

    Raises:
        SystemExit: names the file, column, class or images that are missing.
    """
    table = folder / "HAM10000_metadata.csv"
    if not table.is_file():
        raise SystemExit(f"{table} is missing: --data must name the folder that holds HAM10000_metadata.csv")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = {"lesion_id", "image_id", "dx"} - set(rows[0] if rows else ())
    if missing:
        raise SystemExit(f"{table} has no rows or lacks the columns {sorted(missing)}")
    files = {path.stem: path for part in (1, 2) for path in (folder / f"HAM10000_images_part_{part}").glob("*.jpg")}
    absent = [row["image_id"] for row in rows if row["image_id"] not in files]
    if absent:
        raise SystemExit(f"{len(absent)} images of {table} are not in {folder}/HAM10000_images_part_*: {absent[:3]} ...")
    unknown = {row["dx"] for row in rows} - set(CLASSES)
    if unknown:
        raise SystemExit(f"{table} has unknown classes {sorted(unknown)}: expected {CLASSES}")
    return [Sample(files[row["image_id"]], CLASSES.index(row["dx"]), row["lesion_id"]) for row in rows]


def split_by_lesion(samples: list[Sample], seed: int = 0) -> dict[str, list[Sample]]:
    """Split 8:1:1 so that all images of a lesion are in one part, class by class."""
    lesions: dict[int, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.lesion not in lesions[sample.label]:
            lesions[sample.label].append(sample.lesion)
    rng, part_of = random.Random(seed), {}
    for label in sorted(lesions):
        group = sorted(lesions[label])
        rng.shuffle(group)
        tenth = max(1, round(len(group) / 10))
        for index, lesion in enumerate(group):
            part_of[lesion] = "test" if index < tenth else "val" if index < 2 * tenth else "train"
    return {part: [sample for sample in samples if part_of[sample.lesion] == part] for part in PARTS}


def load_images(samples: list[Sample], size: int) -> tuple[Tensor, Tensor]:
    """Decode all images, the short side resized to ``size``: uint8 ``(N, 3, H, W)`` and labels ``(N,)``.

    Raises:
        SystemExit: names a file that is no image, or images of different shapes.
    """
    images = []
    for sample in samples:
        try:
            with Image.open(sample.path) as image:
                width, height = image.size
                scale = size / min(width, height)
                resized = image.convert("RGB").resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
        except (UnidentifiedImageError, OSError) as error:
            raise SystemExit(f"{sample.path} cannot be read as an image: {error}") from error
        images.append(np.asarray(resized))
    if len({image.shape for image in images}) != 1:
        raise SystemExit(f"the images have different shapes: {sorted({image.shape for image in images})[:3]}")
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor([sample.label for sample in samples])
