"""Pooling by matrices, against torch's own pooling and convolution."""

import pytest
import torch
from timm.layers import SelectAdaptivePool2d
from torch.nn import functional as F

from mfsf2 import GlobalPool, adaptive_avg_pool
from mfsf2.layers import adaptive_pool_matrix, window_mean_matrix


def test_matrix_is_adaptive_pooling_for_every_size() -> None:
    """In and out from 1 to 64: pooling the unit vectors gives the matrix."""
    like = torch.empty(0, dtype=torch.float64)
    for size in range(1, 65):
        units = torch.eye(size, dtype=torch.float64).unsqueeze(1)
        for out in range(1, 65):
            expected = F.adaptive_avg_pool1d(units, out).squeeze(1).t()
            torch.testing.assert_close(adaptive_pool_matrix(size, out, like), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 5), (7, 7), (14, 9), (64, 33)])
@pytest.mark.parametrize("out", [1, 7, 14])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_adaptive_avg_pool(shape: tuple[int, int], out: int, dtype: torch.dtype, atol: float) -> None:
    x = torch.randn(2, 3, *shape).to(dtype)
    y = adaptive_avg_pool(x, out)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), F.adaptive_avg_pool2d(x.double(), out), rtol=0, atol=atol)


def test_adaptive_avg_pool_is_deterministic() -> None:
    x = torch.randn(4, 8, 23, 17, requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        for _ in range(2):
            (gradient,) = torch.autograd.grad(adaptive_avg_pool(x, 7).square().sum(), x)
            results.append(gradient)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*results)


@pytest.mark.parametrize("size", [1, 2, 5, 14])
@pytest.mark.parametrize("kernel", [1, 3, 5, 9])
def test_window_means_are_the_means_that_a_convolution_sees(size: int, kernel: int) -> None:
    x = torch.randn(1, 1, size, dtype=torch.float64)
    matrix = window_mean_matrix(size, kernel, x)
    for tap in range(kernel):
        weight = torch.zeros(1, 1, kernel, dtype=torch.float64)
        weight[0, 0, tap] = 1
        expected = F.conv1d(x, weight, padding=kernel // 2).mean()
        torch.testing.assert_close(matrix[tap] @ x[0, 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prefix", ["", "fast"])
@pytest.mark.parametrize("kind", ["avg", "max", "avgmax", "catavgmax"])
def test_global_pool_is_timms(prefix: str, kind: str) -> None:
    pool = prefix + kind
    x = torch.randn(2, 4, 5, 3)
    ours, timms = GlobalPool(pool), SelectAdaptivePool2d(pool_type=pool, flatten=True)
    torch.testing.assert_close(ours(x), timms(x))
    assert ours.feat_mult() == timms.feat_mult()


def test_no_pool() -> None:
    x = torch.randn(2, 4, 5, 3)
    assert GlobalPool("")(x) is x


def test_unknown_pool() -> None:
    with pytest.raises(ValueError, match=r"unknown global_pool='median'.*avg"):
        GlobalPool("median")
