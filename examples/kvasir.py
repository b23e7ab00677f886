"""Reader of Kvasir-SEG in its published layout: ``images/NAME.jpg`` and ``masks/NAME.jpg``, polyps in colonoscopy.

Data: Jha et al., MultiMedia Modeling 2020, for research and education.
"""

import random
from dataclasses import dataclass
from pathlib import Path

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Pair:
    """Files of an image and of its mask."""

    path: Path
    mask: Path


def read_pairs(folder: str | Path) -> list[Pair]:
    """List the images of a Kvasir-SEG folder with their masks, by name.

    Raises:
        ValueError: no images, or images without a mask.
    """
    paths = sorted(Path(folder).glob("images/*.jpg"))
    if not paths:
        raise ValueError(f"{folder}: no images/*.jpg in it; give the folder of Kvasir-SEG as it is published")
    pairs = [Pair(path, path.parent.parent / "masks" / path.name) for path in paths]
    missing = [pair.mask.name for pair in pairs if not pair.mask.is_file()]
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} of {len(pairs)} masks are missing from masks, the first are "
            f"{', '.join(missing[:3])}"
        )
    return pairs


def split_pairs(pairs: list[Pair], seed: int = 0) -> dict[str, list[Pair]]:
    """Split 8:1:1 into ``train``, ``val`` and ``test``. The data set does not say which images show one patient."""
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    held_out = max(1, round(len(pairs) / 10))
    return {"val": shuffled[:held_out], "test": shuffled[held_out : 2 * held_out], "train": shuffled[2 * held_out :]}
