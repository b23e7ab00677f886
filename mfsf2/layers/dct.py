"""Two-dimensional DCT-II filter bank and the tables of frequencies it is built from.

Source: Qin et al., "FcaNet: Frequency Channel Attention Networks", ICCV 2021. The tables rank the 49 frequencies of
a 7x7 grid by the ImageNet accuracy of a model that uses only that frequency (``top``, ``bot``), or by frequency
(``low``).
"""

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

__all__ = [
    "ALLOWED_NUM_FREQUENCIES",
    "BASE_GRID",
    "FREQUENCY_TABLES",
    "FrequencyPairs",
    "dct_basis",
    "dct_filter_bank",
    "dct_frequencies",
]

BASE_GRID = 7
"""Height and width of the grid of the tables' frequencies; a larger grid G multiplies them by ``G // 7``."""

ALLOWED_NUM_FREQUENCIES = (1, 2, 4, 8, 16, 32)
"""Allowed numbers of frequencies from a table."""

FrequencyPairs = Sequence[tuple[int, int]]


def _pairs(u: str, v: str) -> tuple[tuple[int, int], ...]:
    """Pair two rows of digits, one frequency per column."""
    return tuple((int(a), int(b)) for a, b in zip(u.split(), v.split(), strict=True))


FREQUENCY_TABLES: dict[str, tuple[tuple[int, int], ...]] = {
    "top": _pairs(
        "0 0 6 0 0 1 1 4 5 1 3 0 0 0 3 2 4 6 3 5 5 2 6 5 5 3 3 4 2 2 6 1",
        "0 1 0 5 2 0 2 0 0 6 0 4 6 3 5 2 6 3 3 3 5 1 1 2 4 2 1 1 3 0 5 3",
    ),
    "low": _pairs(
        "0 0 1 1 0 2 2 1 2 0 3 4 0 1 3 0 1 2 3 4 5 0 1 2 3 4 5 6 1 2 3 4",
        "0 1 0 1 2 0 1 2 2 3 0 0 4 3 1 5 4 3 2 1 0 6 5 4 3 2 1 0 6 5 4 3",
    ),
    "bot": _pairs(
        "6 1 3 3 2 4 1 2 4 4 5 1 4 6 2 5 6 1 6 2 2 4 3 3 5 5 6 2 5 5 3 6",
        "6 4 4 6 6 3 1 4 4 5 6 5 2 2 5 1 4 3 5 0 3 1 1 2 4 2 1 1 5 3 3 3",
    ),
}
"""The tables of 32 ``(u, v)`` pairs: ``u`` counts half waves down the rows, ``v`` along the columns."""


def dct_frequencies(
    frequencies: str | FrequencyPairs = "top", num_frequencies: int = 16
) -> tuple[tuple[int, int], ...]:
    """Look up ``(u, v)`` pairs on the 7x7 grid.

    Args:
        frequencies: a table (``"top"``, ``"low"``, ``"bot"``), or your own pairs, which are returned unchanged.
        num_frequencies: how many to take from a table: 1, 2, 4, 8, 16 or 32. Your own pairs are all used.

    Raises:
        ValueError: an unknown table, a number that is not allowed, or an empty list.
        TypeError: an entry that is not a pair of integers.

    Example:
        >>> dct_frequencies("low", 4)
        ((0, 0), (0, 1), (1, 0), (1, 1))
    """
    if isinstance(frequencies, str):
        if frequencies not in FREQUENCY_TABLES:
            raise ValueError(
                f"frequencies={frequencies!r} is not a table: use one of {sorted(FREQUENCY_TABLES)}, or a list of "
                "(u, v) pairs"
            )
        if num_frequencies not in ALLOWED_NUM_FREQUENCIES:
            raise ValueError(f"num_frequencies={num_frequencies} is not allowed: use one of {ALLOWED_NUM_FREQUENCIES}")
        return FREQUENCY_TABLES[frequencies][:num_frequencies]
    if not frequencies:
        raise ValueError("frequencies is empty: pass at least one (u, v) pair")
    for pair in frequencies:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(f, Integral) for f in pair):
            raise TypeError(f"frequencies holds {pair!r}: every entry must be a pair (u, v) of integers")
    return tuple((int(u), int(v)) for u, v in frequencies)


def dct_basis(frequency: int, length: int) -> Tensor:
    """One vector of the orthonormal DCT-II basis, float64, shape ``(length,)``.

    ``b(p) = cos(pi f (p + 1/2) / L) / sqrt(L)``, times ``sqrt(2)`` for ``f > 0``.

    Example:
        >>> dct_basis(0, 4)
        tensor([0.5000, 0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    position = torch.arange(length, dtype=torch.float64, device="cpu")
    scale = math.sqrt((2 if frequency > 0 else 1) / length)
    return torch.cos(math.pi * frequency * (position + 0.5) / length) * scale


def dct_filter_bank(
    frequencies: FrequencyPairs,
    grid_size: int = 7,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Filters ``D_k[i, j] = b(i, u_k (G // 7), G) b(j, v_k (G // 7), G)``.

    Args:
        frequencies: K pairs ``(u, v)`` on the 7x7 grid, see :func:`dct_frequencies`.
        grid_size: height and width G of the grid, at least 7; on a smaller one, every filter would be constant.

    Returns:
        Tensor of shape ``(K, G, G)``.

    Raises:
        ValueError: a grid smaller than 7, or a frequency outside the grid.

    Example:
        >>> dct_filter_bank(dct_frequencies("top", 16), grid_size=7).shape
        torch.Size([16, 7, 7])
    """
    if grid_size < BASE_GRID:
        raise ValueError(
            f"grid_size={grid_size} is smaller than {BASE_GRID}: frequencies are scaled by grid_size // {BASE_GRID}, "
            "so every filter would be constant"
        )
    scale = grid_size // BASE_GRID
    for pair in frequencies:
        if not all(0 <= f * scale < grid_size for f in pair):
            raise ValueError(
                f"frequency {tuple(pair)} times {scale} is outside the {grid_size}x{grid_size} grid: "
                f"u and v must be from 0 to {(grid_size - 1) // scale}"
            )
    basis = {f: dct_basis(f * scale, grid_size) for f in {f for pair in frequencies for f in pair}}
    down, along = (torch.stack([basis[pair[axis]] for pair in frequencies]) for axis in (0, 1))
    # A default tensor, so that device=None follows torch.device(...) contexts like any other factory.
    like = torch.empty(0, device=device, dtype=dtype)
    return (down.unsqueeze(2) * along.unsqueeze(1)).to(device=like.device, dtype=like.dtype)
