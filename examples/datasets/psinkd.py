"""P-SinkD, a private data set of dermoscopic images with reflectance confocal microscopy (RCM), in a layout of ours.

The folder holds ``labels.csv`` with the columns ``lesion_id``, ``patient_id`` and ``label`` (the classes of ISIC 2019),
and for each lesion one image ``dermoscopy/LESION.jpg`` and four slices ``rcm/LESION_1.png`` to ``rcm/LESION_4.png``,
from the surface down. Images of one patient stay together.
"""

from pathlib import Path

from .build import Row, make_samples, note_alone
from .index import FileIndex, check_unique, require_files
from .isic2019 import CLASSES
from .records import Dataset
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
    require_files(folder, [TABLE, IMAGE_FOLDER, STACK_FOLDER], "P-SinkD (see examples/datasets/psinkd.py)")
    rows = read_table(folder / TABLE, ["lesion_id", "patient_id", "label"])
    ids = [row["lesion_id"] for row in rows]
    check_unique(ids, folder / TABLE)
    images = FileIndex(folder, [IMAGE_FOLDER]).find_all(ids, "images")
    index = FileIndex(folder, [STACK_FOLDER])
    slices = [index.find_all([f"{name}_{number}" for name in ids], "slices") for number in range(1, NUM_SLICES + 1)]
    listed = [
        Row(name, image, row["label"], group=row["patient_id"], stack=stack)
        for name, image, stack, row in zip(ids, images, zip(*slices), rows)
    ]
    samples = make_samples(listed, list(CLASSES), str(folder / TABLE))
    notes = note_alone([row.id for row in listed if row.is_alone], "patient_id")
    return Dataset("psinkd", samples, CLASSES, group_kind="patient", license="private", notes=notes)
