"""Read a data set by its options."""

from pathlib import Path

from . import ham10000, isic2018, isic2019, kvasir, psinkd
from .build import apply_groups
from .errors import DataError
from .options import OWN, Data
from .own import read_folder, read_masks
from .own_table import read_own_table
from .records import Dataset

__all__ = ["read_dataset"]

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
    data.check_options()
    if data.name == "ham10000":
        return ham10000.read(data.folder, masks=masks)
    dataset = _OWN[data.name](data) if data.name in OWN else _PUBLISHED[data.name](Path(data.folder))
    bare = [sample.id for sample in dataset.samples if sample.mask is None]
    if masks and 0 < len(bare) < len(dataset.samples):
        raise DataError(f"{data.name}: {len(bare)} of {len(dataset.samples)} images have no mask, as {bare[0]}")
    if masks and bare:
        raise DataError(f"{data.name} has no masks: use ham10000, isic2018, kvasir, or your own as masks or table")
    return apply_groups(dataset, data) if data.name in OWN else dataset
