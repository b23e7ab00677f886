"""Attention along the rows and along the columns of a map."""

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_dtypes, check_map, check_reduction

__all__ = ["AxialAttention"]

torch.fx.wrap("check_map")


class AxisAttention(nn.Module):
    """Self-attention along one axis of a map, added to it with a learned factor that starts at 0.

    Args:
        channels: channels of the map.
        hidden: channels of queries and keys.
        along_width: attend along each row, over its columns; otherwise along each column, over its rows.

    Shape: ``(B, C, H, W)`` to the same.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        along_width: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.along_width = along_width
        self.query = nn.Conv2d(channels, hidden, 1, device=device, dtype=dtype)
        self.key = nn.Conv2d(channels, hidden, 1, device=device, dtype=dtype)
        self.value = nn.Conv2d(channels, channels, 1, device=device, dtype=dtype)
        self.factor = nn.Parameter(torch.zeros((), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Put the factor back to 0; the convolutions reset themselves."""
        nn.init.zeros_(self.factor)

    def forward(self, x: Tensor) -> Tensor:
        # Sequences (B, other axis, length, channels) along the axis attended.
        order, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if self.along_width else ((0, 3, 2, 1), (0, 3, 2, 1))
        # Contiguous, as an exported program would tie its sizes to the strides of permuted maps.
        q, k, v = (layer(x).permute(order).contiguous() for layer in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v).permute(back).contiguous()
        return x + self.factor * attended


class AxialAttention(nn.Module):
    """Self-attention along the columns of a map, then along its rows, each a residual that starts at 0.

    Every position sees its column and, through it, the whole map, at a cost of ``H W (H + W)``. The idea of CaraNet
    (Lou et al., 2022), whose published code attends along the wrong axes; here each sequence is one row or one column.

    Args:
        channels: channels C of the map.
        reduction: queries and keys have ``C // reduction`` channels.

    Shape: ``(B, C, H, W)`` to the same, for any H, W >= 1.

    Raises:
        ValueError: fewer channels than ``reduction``, an input of another shape.
        TypeError: arguments that are no integers, an input of another dtype.

    Example:
        >>> AxialAttention(64)(torch.randn(2, 64, 9, 13)).shape
        torch.Size([2, 64, 9, 13])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_reduction(channels, reduction, ("channels", "reduction"), "query channel")
        self.channels = channels
        hidden = channels // reduction
        self.columns = AxisAttention(channels, hidden, along_width=False, device=device, dtype=dtype)
        self.rows = AxisAttention(channels, hidden, along_width=True, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels, "x")
        check_dtypes(self, x=x)
        return self.rows(self.columns(x))
