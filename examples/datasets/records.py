"""What all data sets become: a list of samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .masks import ONE_FOREGROUND, MaskFormat

__all__ = ["Dataset", "Sample", "Splits"]


@dataclass(frozen=True)
class Sample:
    """One image with all that is known of it.

    Attributes:
        id: the image's name in its data set, unique there.
        image: its file.
        group: what must not be divided between splits: a lesion, a patient; the image itself where nothing is known.
        label: index of its class; None where there are no classes, or several may hold.
        labels: 0 or 1 for each class, where several may hold at once.
        mask: file of its mask; None where there is none.
        stack: files of the second modality's slices; empty where there are none.
        split: ``train``, ``val`` or ``test`` where the data set is divided already.
    """

    id: str
    image: Path
    group: str
    label: int | None = None
    labels: tuple[int, ...] = ()
    mask: Path | None = None
    stack: tuple[Path, ...] = ()
    split: str | None = None

    @property
    def classes(self) -> list[int]:
        """Indices of the classes that the image shows."""
        if self.label is not None:
            return [self.label]
        return [index for index, value in enumerate(self.labels) if value]


Splits = dict[str, list[Sample]]
"""Samples by ``train``, ``val`` and ``test``."""


@dataclass(frozen=True)
class Dataset:
    """A data set: names and files, no pixels.

    Attributes:
        name: name of the data set, or kind of one's own.
        samples: the images.
        classes: short name to description, in the order of the model's outputs; empty without classes.
        multi_label: whether several classes may hold at once.
        mask_format: how masks are read.
        group_kind: what a group is: ``lesion``, ``patient``, ``group``, or ``image`` where nothing is known.
        license: license of the images, which models trained on them inherit; None if unknown.
        has_public_ids: whether an id names the same picture everywhere, as ISIC's do.
        notes: what was left out, for the log.
    """

    name: str
    samples: list[Sample]
    classes: dict[str, str] = field(default_factory=dict)
    multi_label: bool = False
    mask_format: MaskFormat = ONE_FOREGROUND
    group_kind: str = "image"
    license: str | None = None
    has_public_ids: bool = False
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """Short names of the classes."""
        return list(self.classes)

    @property
    def has_masks(self) -> bool:
        return all(sample.mask is not None for sample in self.samples)

    @property
    def has_stacks(self) -> bool:
        return all(sample.stack for sample in self.samples)

    @property
    def num_slices(self) -> int:
        """Slices of each stack."""
        return len(self.samples[0].stack)

    def describe(self, splits: Splits) -> str:
        """Table of how many groups and images of each class each split has."""
        lines = [f"{self.name}: groups ({self.group_kind}s) / images of each class"]
        names = self.labels or ["all"]
        width = max(len(name) for name in [*names, "total"])
        lines.append(" " * width + "".join(f"{split:>16}" for split in splits))
        for index, name in [*enumerate(names), (None, "total")]:
            cells = [_count(samples, index if self.labels else None) for samples in splits.values()]
            if name != "total" or len(names) > 1:
                lines.append(f"{name:<{width}}" + "".join(f"{cell:>16}" for cell in cells))
        return "\n".join(lines)


def _count(samples: Sequence[Sample], index: int | None) -> str:
    chosen = [sample for sample in samples if index is None or index in sample.classes]
    return f"{len({sample.group for sample in chosen})} / {len(chosen)}"
