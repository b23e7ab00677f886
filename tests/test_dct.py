"""Filter bank and frequency tables, against scipy's DCT."""

import numpy as np
import pytest
import torch
from scipy import fft

from mfsf2 import FREQUENCY_TABLES, MFFE, dct_basis, dct_filter_bank, dct_frequencies


@pytest.mark.parametrize("length", [1, 2, 7, 8, 14, 15, 28])
def test_basis_is_scipys(length: int) -> None:
    # Row f of the orthonormal DCT-II matrix is the inverse transform of the f-th unit vector.
    expected = fft.idct(np.eye(length), type=2, norm="ortho", axis=1)
    actual = torch.stack([dct_basis(f, length) for f in range(length)])
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("table", FREQUENCY_TABLES)
@pytest.mark.parametrize("grid", [7, 8, 13, 14, 15, 21, 28])
def test_bank_is_scipys(table: str, grid: int) -> None:
    pairs = dct_frequencies(table, 32)
    bank = dct_filter_bank(pairs, grid, dtype=torch.float64)
    assert bank.shape == (32, grid, grid)
    for (u, v), filter_ in zip(pairs, bank, strict=True):
        coefficient = np.zeros((grid, grid))
        coefficient[u * (grid // 7), v * (grid // 7)] = 1
        np.testing.assert_allclose(filter_.numpy(), fft.idctn(coefficient, norm="ortho"), atol=1e-14)


def test_filtering_gives_scipys_coefficients() -> None:
    x = torch.randn(7, 7, dtype=torch.float64)
    coefficients = fft.dctn(x.numpy(), norm="ortho")
    for u, v in FREQUENCY_TABLES["top"]:
        value = (x * dct_filter_bank([(u, v)], 7, dtype=torch.float64)[0]).sum()
        np.testing.assert_allclose(value, coefficients[u, v], atol=1e-13)


def test_tables() -> None:
    for name, table in FREQUENCY_TABLES.items():
        assert len(table) == 32, name
        assert len(set(table)) == 32, name
        assert all(0 <= f < 7 for pair in table for f in pair), name
    # Worked by hand: the first column of each table, and the low table's order by u + v.
    assert [FREQUENCY_TABLES[name][0] for name in ("top", "low", "bot")] == [(0, 0), (0, 0), (6, 6)]
    assert FREQUENCY_TABLES["top"][2] == (6, 0)
    sums = [u + v for u, v in FREQUENCY_TABLES["low"][:6]]
    assert sums == sorted(sums)


def test_worked_example() -> None:
    # b(p, 1, 7) at p = 0 is cos(pi / 14) * sqrt(2 / 7).
    bank = dct_filter_bank([(0, 0), (1, 0)], 7, dtype=torch.float64)
    assert bank[0].allclose(torch.full((7, 7), 1 / 7, dtype=torch.float64))
    assert bank[1, 0, 3].item() == pytest.approx(0.9749279121818236 * (2 / 7) ** 0.5 / 7**0.5)


def test_own_pairs() -> None:
    assert dct_frequencies([(1, 2), [3, 4]]) == ((1, 2), (3, 4))  # type: ignore[list-item]
    assert MFFE(16, frequencies=[(0, 0), (5, 6), (1, 1)]).bank.shape == (3, 49)


@pytest.mark.parametrize("k", [0, 3, 5, 33, -1])
def test_number_not_allowed(k: int) -> None:
    with pytest.raises(ValueError, match=rf"num_frequencies={k}.*\(1, 2, 4, 8, 16, 32\)"):
        dct_frequencies("top", k)


@pytest.mark.parametrize("grid", [6, 1, 0])
def test_grid_too_small(grid: int) -> None:
    with pytest.raises(ValueError, match=f"grid_size={grid} is smaller than 7"):
        dct_filter_bank([(0, 0)], grid)
    with pytest.raises(ValueError, match=f"grid_size={grid} is smaller than 7"):
        MFFE(16, grid_size=grid)


def test_bad_pairs() -> None:
    names = ", ".join(map(repr, sorted(FREQUENCY_TABLES)))
    with pytest.raises(ValueError, match=rf"'mid' is not a table.*\[{names}\]"):
        dct_frequencies("mid")
    with pytest.raises(ValueError, match="empty"):
        dct_frequencies([])
    with pytest.raises(TypeError, match=r"\(1,\)"):
        dct_frequencies([(1,)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="holds 3"):
        dct_frequencies([3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"\(0, 7\).*from 0 to 6"):
        dct_filter_bank([(0, 7)], 7)
    with pytest.raises(ValueError, match=r"\(-1, 0\)"):
        MFFE(16, frequencies=[(-1, 0)])
