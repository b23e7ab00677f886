"""Reader of HAM10000 in its published layout.

The folder holds ``HAM10000_metadata.csv``, the images in ``HAM10000_images_part_1/`` and ``_part_2/`` and, for
segmentation, the lesions' masks in ``HAM10000_segmentations_lesion_tschandl/``. Several images may show one lesion, so
the split is by lesion: an image never meets its own lesion again in another part.

Data: Tschandl, Rosendahl and Kittler, Scientific Data 2018, licence CC BY-NC 4.0. Research only.
"""

import csv
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from images import read_images
from torch import Tensor

CLASS_NAMES = {
    "akiec": "Actinic keratosis / intraepithelial carcinoma",
    "bcc": "Basal cell carcinoma",
    "bkl": "Benign keratosis",
    "df": "Dermatofibroma",
    "mel": "Melanoma",
    "nv": "Melanocytic nevus",
    "vasc": "Vascular lesion",
}
"""Labels, in the order of the network's outputs, and what they stand for."""

LABELS = list(CLASS_NAMES)
METADATA = "HAM10000_metadata.csv"
IMAGE_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Record:
    """One image: its file, its lesion and its class."""

    path: Path
    lesion: str
    label: int

    @property
    def mask(self) -> Path:
        """File of the lesion's mask."""
        return self.path.parent.parent / MASK_FOLDER / f"{self.path.stem}_segmentation.png"


def read_records(folder: str | Path, limit: int | None = None, seed: int = 0) -> list[Record]:
    """List the images of a HAM10000 folder.

    Args:
        folder: the folder with the metadata and the image folders.
        limit: take this many images, drawn at random.
        seed: seed of that draw.

    Raises:
        ValueError: no such folder, no metadata or another table, an unknown label, images that are not there.
    """
    table = Path(folder) / METADATA
    if not table.is_file():
        raise ValueError(f"{folder}: no {METADATA} in it; give the folder of HAM10000 as it is published")
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        absent = {"lesion_id", "image_id", "dx"} - set(reader.fieldnames or ())
        if absent:
            raise ValueError(f"{table}: no column {', '.join(sorted(absent))}; it has {reader.fieldnames}")
        rows = list(reader)
    unknown = {row["dx"] for row in rows} - set(LABELS)
    if unknown or not rows:
        raise ValueError(f"{table}: {len(rows)} rows, unknown labels {sorted(map(str, unknown))}; known are {LABELS}")
    files = {path.stem: path for name in IMAGE_FOLDERS for path in (Path(folder) / name).glob("*.jpg")}
    missing = [row["image_id"] for row in rows if row["image_id"] not in files]
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} of {len(rows)} images are missing from {' and '.join(IMAGE_FOLDERS)}, the first "
            f"are {', '.join(missing[:3])}"
        )
    records = [Record(files[row["image_id"]], row["lesion_id"], LABELS.index(row["dx"])) for row in rows]
    if limit is not None and limit < len(records):
        records = random.Random(seed).sample(records, limit)
    return records


def split_by_lesion(records: list[Record], seed: int = 0) -> dict[str, list[Record]]:
    """Split 8:1:1 into ``train``, ``val`` and ``test``, by lesion and within each class.

    The same records and seed give the same split. Of a class with one or two lesions all go to ``train``.
    """
    images: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        images[record.lesion].append(record)
    lesions: dict[int, list[str]] = defaultdict(list)
    for lesion in sorted(images):
        lesions[images[lesion][0].label].append(lesion)
    split: dict[str, list[Record]] = {part: [] for part in PARTS}
    draw = random.Random(seed)
    for label in sorted(lesions):
        names = lesions[label]
        draw.shuffle(names)
        held_out = max(1, round(len(names) / 10)) if len(names) > 2 else 0
        for position, lesion in enumerate(names):
            part = PARTS[1 if position < held_out else 2 if position < 2 * held_out else 0]
            split[part].extend(images[lesion])
    return split


def load_images(records: list[Record], short_side: int) -> Tensor:
    """Read images into memory, uint8 ``(N, 3, short_side, 4/3 short_side)``; all of HAM10000 is 4:3.

    Raises:
        ValueError: an image that cannot be read.
    """
    return read_images([record.path for record in records], short_side, short_side * 4 // 3)


def check_masks(records: list[Record]) -> None:
    """Check that every image has a mask.

    Raises:
        ValueError: masks that are not there.
    """
    missing = [record.mask.name for record in records if not record.mask.is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(records)} masks are missing from {MASK_FOLDER}, the first are "
            f"{', '.join(missing[:3])}"
        )


def labels_of(records: list[Record]) -> Tensor:
    """Class indices ``(N,)``."""
    return torch.tensor([record.label for record in records])
