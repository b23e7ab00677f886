"""Adaptive pooling, also as products with two small matrices; resizing; global pooling.

The matrices, one for the rows and one for the columns, depend on the map's height and width only. In this form,
adaptive pooling exports with dynamic sizes and is deterministic on every device, and the mean of a convolution's output
costs a small matrix product instead of the convolution.
"""

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .tracing import is_compiling, is_exporting, is_transformed, must_be_deterministic

__all__ = [
    "GlobalPool",
    "adaptive_avg_pool",
    "adaptive_pool_matrix",
    "resize_bilinear",
    "upsample_to",
    "window_mean_matrix",
]


def adaptive_pool_matrix(in_size: int, out_size: int, like: Tensor) -> Tensor:
    """Matrix of 1D adaptive average pooling, ``(out_size, in_size)``, with the device and dtype of ``like``.

    Row i averages the positions from ``floor(i n / m)`` to ``ceil((i + 1) n / m) - 1``, as in
    ``torch.nn.AdaptiveAvgPool1d``; for ``out_size > in_size``, positions repeat.
    """
    row = torch.arange(out_size, device=like.device).unsqueeze(1)
    column = torch.arange(in_size, device=like.device).unsqueeze(0)
    start = torch.div(row * in_size, out_size, rounding_mode="floor")
    end = torch.div((row + 1) * in_size + (out_size - 1), out_size, rounding_mode="floor")
    inside = (column >= start) & (column < end)
    return inside.to(like.dtype) / (end - start).to(like.dtype)


def window_mean_matrix(size: int, kernel_size: int, like: Tensor) -> Tensor:
    """Matrix of the means that the taps of a padded convolution with stride 1 see, ``(kernel_size, size)``.

    With zero padding ``kernel_size // 2``, tap d multiplies the input shifted by ``d - kernel_size // 2``. Row d holds
    ``1 / size`` where that shift stays inside the map, so row d times a signal is the mean of what tap d sees over all
    output positions.
    """
    shift = torch.arange(kernel_size, device=like.device).unsqueeze(1) - kernel_size // 2
    column = torch.arange(size, device=like.device).unsqueeze(0)
    inside = (column >= shift) & (column < size + shift)
    return inside.to(like.dtype) / size


def adaptive_avg_pool(x: Tensor, size: int) -> Tensor:
    """``F.adaptive_avg_pool2d``, ``(B, C, H, W)`` to ``(B, C, size, size)``, in a form that works everywhere.

    Matrix products replace torch's own pooling where that cannot be used: in exported programs, which would not run
    with dynamic sizes; on CUDA with ``torch.use_deterministic_algorithms``; and on MPS, which pools to divisors of the
    size only. Elsewhere they would be several times slower.

    Example:
        >>> adaptive_avg_pool(torch.randn(2, 8, 9, 13), 7).shape
        torch.Size([2, 8, 7, 7])
    """
    if _needs_matrices(x):
        rows = adaptive_pool_matrix(x.shape[-2], size, x)
        columns = adaptive_pool_matrix(x.shape[-1], size, x)
        return separable_product(rows, x, columns)
    if _is_small(x):
        # To channels_last: torch pools with vector instructions in this layout only. Larger maps cost more to copy.
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    elif _is_even(x, size):
        return _pool_evenly(x, size)
    # As a list, in which torch takes NumPy's integers too.
    return F.adaptive_avg_pool2d(x, [size, size])  # type: ignore[arg-type]


def _is_small(x: Tensor) -> bool:
    """Whether a map on the CPU has at most 16 x 16 positions."""
    return not is_compiling() and x.device.type == "cpu" and x.shape[-2] * x.shape[-1] <= 256


def _is_even(x: Tensor, size: int) -> bool:
    """Whether a contiguous map on the CPU is divided into windows of one size."""
    if is_compiling() or x.device.type != "cpu" or not x.is_contiguous():
        return False
    # Half precision would round the sums of the rows.
    return x.shape[-2] % size == 0 and x.shape[-1] % size == 0 and x.element_size() >= 4


def _pool_evenly(x: Tensor, size: int) -> Tensor:
    """Windows of one size, as sums over rows and then over columns: torch's own pooling takes half as long again."""
    batch, channels, height, width = x.shape
    rows, columns = height // size, width // size
    sums = x.view(batch, channels, size, rows, width).sum(3)
    return sums.view(batch, channels, size, size, columns).sum(4) / (rows * columns)


def _needs_matrices(x: Tensor) -> bool:
    """Whether torch's own adaptive pooling does not export, is not deterministic, or does not exist."""
    if x.device.type == "cuda":
        return is_exporting() or must_be_deterministic()
    return is_exporting() or x.device.type == "mps"


def separable_product(rows: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    """``rows @ x @ columns.t()`` for each channel of a map ``(B, C, H, W)``, in the layout of the map."""
    if is_channels_last(x):
        batch, channels, height, width = x.shape
        # Products along H and W with the channels innermost, so that nothing is copied.
        y = torch.matmul(rows, x.permute(0, 2, 3, 1).reshape(batch, height, width * channels))
        y = torch.matmul(columns, y.reshape(batch, rows.shape[0], width, channels))
        return y.permute(0, 3, 1, 2)
    return torch.matmul(rows, torch.matmul(x, columns.t()))


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a map ``(B, C, H, W)`` are innermost in memory; False where nobody can say."""
    if is_compiling() or is_transformed():
        # Asking would tie a program to the example's sizes, and vmap does not answer.
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def resize_bilinear(x: Tensor, like: Tensor) -> Tensor:
    """Resize ``(B, C, H, W)`` to the grid of ``like`` (bilinear, ``align_corners=True``), if it differs."""
    if _same_grid(x, like):
        return x
    return nn.functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _same_grid(x: Tensor, like: Tensor) -> bool:
    """Whether two maps have the same height and width; in an exported program, whether they do for every image size."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        exporting = is_exporting()
        if exporting:
            # A plain comparison would fix the program to the example's sizes, but two modalities differ in size.
            return _always(x.shape[-2] == like.shape[-2]) and _always(x.shape[-1] == like.shape[-1])
    return x.shape[-2] == like.shape[-2] and x.shape[-1] == like.shape[-1]


def _always(equal: bool) -> bool:
    """Whether a comparison of symbolic sizes holds for all sizes."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(equal)


def upsample_to(x: Tensor, like: Tensor) -> Tensor:
    """Resize ``(B, C, H, W)`` to the grid of ``like`` (bilinear, ``align_corners=False``)."""
    return nn.functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class GlobalPool(nn.Module):
    """Pool a map ``(B, C, H, W)`` to ``(B, C * feat_mult)``.

    Args:
        pool_type: a name of timm's: ``"avg"``, ``"max"``, ``"avgmax"`` (their mean), ``"catavgmax"`` (both,
            concatenated), each also with the prefix ``"fast"``; ``""`` for no pooling.

    Example:
        >>> GlobalPool("catavgmax")(torch.randn(2, 8, 7, 7)).shape
        torch.Size([2, 16])
    """

    POOL_TYPES = ("avg", "max", "avgmax", "catavgmax")

    def __init__(self, pool_type: str = "avg") -> None:
        super().__init__()
        # timm's "fast" pools differ in speed only.
        kind = pool_type.removeprefix("fast") or ("avg" if pool_type else "")
        if kind and kind not in self.POOL_TYPES:
            raise ValueError(
                f"unknown global_pool={pool_type!r}: use one of {self.POOL_TYPES}, also with the prefix 'fast', or '' "
                "for none"
            )
        self.pool_type = pool_type
        self.kind = kind

    def feat_mult(self) -> int:
        """Number of features per channel, as timm's pools name it."""
        return 2 if self.kind == "catavgmax" else 1

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "":
            return x
        if self.kind == "avg":
            return x.mean((2, 3))
        if self.kind == "max":
            return x.amax((2, 3))
        if self.kind == "avgmax":
            return 0.5 * (x.mean((2, 3)) + x.amax((2, 3)))
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)

    def extra_repr(self) -> str:
        return f"pool_type={self.pool_type!r}"
