"""Kvasir-SEG in its published layout: ``images/NAME.jpg`` and ``masks/NAME.jpg``, polyps in colonoscopy.

Masks are JPEG files: foreground is what is above 127. The patients are not told apart, so each image is a group of its
own.

Jha et al., MultiMedia Modeling 2020, for research and education.
"""

from pathlib import Path

from .build import Row, make_samples
from .errors import DataError
from .index import FileIndex, check_unique, require_files
from .records import Dataset

__all__ = ["read"]


def read(folder: str | Path) -> Dataset:
    """List the images with their masks.

    Raises:
        DataError: says what is missing or wrong.
    """
    folder = Path(folder)
    require_files(folder, ["images", "masks"], "Kvasir-SEG as it is published")
    images = FileIndex(folder, ["images"]).images
    if not images:
        raise DataError(f"{folder / 'images'}: no images in it")
    check_unique([path.stem for path in images], folder / "images")
    masks = FileIndex(folder, ["masks"]).find_all([path.stem for path in images], "masks")
    rows = [Row(path.stem, path, mask=mask) for path, mask in zip(images, masks)]
    return Dataset("kvasir", make_samples(rows, (), str(folder)), license="research and education", has_public_ids=True)
