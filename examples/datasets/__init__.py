"""Data sets, one's own and published ones, each read into the same list of samples; splits and checks."""

from .checks import check_files, check_foreground
from .errors import DataError
from .load import TrainData, load_data
from .masks import MaskFormat
from .options import OWN, PUBLISHED, Data
from .overlap import hashes_of, without_seen
from .read import read_dataset
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
    "TrainData",
    "check_classes",
    "check_files",
    "check_foreground",
    "hashes_of",
    "load_data",
    "load_split",
    "make_split",
    "read_dataset",
    "split_text",
    "without_seen",
]
