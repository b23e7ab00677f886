"""Kvasir-SEG in its published layout: ``images/NAME.jpg`` and ``masks/NAME.jpg``, polyps in colonoscopy.

Masks are JPEG files: foreground is what is above 127. The patients are not told apart, so each image is a group of its
own.

Jha et al., MultiMedia Modeling 2020, for research and education.
"""

from pathlib import Path

from .records import DataError, Dataset, Record, match_files, require_files

__all__ = ["read"]


def read(folder: str | Path) -> Dataset:
    """List the images with their masks.

    Raises:
        DataError: says what is missing or wrong.
    """
    folder = Path(folder)
    require_files(folder, ["images", "masks"], "Kvasir-SEG as it is published")
    images = {path.stem: path for path in sorted((folder / "images").glob("*.jpg"))}
    if not images:
        raise DataError(f"{folder / 'images'}: no *.jpg in it")
    masks = match_files(folder / "masks", list(images), "{id}.jpg", "masks")
    records = [Record(name, path, name, mask=masks[name]) for name, path in images.items()]
    return Dataset("kvasir", {}, "image", "research and education", records)
