"""MFFE for the tokens of transformers."""

import math
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from .checks import check_integer
from .mffe import MFFE

__all__ = ["TokenMFFE"]


def tokens_to_map(x: Tensor, num_prefix_tokens: int, grid: tuple[int, int] | None) -> Tensor:
    """The patches among tokens ``(B, N, C)`` as a map ``(B, H, W, C)``."""
    if x.dim() != 3:
        raise ValueError(f"x must hold tokens (B, N, C), got {list(x.shape)}")
    patches = x.shape[1] - num_prefix_tokens
    height, width = grid or (math.isqrt(max(patches, 0)),) * 2
    if patches < 1 or height * width != patches:
        shape = "a square" if grid is None else f"{height}x{width}"
        raise ValueError(
            f"{x.shape[1]} tokens without num_prefix_tokens={num_prefix_tokens} are {patches} patches, not {shape} "
            "grid: pass the number of prefix tokens (class token, registers), and grid=(rows, columns) for images that "
            "are not square"
        )
    return x[:, num_prefix_tokens:].unflatten(1, (height, width))


torch.fx.wrap("tokens_to_map")


class TokenMFFE(nn.Module):
    """:class:`MFFE` on the patches among the tokens of a transformer; prefix tokens pass unchanged.

    Args:
        channels: channels C of the tokens.
        num_prefix_tokens: tokens before the patches, such as the class token and registers;
            ``model.num_prefix_tokens`` of timm's models.
        grid: rows and columns of the patches, row by row; None for a square.
        **mffe_args: arguments of :class:`MFFE`, except ``data_format``.

    Shape: ``(B, N, C)`` to the same.

    Raises:
        ValueError: patches that do not fill the grid, or what :class:`MFFE` raises.

    Example:
        >>> TokenMFFE(192)(torch.randn(2, 1 + 14 * 14, 192)).shape
        torch.Size([2, 197, 192])
    """

    def __init__(
        self, channels: int, num_prefix_tokens: int = 1, grid: tuple[int, int] | None = None, **mffe_args: Any
    ) -> None:
        super().__init__()
        self.num_prefix_tokens = check_integer(num_prefix_tokens, "num_prefix_tokens", 0)
        if grid is not None:
            grid = check_integer(grid[0], "rows of grid"), check_integer(grid[1], "columns of grid")
        self.grid = grid
        self.mffe = MFFE(channels, data_format="NHWC", **mffe_args)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mffe(tokens_to_map(x, self.num_prefix_tokens, self.grid)).flatten(1, 2)
        return torch.cat([x[:, : self.num_prefix_tokens], y], dim=1) if self.num_prefix_tokens else y

    def extra_repr(self) -> str:
        return f"num_prefix_tokens={self.num_prefix_tokens}, grid={self.grid}"
