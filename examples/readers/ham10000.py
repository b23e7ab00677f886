"""HAM10000 in its published layout.

The folder holds ``HAM10000_metadata.csv`` (or ``HAM10000_metadata``), the images in ``HAM10000_images_part_1/`` and
``HAM10000_images_part_2/`` and, for segmentation, masks in ``HAM10000_segmentations_lesion_tschandl/``. Several images
may show one lesion.

Tschandl, Rosendahl and Kittler, Scientific Data 2018, CC BY-NC 4.0. Research only.
"""

from pathlib import Path

from .records import DataError, Dataset, Record, check_unique, match_files, require_files
from .tables import read_table

__all__ = ["CLASSES", "IMAGE_FOLDERS", "MASK_FOLDER", "METADATA", "read"]

CLASSES = {
    "akiec": "Actinic keratosis / intraepithelial carcinoma",
    "bcc": "Basal cell carcinoma",
    "bkl": "Benign keratosis",
    "df": "Dermatofibroma",
    "mel": "Melanoma",
    "nv": "Melanocytic nevus",
    "vasc": "Vascular lesion",
}
METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata")
IMAGE_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"


def read(folder: str | Path, masks: bool = False) -> Dataset:
    """List the images with classes and lesions, with ``masks`` also the masks.

    Raises:
        DataError: says what is missing or wrong.
    """
    folder = Path(folder)
    metadata = METADATA[0] if not (folder / METADATA[1]).is_file() else METADATA[1]
    require_files(folder, [metadata, *IMAGE_FOLDERS, *([MASK_FOLDER] if masks else [])], "HAM10000 as it is published")
    table = folder / metadata
    rows = read_table(table, ["lesion_id", "image_id", "dx"])
    ids = [row["image_id"] for row in rows]
    check_unique(ids, table)
    labels = list(CLASSES)
    unknown = sorted({row["dx"] for row in rows} - set(labels))
    if unknown:
        raise DataError(f"{table}: unknown labels {', '.join(unknown)}; known are {', '.join(labels)}")
    files = {path.stem: path for name in IMAGE_FOLDERS for path in (folder / name).glob("*.jpg")}
    missing = [identity for identity in ids if identity not in files]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(ids)} images are missing from {' and '.join(IMAGE_FOLDERS)}, the first "
            f"are {', '.join(missing[:3])}"
        )
    mask_files = match_files(folder / MASK_FOLDER, ids, "{id}_segmentation.png", "masks") if masks else {}
    records = [
        Record(i, files[i], row["lesion_id"], labels.index(row["dx"]), mask_files.get(i)) for i, row in zip(ids, rows)
    ]
    return Dataset("ham10000", CLASSES, "lesion", "CC BY-NC 4.0", records)
