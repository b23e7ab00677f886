"""HAM10000 in its published layout.

The folder holds ``HAM10000_metadata.csv`` (or ``HAM10000_metadata``), the images in ``HAM10000_images_part_1/`` and
``HAM10000_images_part_2/`` and, for segmentation, masks in ``HAM10000_segmentations_lesion_tschandl/``. Several images
may show one lesion.

Tschandl, Rosendahl and Kittler, Scientific Data 2018, CC BY-NC 4.0. Research only.
"""

from pathlib import Path

from .build import Row, make_samples, note_alone
from .index import FileIndex, check_unique, require_files
from .records import Dataset
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
    images = FileIndex(folder, IMAGE_FOLDERS).find_all(ids, "images")
    mask_files: list[Path | None] = [None] * len(ids)
    if masks:
        mask_files[:] = FileIndex(folder, [MASK_FOLDER]).find_all([f"{name}_segmentation" for name in ids], "masks")
    listed = [
        Row(name, image, row["dx"], group=row["lesion_id"], mask=mask)
        for name, image, mask, row in zip(ids, images, mask_files, rows)
    ]
    samples = make_samples(listed, list(CLASSES), str(table))
    return Dataset(
        "ham10000",
        samples,
        CLASSES,
        group_kind="lesion",
        license="CC BY-NC 4.0",
        has_public_ids=True,
        notes=note_alone([row.id for row in listed if row.is_alone], "lesion_id"),
    )
