"""What all readers return: a data set as a list of records."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DataError", "Dataset", "Record", "match_files", "require_files"]


class DataError(ValueError):
    """A folder that is not what its reader expects; the message says what is missing or wrong."""


@dataclass(frozen=True)
class Record:
    """One image with all that is known of it.

    Attributes:
        id: the image's name in its data set.
        image: its file.
        group: the lesion or, where it is known, the patient: images of one group stay in one part of a split.
        label: index of its class; None where the data set has none.
        mask: file of its mask; None where there is none.
        stack: files of the second modality's slices; empty where there are none.
    """

    id: str
    image: Path
    group: str
    label: int | None = None
    mask: Path | None = None
    stack: tuple[Path, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All files of the record."""
        return [self.image, *self.stack, *([self.mask] if self.mask else [])]


@dataclass(frozen=True)
class Dataset:
    """A data set in memory: names and files, no pixels.

    Attributes:
        name: name of its reader.
        classes: what each label stands for, in the order of the network's outputs; empty without labels.
        group_kind: what a group is: ``"lesion"``, ``"patient"`` or ``"image"``.
        terms: under what terms the images, and networks trained on them, may be used.
        records: the images.
    """

    name: str
    classes: dict[str, str]
    group_kind: str
    terms: str
    records: list[Record]

    @property
    def labels(self) -> list[str]:
        """Short names of the classes."""
        return list(self.classes)

    @property
    def has_masks(self) -> bool:
        return all(record.mask is not None for record in self.records)

    @property
    def has_stacks(self) -> bool:
        return all(record.stack for record in self.records)

    def describe(self, parts: dict[str, list[Record]]) -> str:
        """Table of how many groups and images of each class each part has."""
        lines = [f"{self.name}: groups ({self.group_kind}s) / images of each class"]
        names = self.labels or ["all"]
        width = max(len(name) for name in [*names, "total"])
        lines.append(" " * width + "".join(f"{part:>16}" for part in parts))
        for index, name in [*enumerate(names), (None, "total")]:
            cells = [_count(records, index if self.labels else None) for records in parts.values()]
            if name != "total" or len(names) > 1:
                lines.append(f"{name:<{width}}" + "".join(f"{cell:>16}" for cell in cells))
        return "\n".join(lines)


def _count(records: Sequence[Record], label: int | None) -> str:
    chosen = [record for record in records if label is None or record.label == label]
    return f"{len({record.group for record in chosen})} / {len(chosen)}"


def require_files(folder: Path, names: Iterable[str], what: str) -> None:
    """Check that a folder holds files or folders.

    Raises:
        DataError: says which are missing, and what is there in their place.
    """
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        found = sorted(path.name for path in folder.iterdir())[:10] if folder.is_dir() else []
        there = f"there is {', '.join(found)}" if found else "it does not exist or is empty"
        raise DataError(f"{folder} is not the folder of {what}: {', '.join(missing)} missing; {there}")


def match_files(folder: Path, ids: Sequence[str], pattern: str, what: str) -> dict[str, Path]:
    """Find the file of each id.

    Args:
        folder: where to look.
        ids: names.
        pattern: name of the file of an id, ``"{id}.jpg"``.
        what: what the files are, for the message.

    Raises:
        DataError: files are missing; names the first.
    """
    present = {path.name for path in folder.iterdir()}
    names = {identity: pattern.format(id=identity) for identity in ids}
    missing = [name for name in names.values() if name not in present]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(ids)} {what} are missing, the first are {', '.join(missing[:3])}"
        )
    return {identity: folder / name for identity, name in names.items()}


def check_unique(ids: Sequence[str], table: Path) -> None:
    """Check that no image is listed twice."""
    twice = [identity for identity, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"{table}: {len(twice)} images are listed more than once, the first are {', '.join(twice[:3])}")
