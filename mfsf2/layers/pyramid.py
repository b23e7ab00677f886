"""Fusion across scales: adapters to one grid, then pyramid split attention (PSA).

Source of PSA: Zhang et al., "EPSANet: An Efficient Pyramid Squeeze Attention Block", ACCV 2022.
"""

from collections.abc import Sequence

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_integer, check_map, check_maps
from .conv import ConvNormAct, SplitConv2d
from .pooling import adaptive_avg_pool, separable_product, window_mean_matrix

__all__ = ["MultiScalePyramid", "PyramidSplitAttention"]


def window_means(x: Tensor, kernel_size: int) -> Tensor:
    """Means of ``(B, C, H, W)`` over the windows that the taps of a padded convolution see: ``(B, C, k, k)``."""
    rows = window_mean_matrix(x.shape[-2], kernel_size, x)
    columns = window_mean_matrix(x.shape[-1], kernel_size, x)
    return separable_product(rows, x, columns)


# Symbolic tracing does not know the sizes that the matrices depend on: each of these is one node.
for _name in ("adaptive_avg_pool", "window_means"):
    torch.fx.wrap(_name)


class PyramidSplitAttention(nn.Module):
    r"""Convolutions of several kernel sizes, weighted per channel by a softmax over the kernel sizes.

    Let :math:`x_i` be the output of convolution i and :math:`g_i` its global average. With
    :math:`w_i = 1 + 2 \sigma(W g_i)` and :math:`a = \mathrm{softmax}_i(w_i)`, the output is the concatenation of
    :math:`a_i x_i` from the **last** kernel size to the first, as in the published model.

    Args:
        in_chans: input channels.
        out_chans: output channels, split evenly among the kernel sizes.
        kernel_sizes: odd kernel sizes.
        groups: number of groups of each convolution.

    Shape: ``(B, in_chans, H, W)`` to ``(B, out_chans, H, W)``; :meth:`pooled` to ``(B, out_chans)``.

    Raises:
        ValueError: channels not divisible by the groups or the number of kernel sizes, an even kernel size, or lists of
            different lengths.

    Example:
        >>> PyramidSplitAttention(64, 64)(torch.randn(2, 64, 9, 11)).shape
        torch.Size([2, 64, 9, 11])
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        groups: Sequence[int] = (1, 4, 8, 16),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(kernel_sizes) != len(groups) or not kernel_sizes:
            raise ValueError(
                f"kernel_sizes={tuple(kernel_sizes)} and groups={tuple(groups)} must have the same length, at least 1"
            )
        if any(k < 1 or k % 2 == 0 for k in kernel_sizes):
            raise ValueError(f"kernel_sizes={tuple(kernel_sizes)} must be odd, so that maps keep their size")
        if out_chans % len(kernel_sizes):
            raise ValueError(
                f"out_chans={out_chans} must be divisible by the number of kernel sizes, {len(kernel_sizes)}"
            )
        split = out_chans // len(kernel_sizes)
        for group in groups:
            if group < 1 or in_chans % group or split % group:
                raise ValueError(
                    f"groups={tuple(groups)}: {group} must divide in_chans={in_chans} and the {split} channels of one "
                    f"kernel size (out_chans={out_chans} / {len(kernel_sizes)})"
                )
        self.in_chans = in_chans
        self.convs = nn.ModuleList(
            SplitConv2d(in_chans, split, k, g, device=device, dtype=dtype) for k, g in zip(kernel_sizes, groups)
        )
        self.fc = nn.Linear(split, split, bias=False, device=device, dtype=dtype)
        self.max_kernel_size = max(kernel_sizes)
        # How much narrower the padding of each kernel is than that of the largest one, on each side.
        self._margins = [(self.max_kernel_size - k) // 2 for k in kernel_sizes]

    def _attention(self, means: list[Tensor]) -> Tensor:
        """Softmax weights ``(B, n, split)`` from the global averages of the n convolutions, each ``(B, split)``."""
        return (1 + 2 * self.fc(torch.stack(means, dim=1)).sigmoid()).softmax(1)

    def forward(self, x: Tensor, padded: bool = False) -> Tensor:
        """Weighted maps of all convolutions, the last kernel size first.

        Args:
            x: the map.
            padded: whether ``x`` is already padded by ``max_kernel_size // 2`` on each side; the output is not.
        """
        check_map(x, self.in_chans)
        if padded:
            crops = [F.pad(x, [-margin] * 4) if margin else x for margin in self._margins]
            maps = [conv(crop, padding=0) for conv, crop in zip(self.convs, crops)]
        else:
            maps = [conv(x) for conv in self.convs]
        attention = self._attention([y.mean((2, 3)) for y in maps]).unsqueeze(3).unsqueeze(4)
        return torch.cat([attention[:, i] * maps[i] for i in reversed(range(len(maps)))], dim=1)

    def pooled(self, x: Tensor) -> Tensor:
        """``forward(x).mean((2, 3))``, exactly, at a fraction of the cost.

        The mean of a convolution's output is the kernel applied to the means of the windows that its taps see. These
        means form a padded map with a single position, so the same modules compute it.
        """
        return self(window_means(x, self.max_kernel_size), padded=True).flatten(1)


class MultiScalePyramid(nn.Module):
    """Bring maps of several scales to one grid, concatenate them, apply pyramid split attention.

    The authors' newer name is PMSF.

    Args:
        in_chans: channels of the maps, one entry per map.
        adapter_chans: channels A of each adapter (1x1 convolution without bias, batch norm, ReLU).
        out_chans: channels O of the output.
        size: height and width of the grid; maps are average-pooled to it, smaller maps are enlarged.
        kernel_sizes, groups: as for :class:`PyramidSplitAttention`.

    Shape: list of ``(B, in_chans[i], H_i, W_i)`` to ``(B, out_chans, size, size)``; with ``pooled=True``, to the mean
    of that map, ``(B, out_chans)``, exactly and at a fraction of the cost.

    Example:
        >>> pyramid = MultiScalePyramid([32, 32], adapter_chans=32, out_chans=64)
        >>> maps = [torch.randn(2, 32, 28, 20), torch.randn(2, 32, 14, 10)]
        >>> pyramid(maps).shape, pyramid(maps, pooled=True).shape
        (torch.Size([2, 64, 14, 14]), torch.Size([2, 64]))
    """

    def __init__(
        self,
        in_chans: Sequence[int],
        adapter_chans: int = 256,
        out_chans: int = 512,
        size: int = 14,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        groups: Sequence[int] = (1, 4, 8, 16),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_chans = list(in_chans)
        self.out_chans = out_chans
        self.size = check_integer(size, "size")
        self.adapters = nn.ModuleList(
            ConvNormAct(chans, adapter_chans, bias=False, device=device, dtype=dtype) for chans in in_chans
        )
        self.psa = PyramidSplitAttention(
            adapter_chans * len(self.in_chans), out_chans, kernel_sizes, groups, device=device, dtype=dtype
        )

    def forward(self, maps: list[Tensor], pooled: bool = False) -> Tensor:
        check_maps(maps, self.in_chans)
        # One map at a time, so that only one is in memory at its full size.
        x = torch.cat([adaptive_avg_pool(adapt(x), self.size) for adapt, x in zip(self.adapters, maps)], dim=1)
        return self.psa.pooled(x) if pooled else self.psa(x)
