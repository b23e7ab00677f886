"""Find what would break a training, or make it wrong, before it starts: by decoding every file."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .errors import DataError
from .images import open_rgb
from .masks import IGNORE, ONE_FOREGROUND, MaskFormat, open_mask, value_of_foreground
from .records import Sample

__all__ = ["check_files", "check_foreground", "find_problem"]


def check_files(samples: Sequence[Sample], mask_format: MaskFormat = ONE_FOREGROUND, workers: int = 4) -> None:
    """Decode every file once.

    Raises:
        DataError: names the first few files that cannot be used, and why; or masks that give the foreground different
            values, which may be classes.
    """
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda sample: find_problem(sample, mask_format), samples)
        found = list(tqdm(results, total=len(samples), desc="checking files", leave=False, disable=None))
    problems = [problem for problem in found if problem]
    if problems:
        shown = "\n  ".join(problems[:5])
        raise DataError(f"{len(problems)} of {len(samples)} images cannot be used, the first are\n  {shown}")
    if not mask_format.names:
        _check_values([sample.mask for sample in samples if sample.mask], mask_format, workers)


def find_problem(sample: Sample, mask_format: MaskFormat = ONE_FOREGROUND) -> str | None:
    """What is wrong with a sample's files, if anything."""
    for path in (sample.image, *sample.stack):
        try:
            open_rgb(path)
        except (OSError, SyntaxError, ValueError) as error:
            # Pillow raises SyntaxError for broken PNG chunks.
            return f"{path}: not a readable image ({error})"
    if sample.mask is not None:
        try:
            open_mask(sample.mask, sample.image, mask_format)
        except (OSError, SyntaxError, ValueError) as error:
            return f"{sample.mask}: not a usable mask ({error})"
    return None


def _check_values(masks: Sequence[Path], mask_format: MaskFormat, workers: int) -> None:
    """Check that masks of one foreground give it the same value or color throughout."""
    seen: dict[str, list[Path]] = defaultdict(list)
    with ThreadPoolExecutor(workers) as pool:
        for path, value in zip(masks, pool.map(partial(value_of_foreground, mask_format=mask_format), masks)):
            if value is not None:
                seen[str(value)].append(path)
    if len(seen) > 1:
        found = "; ".join(f"{value} in {len(files)} masks, as {files[0]}" for value, files in sorted(seen.items()))
        raise DataError(
            f"the foreground has different values in different masks: {found}. If these are classes, name them with "
            "--data.mask_names '[background, ...]'; else save the masks with 0 and 255"
        )


def check_foreground(samples: Sequence[Sample], mask_format: MaskFormat) -> None:
    """Check that some mask shows what is to be found.

    Raises:
        DataError: every mask is empty; of several classes, names those that are in none; a mask that cannot be read.
    """
    absent = set(range(1, len(mask_format.names))) or {1}
    for sample in samples:
        if sample.mask is not None:
            try:
                indices = open_mask(sample.mask, sample.image, mask_format)
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(f"{sample.mask}: not a usable mask ({error})") from error
            absent -= set(np.unique(indices[indices != IGNORE]).tolist())
            if not absent:
                return
    names = ", ".join(mask_format.foregrounds[index - 1] for index in sorted(absent))
    raise DataError(f"no mask to train on shows {names}: all {len(samples)} of them were read")
