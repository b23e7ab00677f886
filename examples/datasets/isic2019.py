"""ISIC 2019 training data in its published layout.

The folder holds ``ISIC_2019_Training_GroundTruth.csv`` (one column a class, UNK always 0),
``ISIC_2019_Training_Metadata.csv`` and the images in ``ISIC_2019_Training_Input/``; names may end in ``_downsampled``.
2,084 images have no lesion id in the metadata: each is a group of its own. All of HAM10000 is among the images, under
the same names.

Tschandl et al. 2018, Codella et al. 2018, Combalia et al. 2019, CC BY-NC 4.0. Research only.
"""

from pathlib import Path

from .build import Row, make_samples, note_alone
from .errors import DataError
from .index import FileIndex, check_unique, require_files
from .records import Dataset
from .tables import one_hot_label, read_table

__all__ = ["CLASSES", "IMAGE_FOLDER", "METADATA", "TRUTH", "read"]

CLASSES = {
    "MEL": "Melanoma",
    "NV": "Melanocytic nevus",
    "BCC": "Basal cell carcinoma",
    "AK": "Actinic keratosis",
    "BKL": "Benign keratosis",
    "DF": "Dermatofibroma",
    "VASC": "Vascular lesion",
    "SCC": "Squamous cell carcinoma",
}
TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
IMAGE_FOLDER = "ISIC_2019_Training_Input"


def read(folder: str | Path) -> Dataset:
    """List the images with classes and lesions.

    Raises:
        DataError: says what is missing or wrong.
    """
    folder = Path(folder)
    require_files(folder, [TRUTH, METADATA, IMAGE_FOLDER], "ISIC 2019 as it is published")
    codes = list(CLASSES)
    truth = read_table(folder / TRUTH, ["image", *codes, "UNK"])
    ids = [row["image"] for row in truth]
    check_unique(ids, folder / TRUTH)
    lesions = {row["image"]: row["lesion_id"] for row in read_table(folder / METADATA, ["image", "lesion_id"])}
    unlisted = [identity for identity in ids if identity not in lesions]
    if unlisted:
        raise DataError(f"{folder / METADATA}: {len(unlisted)} images of {TRUTH} are not in it, first {unlisted[0]}")
    images = FileIndex(folder, [IMAGE_FOLDER]).find_all(ids, "images")
    rows = []
    for row, image in zip(truth, images):
        identity = row["image"]
        label = one_hot_label(row, [*codes, "UNK"], f"{folder / TRUTH}, image {identity}")
        if label == len(codes):
            raise DataError(f"{folder / TRUTH}, image {identity}: class UNK, which no training image has")
        rows.append(Row(identity, image, codes[label], group=lesions[identity]))
    samples = make_samples(rows, codes, str(folder / TRUTH))
    return Dataset(
        "isic2019",
        samples,
        CLASSES,
        group_kind="lesion",
        license="CC BY-NC 4.0",
        has_public_ids=True,
        notes=note_alone([row.id for row in rows if row.is_alone], "lesion_id"),
    )
