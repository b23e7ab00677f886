"""ISIC 2018 task 1 (lesion segmentation) training data in its published layout.

The folder holds the images in ``ISIC2018_Task1-2_Training_Input/`` and their masks in
``ISIC2018_Task1_Training_GroundTruth/``. The lesions are not told apart, so each image is a group of its own; images of
HAM10000 may be among them, under the same names.

Codella et al., 2019; Tschandl et al. 2018; CC BY-NC 4.0. Research only.
"""

from pathlib import Path

from .build import Row, make_samples
from .errors import DataError
from .index import FileIndex, check_unique, require_files
from .records import Dataset

__all__ = ["IMAGE_FOLDER", "MASK_FOLDER", "read"]

IMAGE_FOLDER = "ISIC2018_Task1-2_Training_Input"
MASK_FOLDER = "ISIC2018_Task1_Training_GroundTruth"


def read(folder: str | Path) -> Dataset:
    """List the images with their masks.

    Raises:
        DataError: says what is missing or wrong.
    """
    folder = Path(folder)
    require_files(folder, [IMAGE_FOLDER, MASK_FOLDER], "ISIC 2018 task 1 as it is published")
    images = FileIndex(folder, [IMAGE_FOLDER]).images
    if not images:
        raise DataError(f"{folder / IMAGE_FOLDER}: no images in it")
    check_unique([path.stem for path in images], folder / IMAGE_FOLDER)
    masks = FileIndex(folder, [MASK_FOLDER]).find_all([f"{path.stem}_segmentation" for path in images], "masks")
    rows = [Row(path.stem, path, mask=mask) for path, mask in zip(images, masks)]
    return Dataset("isic2018", make_samples(rows, (), str(folder)), license="CC BY-NC 4.0", has_public_ids=True)
