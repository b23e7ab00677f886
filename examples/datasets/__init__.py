"""Data sets, one's own and published ones, each read into the same list of samples; splits and checks."""

from pathlib import Path

from . import ham10000, isic2018, isic2019, kvasir, psinkd
from .build import apply_groups
from .checks import check_files, check_foreground
from .errors import DataError
from .masks import MaskFormat
from .options import OWN, PUBLISHED, Data
from .overlap import hashes_of, without_seen
from .own import read_folder, read_masks
from .own_table import read_own_table
from .records import Dataset, Sample, Splits
from .split import SPLITS, check_classes, load_split, make_split, split_text

__all__ = [
    "OWN",
    "PUBLISHED",
    "SPLITS",
    "Data",
    "DataError",
    "Dataset",
    "MaskFormat",
    "Sample",
    "Splits",
    "check_classes",
    "check_files",
    "check_foreground",
    "hashes_of",
    "load_split",
    "make_split",
    "read_dataset",
    "split_text",
    "without_seen",
]

_OWN = {"folder": read_folder, "table": read_own_table, "masks": read_masks}
_PUBLISHED = {"isic2018": isic2018.read, "isic2019": isic2019.read, "kvasir": kvasir.read, "psinkd": psinkd.read}


def read_dataset(data: Data, masks: bool = False) -> Dataset:
    """Read a data set.

    Args:
        data: which one.
        masks: whether masks are needed.

    Raises:
        DataError: a folder or table that is not what is expected; says what is missing or wrong.
    """
    if data.name == "ham10000":
        return ham10000.read(data.folder, masks=masks)
    dataset = _OWN[data.name](data) if data.name in OWN else _PUBLISHED[data.name](Path(data.folder))
    if masks and not dataset.has_masks:
        raise DataError(f"{data.name} has no masks: use ham10000, isic2018, kvasir, or your own as masks or table")
    return apply_groups(dataset, data) if data.name in OWN else dataset
