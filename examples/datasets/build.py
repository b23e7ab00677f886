"""From rows of a table, whatever they were read from, to a data set."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import DataError
from .options import Data
from .records import Dataset, Sample
from .tables import is_missing, read_table

__all__ = ["Row", "apply_groups", "make_samples", "note_alone", "sort_names"]


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

    @property
    def is_alone(self) -> bool:
        """Whether its group is unknown."""
        return is_missing(self.group)


def make_samples(rows: Sequence[Row], classes: Sequence[str], where: str) -> list[Sample]:
    """Samples with class indices; images of an unknown group are groups of their own.

    Raises:
        DataError: a label that is none of the classes, or none at all.
    """
    unknown = sorted({row.label for row in rows if row.label} - set(classes))
    if unknown:
        raise DataError(f"{where}: unknown labels {', '.join(unknown)}; known are {', '.join(classes)}")
    bare = [row.id for row in rows if not row.label and not row.labels] if classes else []
    if bare:
        raise DataError(f"{where}: {len(bare)} images have no label, the first are {', '.join(bare[:3])}")
    index = {name: position for position, name in enumerate(classes)}
    groups = fill_groups({row.id: "" if row.is_alone else row.group for row in rows})
    return [
        Sample(
            row.id,
            row.image,
            groups[row.id],
            index[row.label] if row.label else None,
            row.labels,
            row.mask,
            row.stack,
            row.split,
        )
        for row in rows
    ]


def fill_groups(groups: dict[str, str]) -> dict[str, str]:
    """Groups by image, where those that are empty become names that no other group has."""
    taken = set(groups.values())
    return {
        identity: group or (f"image {identity}" if identity in taken else identity)
        for identity, group in groups.items()
    }


def note_alone(names: Sequence[str], what: str) -> tuple[str, ...]:
    """A note on images that are groups of their own because nothing is known, if there are any."""
    return (f"{len(names)} images have no {what} and are groups of their own, as {names[0]}",) if names else ()


def sort_names(names: set[str]) -> list[str]:
    """Names in order, numbers by their value."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def apply_groups(dataset: Dataset, data: Data) -> Dataset:
    """The data set with the groups that an expression or another table gives its images.

    Raises:
        DataError: an expression that is none, or finds nothing in a name; a table of other images.
    """
    if data.group_regex is not None:
        groups = _by_regex(data.group_regex, dataset.samples)
    elif data.group_table is not None:
        groups = _by_table(Path(data.group_table).expanduser(), data, dataset)
    else:
        return dataset
    notes = note_alone([identity for identity, group in groups.items() if not group], "group")
    groups = fill_groups(groups)
    samples = [replace(sample, group=groups[sample.id]) for sample in dataset.samples]
    return replace(dataset, samples=samples, group_kind="group", notes=(*dataset.notes, *notes))


def _by_regex(text: str, samples: Sequence[Sample]) -> dict[str, str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"data.group_regex={text!r} is not a regular expression: {error}") from error
    groups = {}
    for sample in samples:
        match = pattern.search(sample.image.name) or pattern.search(sample.id)
        group = match and (match[1] if pattern.groups else match[0])
        if not group:
            raise DataError(f"data.group_regex={text!r} finds nothing in {sample.id}")
        groups[sample.id] = group
    return groups


def _by_table(path: Path, data: Data, dataset: Dataset) -> dict[str, str]:
    """Groups of the samples, empty where the table has none."""
    column = data.group_column or "group"
    by_name: dict[str, set[str]] = defaultdict(set)
    for sample in dataset.samples:
        for name in {sample.id, sample.id.removesuffix(sample.image.suffix), sample.image.name, sample.image.stem}:
            by_name[name].add(sample.id)
    groups: dict[str, str] = {}
    for row in read_table(path, [data.image_column, column], data.encoding):
        name = row[data.image_column].replace("\\", "/").removeprefix("./")
        found = sorted(by_name.get(name, ()))
        if len(found) > 1 and name not in found:
            raise DataError(f"{path}: {name} may be {found[0]} or {found[1]}; give its folder and suffix")
        identity = name if name in found else next(iter(found), None)
        if identity is not None:
            group = "" if is_missing(row[column]) else row[column]
            if groups.setdefault(identity, group) != group:
                raise DataError(f"{path}: {identity} is in the groups {groups[identity]!r} and {group!r}")
    if not groups:
        raise DataError(f"{path}: none of its images is one of these, as {dataset.samples[0].id}")
    return {sample.id: groups.get(sample.id, "") for sample in dataset.samples}
