"""Which images a model has seen: hashes of their contents and, where names are public, of these."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from .records import Dataset, Sample

__all__ = ["hash_file", "hash_id", "hashes_of", "without_seen"]


def hash_id(identity: str) -> str:
    """Short hash of an image's public name; ISIC's downsampled copies are the same picture."""
    return hashlib.sha256(identity.removesuffix("_downsampled").encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Short hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def hashes_of(dataset: Dataset, sample: Sample) -> list[str]:
    """What tells an image again.

    The content, whatever the file is called; also the name where it is public, because such images are handed on in
    other sizes. Names of one's own say nothing: every hospital has its ``img_001.png``.
    """
    return [hash_file(sample.image), *([hash_id(sample.id)] if dataset.has_public_ids else [])]


def without_seen(dataset: Dataset, samples: Sequence[Sample], seen: Iterable[str]) -> list[Sample]:
    """The samples of which no hash is among ``seen``."""
    known = set(seen)
    return [s for s in samples if not known.intersection(hashes_of(dataset, s))] if known else list(samples)
