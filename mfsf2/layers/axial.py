"""Attention within the rows and the columns of a map."""

from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_map, check_reduction
from .conv import PointwiseConv2d
from .tracing import is_compiling

__all__ = ["AxialAttention"]


class AxisAttention(nn.Module):
    """Self-attention along one axis of a map, a residual scaled by the learned ``gamma``, which starts at 0.

    Args:
        channels: channels of the map.
        hidden_chans: channels of queries and keys.
        along_width: attend within each row; otherwise within each column.

    Shape: ``(B, C, H, W)`` to the same.
    """

    def __init__(
        self,
        channels: int,
        hidden_chans: int,
        along_width: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.along_width = along_width
        self.query = PointwiseConv2d(channels, hidden_chans, 1, device=device, dtype=dtype)
        self.key = PointwiseConv2d(channels, hidden_chans, 1, device=device, dtype=dtype)
        self.value = PointwiseConv2d(channels, channels, 1, device=device, dtype=dtype)
        self.gamma = nn.Parameter(torch.zeros((), device=device, dtype=dtype))
        self.register_load_state_dict_pre_hook(_rename_gamma)  # type: ignore[no-untyped-call]

    def reset_parameters(self) -> None:
        """Reset ``gamma`` to 0; the convolutions reset themselves."""
        nn.init.zeros_(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        # To (B, other axis, attended axis, channels), and back.
        order, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if self.along_width else ((0, 3, 2, 1), (0, 3, 2, 1))
        # Contiguous, because an exported program would tie its sizes to the strides of permuted maps.
        q, k, v = (layer(x).permute(order).contiguous() for layer in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v).permute(back)
        return add_scaled(x, self.gamma, attended)


def add_scaled(x: Tensor, gamma: Tensor, attended: Tensor) -> Tensor:
    """``x + gamma * attended``, in one pass over the maps."""
    # A program that is compiled does this itself, but would tie its sizes to the strides of a permuted map.
    return x + gamma * attended.contiguous() if is_compiling() else torch.addcmul(x, gamma, attended)


# Symbolic tracing does not know who traces: this is one node.
torch.fx.wrap("add_scaled")


def _rename_gamma(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of ``load_state_dict``: in checkpoints of version 0.1, ``gamma`` is called ``factor``."""
    if f"{prefix}factor" in state_dict:
        state_dict[f"{prefix}gamma"] = state_dict.pop(f"{prefix}factor")


class AxialAttention(nn.Module):
    """Self-attention within the columns of a map, then within its rows, each a residual that starts at 0.

    Every position sees the whole map, at a cost of ``H W (H + W)``. The idea is CaraNet's (Lou et al., 2022), whose
    published code attends along the wrong axes; here a sequence is one row or one column.

    Args:
        channels: channels C of the map.
        reduction: queries and keys have ``C // reduction`` channels.

    Shape: ``(B, C, H, W)`` to the same, for any H, W >= 1.

    Raises:
        ValueError: fewer channels than ``reduction``, or an input of the wrong shape.

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
        check_reduction(channels, reduction)
        self.channels = channels
        hidden_chans = channels // reduction
        self.columns = AxisAttention(channels, hidden_chans, along_width=False, device=device, dtype=dtype)
        self.rows = AxisAttention(channels, hidden_chans, along_width=True, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels)
        return self.rows(self.columns(x))
