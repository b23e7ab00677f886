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
    if values.size and 0 <= values.min() <= values.max() <= 65535:
        # Much faster than sorting all pixels.
        counts = np.bincount(values.ravel())
        found = counts.nonzero()[0]
        return found, counts[found]
    return np.unique(values, return_counts=True)


def foreground_of(values: np.ndarray, ignored: np.ndarray, is_lossy: bool) -> np.ndarray:
    """0 and 1, int64 ``(H, W)``.

    Args:
        values: of the mask's file, ``(H, W)``.
        ignored: where they do not count.
        is_lossy: whether the file's compression changes values.

    Raises:
        ValueError: values that may be classes, noise, or pixels to ignore.
    """
    found, counts = count_values(values[~ignored])
    if found.size and found[0] < 0:
        raise ValueError(f"values {listed(found)}; masks have none below 0")
    inner, numbers = found[found > 0], counts[found > 0]
    if not inner.size:
        return np.zeros(values.shape, np.int64)
    if inner.size == 1 and not is_lossy:
        return (values > 0).astype(np.int64)
    largest = int(inner[-1])
    if largest <= 127 and is_lossy:
        raise ValueError(
            f"lossy compression and values up to {largest}, which may be noise; save masks as PNG with 0 and 255"
        )
    visible = np.where(ignored, 0, values)
    if largest <= 127 or (_has_classes_lossy if is_lossy else _has_classes)(visible, inner, numbers):
        raise ValueError(f"values {listed(found)}: {_ADVICE}")
    return (values > (127 if largest <= 255 else largest // 2)).astype(np.int64)


def _has_classes(values: np.ndarray, inner: np.ndarray, numbers: np.ndarray) -> bool:
    """Whether values between 0 and the largest one are more than soft edges.

    These have a little of each value, in lines. A class, or pixels to ignore, has much of one value, or an area of it.
    """
    largest = int(inner[-1])
    if inner.size == 2 and inner[0] < 0.9 * largest:
        return True
    if numbers[:-1].max(initial=0) > max(0.1 * numbers.sum(), 20):
        return True
    middle = inner[(inner > 0.1 * largest) & (inner < 0.9 * largest)]
    if not middle.size:
        return False
    low, high = _around(values, 3, np.minimum), _around(values, 3, np.maximum)
    # Of an area of 5 x 5 pixels, 9 have all their neighbors in it.
    return bool((count_values(low[(low == high) & np.isin(low, middle)])[1] >= 9).any())


def _has_classes_lossy(values: np.ndarray, inner: np.ndarray, numbers: np.ndarray) -> bool:
    """The same where each class has a spread of values: areas of values that are neither low nor high."""
    low, high = 0.25 * inner[-1], 0.75 * inner[-1]
    between = (values > low) & (values < high)
    total = numbers.sum()
    return bool(
        between.sum() / 4 > max(0.1 * total, 20) or _around(between, 5, np.minimum).sum() > max(0.05 * total, 25)
    )


def _around(values: np.ndarray, size: int, pick: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """The least or greatest value of the square around each pixel; pixels at the edge have none."""
    for _ in range(2):
        rows = max(len(values) - size + 1, 0)
        values = reduce(pick, [values[start : start + rows] for start in range(size)]).T
    return values


def listed(found: np.ndarray) -> str:
    """The first values, and the last."""
    return ", ".join(map(str, found[:6])) + (f", ... {found[-1]}" if found.size > 6 else "")
