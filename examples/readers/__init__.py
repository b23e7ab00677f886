"""Readers of the data sets, each in its published layout; splits, checks, and synthetic data of the same layouts."""

from collections.abc import Callable
from pathlib import Path

from . import ham10000, isic2018, isic2019, kvasir, psinkd
from .checks import check_files
from .records import DataError, Dataset, Record
from .split import PARTS, hash_id, load_split, make_split, save_split, without_overlap

__all__ = [
    "PARTS",
    "READERS",
    "DataError",
    "Dataset",
    "Record",
    "check_files",
    "hash_id",
    "load_split",
    "make_split",
    "read_dataset",
    "save_split",
    "without_overlap",
]

READERS: dict[str, Callable[[Path], Dataset]] = {
    "ham10000": ham10000.read,
    "isic2018": isic2018.read,
    "isic2019": isic2019.read,
    "kvasir": kvasir.read,
    "psinkd": psinkd.read,
}


def read_dataset(name: str, folder: str | Path, masks: bool = False) -> Dataset:
    """Read a data set by name.

    Args:
        name: one of :data:`READERS`.
        folder: the folder as it is published.
        masks: whether masks are needed.

    Raises:
        DataError: unknown name, or a folder that is not what the reader expects.
    """
    if name not in READERS:
        raise DataError(f"unknown data set {name!r}: known are {', '.join(READERS)}")
    if name == "ham10000":
        return ham10000.read(folder, masks=masks)
    dataset = READERS[name](Path(folder))
    if masks and not dataset.has_masks:
        raise DataError(f"{name} has no masks: use ham10000, isic2018 or kvasir")
    return dataset
