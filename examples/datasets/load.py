"""The data of a training: a data set, its splits, and the checks of both."""

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from .checks import check_files, check_foreground
from .errors import DataError
from .options import Data
from .read import read_dataset
from .records import Dataset, Splits
from .split import SPLITS, check_classes, load_split, make_split

if TYPE_CHECKING:
    from train import Config

__all__ = ["TrainData", "load_data"]

_LEAK = (
    "warning: split by image. If several images show one lesion or patient, some may be in two splits, and the metrics "
    "are then too good"
)
_ADVICE = {
    **dict.fromkeys(("folder", "masks"), ": give --data.group_regex or --data.group_table"),
    "table": ": give --data.group_column, --data.group_regex or --data.group_table",
}


@dataclass
class TrainData(Data):
    """Images, their splits, and how they are kept.

    Attributes:
        split_file: a file that an earlier run wrote; None splits by ``seed``, or as the data set is divided.
        folds: cross-validation: number of parts; 0 for none, a split of 8:1:1.
        fold: which of them is the test split; the next one is the validation split.
        memory: read images from ``disk`` for each batch, or keep all in the memory of the ``cpu`` or of the training
            ``device``.
        workers: processes that read images, with ``disk``; by default two, or one on one core.
        check: decode every file once before the training starts.
    """

    split_file: str | None = None
    folds: int = 0
    fold: int = 0
    memory: Literal["disk", "cpu", "device"] = "disk"
    workers: int = field(default_factory=lambda: min(2, num_cores()))
    check: bool = True


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_data(config: "Config") -> tuple["Config", Dataset, Splits, list[str]]:
    """The configuration with its task, the data set, its splits, and notes on them for the log.

    Raises:
        DataError: data that are not what is expected, or lack what the task needs.
    """
    dataset = read_dataset(config.data, masks=config.has_masks)
    config = replace(config, task=config.task or default_task(dataset))
    lacks = [
        name
        for name, needed, there in (
            ("classes", config.has_classes, bool(dataset.classes)),
            ("masks", config.has_masks, dataset.has_masks),
            ("stacks", config.has_stacks, dataset.has_stacks),
        )
        if needed and not there
    ]
    if lacks:
        raise DataError(f"task={config.task} cannot be learned from {dataset.name}: it has no {', '.join(lacks)}")
    if config.augment.mixes and dataset.multi_label:
        raise DataError(f"{config.augment.mixes} must be 0 where several classes may hold at once")
    notes, path = list(dataset.notes), f"{config.out}/split.json" if config.resume else config.data.split_file
    if path is None:
        splits = make_split(dataset, config.seed, config.data.folds, config.data.fold)
        if dataset.group_kind == "image" and not dataset.samples[0].split:
            notes.append(_LEAK + _ADVICE.get(dataset.name, ""))
    else:
        splits, unlisted = load_split(path, dataset)
        notes += [f"left out: {unlisted} images that {path} does not list"] if unlisted else []
    # A given division may have no test images: they are elsewhere.
    needed = ("train", "val") if dataset.samples[0].split else SPLITS
    empty = [name for name in needed if not splits[name]]
    if empty:
        groups = len({sample.group for sample in dataset.samples})
        found = f"{groups} groups ({dataset.group_kind}s) with {len(dataset.samples)} images"
        raise DataError(f"{dataset.name}: no image in {', '.join(empty)}; there are {found}, and more are needed")
    if dataset.group_kind != "image":
        notes.append(describe_groups(dataset))
    if config.has_classes:
        check_classes(dataset, splits["train"])
    if config.data.check:
        # Also of the test split: better now than after the training.
        check_files([sample for samples in splits.values() for sample in samples], dataset.mask_format)
    if config.has_masks:
        check_foreground(splits["train"], dataset.mask_format)
    return config, dataset, splits, notes


def describe_groups(dataset: Dataset) -> str:
    """How many groups there are, and an example of a large one, to see whether they are what was meant."""
    groups: dict[str, list[str]] = {}
    for sample in dataset.samples:
        groups.setdefault(sample.group, []).append(sample.id)
    largest = max(groups, key=lambda group: len(groups[group]))
    several = sum(len(ids) > 1 for ids in groups.values())
    example = f", as {largest}: {', '.join(groups[largest][:3])}" if several else ""
    return f"split by {dataset.group_kind}: {len(groups)} of them, {several} with several images{example}"


def default_task(dataset: Dataset) -> Any:
    """All that a data set has."""
    heads = "cls" * bool(dataset.classes) + "seg" * dataset.has_masks
    return f"rcm_{heads}" if dataset.has_stacks else heads
