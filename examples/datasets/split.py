"""Splits by group, within classes, kept in files."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from .errors import DataError
from .records import Dataset, Sample, Splits

__all__ = ["SPLITS", "check_classes", "load_split", "make_split", "split_text"]

SPLITS = ("train", "val", "test")


def make_split(dataset: Dataset, seed: int = 0, folds: int = 0, fold: int = 0) -> Splits:
    """Split into ``train``, ``val`` and ``test``: by group, and within each class.

    A data set that is divided already keeps its division; where it has no ``val``, a tenth of ``train`` becomes it.
    Others are split 8:1:1 or, with ``folds``, into that many parts, of which number ``fold`` is ``test`` (where the
    data set has a ``test`` of its own, ``val``) and the next one ``val``.

    The same samples and arguments give the same split. A group counts for its rarest class. Of a class with one or two
    groups all go to ``train``.

    Raises:
        DataError: some images have a split and others have none, a group is in two splits, no such fold.
    """
    given = [sample for sample in dataset.samples if sample.split]
    if given and len(given) < len(dataset.samples):
        missing = next(sample.id for sample in dataset.samples if not sample.split)
        raise DataError(f"{dataset.name}: {len(given)} images have a split and others, as {missing}, have none")
    splits: Splits = {name: [sample for sample in given if sample.split == name] for name in SPLITS}
    check_groups(splits, dataset.name)
    if folds or fold:
        return _fold(dataset, splits, seed, folds, fold)
    if not given:
        return _draw(dataset.samples, seed, ("val", "test"))
    if not splits["val"]:
        return {**_draw(splits["train"], seed, ("val",)), "test": splits["test"]}
    return splits


def _draw(samples: Sequence[Sample], seed: int, held_out: Sequence[str]) -> Splits:
    """A tenth of each class's groups for each held-out split, the others for ``train``."""
    splits: Splits = {name: [] for name in SPLITS}
    for groups in _shuffled_groups(samples, seed):
        tenth = max(1, round(len(groups) / 10)) if len(groups) > len(held_out) else 0
        for position, group in enumerate(groups):
            place = position // tenth if tenth else len(held_out)
            splits[held_out[place] if place < len(held_out) else "train"].extend(group)
    return splits


def _fold(dataset: Dataset, given: Splits, seed: int, folds: int, fold: int) -> Splits:
    has_test = bool(given["test"])
    least = 2 if has_test else 3
    if not (folds >= least and 0 <= fold < folds):
        raise DataError(f"fold={fold} of folds={folds}: at least {least} folds, numbered from 0")
    parts: list[list[Sample]] = [[] for _ in range(folds)]
    start = 0
    samples = [*given["train"], *given["val"]] if has_test else dataset.samples
    for groups in _shuffled_groups(samples, seed):
        for position, group in enumerate(groups, start):
            parts[position % folds].extend(group)
        # The next class goes on where this one ends, so that small classes do not all fill the first folds.
        start += len(groups)
    if start < folds:
        raise DataError(
            f"folds={folds}: {dataset.name} has {start} groups ({dataset.group_kind}s) to divide, fewer than that"
        )
    test = given["test"] if has_test else parts[fold]
    val = fold if has_test else (fold + 1) % folds
    used = {fold, val}
    train = [sample for number, part in enumerate(parts) if number not in used for sample in part]
    return {"train": train, "val": parts[val], "test": test}


def _shuffled_groups(samples: Sequence[Sample], seed: int) -> list[list[list[Sample]]]:
    """For each class, in order, the groups that count for it, shuffled."""
    frequency = Counter(index for sample in samples for index in sample.classes)
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(sample)
    names: dict[int, list[str]] = defaultdict(list)
    for name in sorted(groups):
        shown = [index for sample in groups[name] for index in sample.classes]
        names[min(shown, key=lambda index: frequency[index], default=-1)].append(name)
    draw = random.Random(seed)
    for label in sorted(names):
        draw.shuffle(names[label])
    return [[groups[name] for name in names[label]] for label in sorted(names)]


def split_text(dataset: Dataset, splits: Splits) -> str:
    """The content of a split file: which image is in which split."""
    content = {"dataset": dataset.name, "splits": {name: [s.id for s in samples] for name, samples in splits.items()}}
    return json.dumps(content, indent=1) + "\n"


def load_split(path: str | Path, dataset: Dataset) -> tuple[Splits, int]:
    """Read a split file of the same images, or of some of them.

    Returns:
        The splits, and the number of images that the file does not list.

    Raises:
        DataError: no such file, not a split, of another data set or of images that are not here, a group in two splits.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such split file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        name, ids = content["dataset"], {split: list(content["splits"][split]) for split in SPLITS}
        listed = [identity for split in ids.values() for identity in split]
        twice = len(listed) - len(set(listed))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a split file ({type(error).__name__}: {error})") from error
    if name != dataset.name:
        raise DataError(f"{path} splits the data set {name}, these images are {dataset.name}")
    samples = {sample.id: sample for sample in dataset.samples}
    absent = [identity for identity in listed if identity not in samples]
    if absent or twice:
        first = f", the first is {absent[0]}" if absent else ""
        raise DataError(
            f"{path} is of other images: {len(absent)} of its {len(listed)} are not here{first}; {twice} are listed "
            "twice"
        )
    splits = {split: [samples[identity] for identity in ids[split]] for split in SPLITS}
    check_groups(splits, path)
    return splits, len(samples) - len(listed)


def check_groups(splits: Splits, where: str | Path) -> None:
    """Check that no group is in two splits."""
    seen: dict[str, tuple[str, str]] = {}
    for split, samples in splits.items():
        for sample in samples:
            other, first = seen.setdefault(sample.group, (split, sample.id))
            if other != split:
                raise DataError(
                    f"{where}: {sample.group} is in both {other} and {split}, with {first} and {sample.id}; keep each "
                    "group in one split, or leave the division out"
                )


def check_classes(dataset: Dataset, samples: Sequence[Sample]) -> None:
    """Check that there is something to learn: every class has an image, and one that shows another.

    Raises:
        DataError: names the classes that none or all of the images have.
    """
    if len(dataset.labels) == 1 and not dataset.multi_label:
        raise DataError(f"{dataset.name}: one class alone, {dataset.labels[0]}: nothing to tell apart")
    present = {index for sample in samples for index in sample.classes}
    empty = [name for index, name in enumerate(dataset.labels) if index not in present]
    if empty:
        raise DataError(f"{dataset.name}: no image to train on of {', '.join(empty)}")
    full = [name for index, name in enumerate(dataset.labels) if all(index in sample.classes for sample in samples)]
    if full:
        raise DataError(
            f"{dataset.name}: every image to train on has {', '.join(full)}, so there is nothing to tell apart"
        )
