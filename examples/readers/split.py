"""Splits by group, kept in files; and which images two data sets share."""

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from .records import DataError, Dataset, Record

__all__ = ["PARTS", "hash_id", "load_split", "make_split", "save_split", "without_overlap"]

PARTS = ("train", "val", "test")

Parts = dict[str, list[Record]]


def make_split(dataset: Dataset, seed: int = 0) -> Parts:
    """Split 8:1:1 into ``train``, ``val`` and ``test``: by group, and within each class.

    The same records and seed give the same split. A group counts for its rarest class. Of a class with one or two
    groups all go to ``train``.
    """
    frequency = Counter(record.label for record in dataset.records)
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in dataset.records:
        groups[record.group].append(record)
    names: dict[int, list[str]] = defaultdict(list)
    for name in sorted(groups):
        label = min((record.label for record in groups[name]), key=lambda label: frequency[label])
        names[-1 if label is None else label].append(name)
    parts: Parts = {part: [] for part in PARTS}
    draw = random.Random(seed)
    for label in sorted(names):
        shuffled = names[label]
        draw.shuffle(shuffled)
        held_out = max(1, round(len(shuffled) / 10)) if len(shuffled) > 2 else 0
        for position, name in enumerate(shuffled):
            part = PARTS[1 if position < held_out else 2 if position < 2 * held_out else 0]
            parts[part].extend(groups[name])
    return parts


def save_split(path: str | Path, dataset: Dataset, parts: Parts) -> None:
    """Write which image is in which part, and whether these are but some of the data set's."""
    ids = {name: [record.id for record in records] for name, records in parts.items()}
    subset = sum(map(len, ids.values())) < len(dataset.records)
    content = {"dataset": dataset.name, **({"subset": True} if subset else {}), "parts": ids}
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_split(path: str | Path, dataset: Dataset) -> Parts:
    """Read what :func:`save_split` wrote for the same images, or for some of them where the file says ``subset``.

    Raises:
        DataError: no such file, not a split, of another data set or of other images, a group in two parts.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such split file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        name, ids = content["dataset"], {part: list(content["parts"][part]) for part in PARTS}
        subset = content.get("subset") is True
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a split file ({type(error).__name__}: {error})") from error
    if name != dataset.name:
        raise DataError(f"{path} splits the data set {name}, these images are {dataset.name}")
    records = {record.id: record for record in dataset.records}
    listed = [identity for part in ids.values() for identity in part]
    unknown, unlisted = set(listed) - set(records), set(records) - set(listed)
    if unknown or (unlisted and not subset) or len(listed) != len(set(listed)):
        raise DataError(
            f"{path} is of other images: {len(unknown)} of its {len(listed)} are not here, {len(unlisted)} of these "
            f"{len(records)} are not in it, {len(listed) - len(set(listed))} are listed twice"
        )
    parts = {part: [records[identity] for identity in ids[part]] for part in PARTS}
    check_groups(parts, path)
    return parts


def check_groups(parts: Parts, path: Path) -> None:
    """Check that no group is in two parts."""
    seen: dict[str, str] = {}
    for part, records in parts.items():
        for record in records:
            if seen.setdefault(record.group, part) != part:
                raise DataError(f"{path}: {record.group} is in both {seen[record.group]} and {part}")


def check_classes(dataset: Dataset, records: Sequence[Record]) -> None:
    """Check that every class has an image to train on."""
    present = {record.label for record in records}
    empty = [name for index, name in enumerate(dataset.labels) if index not in present]
    if empty:
        raise DataError(f"{dataset.name}: no image to train on of {', '.join(empty)}")


def hash_id(identity: str) -> str:
    """Short hash of an image's name, for lists of the images that weights were trained on."""
    return hashlib.sha256(identity.removesuffix("_downsampled").encode()).hexdigest()[:16]


def without_overlap(records: Sequence[Record], trained_on: Iterable[str]) -> list[Record]:
    """The records whose hashed names are not among ``trained_on``."""
    seen = set(trained_on)
    return [record for record in records if hash_id(record.id) not in seen]
