"""ISIC 2018 task 1 (lesion segmentation) training data in its published layout.

The folder holds the images in ``ISIC2018_Task1-2_Training_Input/`` and their masks in
``ISIC2018_Task1_Training_GroundTruth/``. The lesions are not told apart, so each image is a group of its own; images of
HAM10000 may be among them, under the same names.

Codella et al., 2019; Tschandl et al. 2018; CC BY-NC 4.0. Research only.
"""

from pathlib import Path

from .records import DataError, Dataset, Record, match_files, require_files

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
    images = {path.stem: path for path in sorted((folder / IMAGE_FOLDER).glob("*.jpg"))}
    if not images:
        raise DataError(f"{folder / IMAGE_FOLDER}: no *.jpg in it")
    masks = match_files(folder / MASK_FOLDER, list(images), "{id}_segmentation.png", "masks")
    records = [Record(name, path, name, mask=masks[name]) for name, path in images.items()]
    return Dataset("isic2018", {}, "image", "CC BY-NC 4.0", records)
