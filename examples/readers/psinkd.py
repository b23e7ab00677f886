"""P-SinkD, a private data set of dermoscopic images with reflectance confocal microscopy (RCM), in a layout of ours.

The folder holds ``labels.csv`` with the columns ``lesion_id``, ``patient_id`` and ``label`` (the classes of ISIC 2019),
and for each lesion one image ``dermoscopy/LESION.jpg`` and four slices ``rcm/LESION_1.png`` to ``rcm/LESION_4.png``,
from the surface down. Images of one patient stay together.
"""

from pathlib import Path

from .isic2019 import CLASSES
from .records import DataError, Dataset, Record, check_unique, match_files, require_files
from .tables import read_table

__all__ = ["IMAGE_FOLDER", "NUM_SLICES", "STACK_FOLDER", "TABLE", "read"]

TABLE = "labels.csv"
IMAGE_FOLDER = "dermoscopy"
STACK_FOLDER = "rcm"
NUM_SLICES = 4


def read(folder: str | Path) -> Dataset:
    """List the lesions with image, stack, class and patient.

    Raises:
        DataError: says what is missing or wrong.
    """
    folder = Path(folder)
    require_files(folder, [TABLE, IMAGE_FOLDER, STACK_FOLDER], "P-SinkD (see examples/readers/psinkd.py)")
    rows = read_table(folder / TABLE, ["lesion_id", "patient_id", "label"])
    ids = [row["lesion_id"] for row in rows]
    check_unique(ids, folder / TABLE)
    codes = list(CLASSES)
    unknown = sorted({row["label"] for row in rows} - set(codes))
    if unknown:
        raise DataError(f"{folder / TABLE}: unknown labels {', '.join(unknown)}; known are {', '.join(codes)}")
    images = match_files(folder / IMAGE_FOLDER, ids, "{id}.jpg", "images")
    numbers = range(1, NUM_SLICES + 1)
    slices = [match_files(folder / STACK_FOLDER, ids, f"{{id}}_{number}.png", "slices") for number in numbers]
    records = [
        Record(i, images[i], row["patient_id"] or i, codes.index(row["label"]), stack=tuple(s[i] for s in slices))
        for i, row in zip(ids, rows)
    ]
    return Dataset("psinkd", CLASSES, "patient", "private", records)
