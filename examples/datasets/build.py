"""From rows of a table, whatever they were read from, to a data set."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import DataError
from .options import Data
from .records import Dataset, Sample
from .tables import is_missing, read_table

__all__ = ["Row", "apply_groups", "index_classes", "make_samples", "sort_names"]


@dataclass(frozen=True)
class Row:
    """An image as its table lists it.

    Attributes:
        id: unique name.
        image: its file.
        label: name of its class; empty without classes.
        labels: 0 or 1 for each class, where several may hold at once.
        group: what its reader calls a group; empty, ``nan``, ``NA`` and ``?`` for unknown.
        split: ``train``, ``val`` or ``test``, if given.
        mask, stack: further files.
    """

    id: str
    image: Path
    label: str = ""
    labels: tuple[int, ...] = ()
    group: str = ""
    split: str | None = None
    mask: Path | None = None
    stack: tuple[Path, ...] = ()


def make_samples(rows: Sequence[Row], classes: Sequence[str], where: str) -> list[Sample]:
    """Samples with class indices; images of an unknown group are groups of their own.

    Raises:
        DataError: a label that is none of the classes.
    """
    unknown = sorted({row.label for row in rows if row.label} - set(classes))
    if unknown:
        raise DataError(f"{where}: unknown labels {', '.join(unknown)}; known are {', '.join(classes)}")
    index = index_classes(classes)
    taken = {row.group for row in rows}
    return [
        Sample(
            row.id,
            row.image,
            own_group(row.id, taken) if is_missing(row.group) else row.group,
            index[row.label] if row.label else None,
            row.labels,
            row.mask,
            row.stack,
            row.split,
        )
        for row in rows
    ]


def own_group(identity: str, taken: set[str]) -> str:
    """The group of an image whose group is unknown: a name that no other has."""
    return f"image {identity}" if identity in taken else identity


def index_classes(classes: Sequence[str]) -> dict[str, int]:
    """Position of each class."""
    return {name: position for position, name in enumerate(classes)}


def sort_names(names: set[str]) -> list[str]:
    """Names in order, numbers by their value."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def apply_groups(dataset: Dataset, data: Data) -> Dataset:
    """The data set with the groups that an expression or another table gives its images.

    Raises:
        DataError: an expression that is none, or finds nothing in a name; a table of other images.
    """
    if data.group_regex is not None:
        group_of = _by_regex(data.group_regex)
    elif data.group_table is not None:
        group_of = _by_table(Path(data.group_table).expanduser(), data)
    else:
        return dataset
    groups = {sample.id: group_of(sample.id) for sample in dataset.samples}
    alone = [name for name, group in groups.items() if is_missing(group)]
    if len(alone) == len(groups):
        raise DataError(
            f"data.group_table={data.group_table}: none of its images is one of {dataset.name}, as {alone[0]}"
        )
    taken = set(groups.values())
    samples = [
        replace(sample, group=own_group(sample.id, taken) if is_missing(groups[sample.id]) else groups[sample.id])
        for sample in dataset.samples
    ]
    note = f"{len(alone)} images have no group and are groups of their own, as {alone[0]}" if alone else ""
    return replace(dataset, samples=samples, group_kind="group", notes=(*dataset.notes, *([note] if note else [])))


def _by_regex(text: str) -> Callable[[str], str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"data.group_regex={text!r} is not a regular expression: {error}") from error

    def find(name: str) -> str:
        match = pattern.search(name)
        group = match and (match[1] if pattern.groups else match[0])
        if not group:
            raise DataError(f"data.group_regex={text!r} finds nothing in {name}")
        return group

    return find


def _by_table(path: Path, data: Data) -> Callable[[str], str]:
    column = data.group_column or "group"
    groups: dict[str, str] = {}
    for row in read_table(path, [data.image_column, column], data.encoding):
        name = row[data.image_column]
        if groups.setdefault(name, row[column]) != row[column]:
            raise DataError(f"{path}: {name} is in the groups {groups[name]} and {row[column]}")
    return lambda name: groups.get(name) or groups.get(Path(name).name) or groups.get(Path(name).stem) or ""
