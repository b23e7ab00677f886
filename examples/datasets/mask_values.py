"""Which values of a mask are its one foreground, or why that cannot be told."""

from collections.abc import Callable
from functools import reduce

import numpy as np

__all__ = ["count_values", "foreground_of", "listed"]

_ADVICE = (
    "what is foreground cannot be told; save masks with 0 and 255, or, for several classes, name them: "
    "--data.mask_names '[background, ...]', and --data.ignore_index for pixels to ignore"
)


def count_values(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values, in order, and how many pixels have each."""
    if values.size and (values.dtype == np.uint8 or 0 <= values.min() <= values.max() <= 65535):
        # Much faster than sorting all pixels.
        counts = np.bincount(values.ravel())
        found = counts.nonzero()[0]
        return found, counts[found]
    return np.unique(values, return_counts=True)


def foreground_of(values: np.ndarray, lossy: str) -> np.ndarray:
    """The foreground, bool ``(H, W)``.

    Args:
        values: of the mask's file, ``(H, W)``.
        lossy: name of the file's format where its compression changes values; else empty.

    Raises:
        ValueError: values that may be classes, noise, or pixels to ignore.
    """
    found, counts = count_values(values)
    if found[0] < 0:
        raise ValueError(f"values {listed(found)}; masks have none below 0")
    inner, numbers = found[found > 0], counts[found > 0]
    largest = int(found[-1])
    if lossy and 0 < largest <= 127:
        raise ValueError(f"a {lossy} of values up to {largest}, which may be noise; save masks as PNG with 0 and 255")
    if inner.size == 0 or (inner.size == 1 and not lossy):
        return values > 0
    cut = largest // 2 if largest > 255 else 127
    has_classes = _has_classes_lossy(values, cut) if lossy else _has_classes(values, inner, numbers)
    if largest <= 127 or has_classes:
        raise ValueError(f"values {listed(found)}: {_ADVICE}")
    return values > cut


def _has_classes(values: np.ndarray, inner: np.ndarray, numbers: np.ndarray) -> bool:
    """Whether values between 0 and the largest one are more than soft edges or noise.

    These are many different values, in lines or scattered. Classes, and pixels to ignore, are few, or have areas.
    """
    largest, total = int(inner[-1]), numbers.sum()
    if inner.size == 2:
        return bool(inner[0] < 0.9 * largest)
    if inner.size <= 8 and numbers[:-1].max() > max(0.1 * total, 20):
        return True
    low, high = _around(values, 3, np.minimum), _around(values, 3, np.maximum)
    flat, areas = count_values(low[(low == high) & (low > 0) & (low < largest)])
    # Of an area of 5 x 5 pixels, 9 have all their neighbors in it. Wide soft edges are flat at both ends.
    is_middle = (flat > 0.1 * largest) & (flat < 0.9 * largest)
    return bool((areas >= np.where(is_middle, 9, np.maximum(0.05 * total, 9))).any())


def _has_classes_lossy(values: np.ndarray, cut: int) -> bool:
    """The same where each class has a spread of values: hardly any that are bright, or areas of medium ones."""
    lit, bright = values > 0.5 * cut, values >= 1.5 * cut
    area = _around(lit & ~bright, 5, np.minimum).sum()
    return bool(bright.sum() < 0.1 * lit.sum() or area > max(0.05 * lit.sum(), 9))


def _around(values: np.ndarray, size: int, pick: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """The least or greatest value of the square around each pixel; pixels at the edge have none."""
    for _ in range(2):
        rows = max(len(values) - size + 1, 0)
        values = reduce(pick, [values[start : start + rows] for start in range(size)]).T
    return values


def listed(found: np.ndarray) -> str:
    """The first values, and the last."""
    return ", ".join(map(str, found[:6])) + (f", ... {found[-1]}" if found.size > 6 else "")
