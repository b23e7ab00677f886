"""Convolution, batch norm and ReLU: the unit that alignment, fusion and pyramid are made of."""

import torch
from torch import Tensor, nn

__all__ = ["ConvBnAct"]


class ConvBnAct(nn.Module):
    """``ReLU(BN(Conv(x)))`` with stride 1 and "same" padding.

    Args:
        in_chans: input channels.
        out_chans: output channels.
        kernel_size: odd kernel size.
        bias: whether the convolution has a bias (the published fusion stages have one before the norm).

    Shape: ``(B, in_chans, H, W)`` to ``(B, out_chans, H, W)``.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd, so that the map keeps its size")
        self.conv = nn.Conv2d(
            in_chans, out_chans, kernel_size, padding=kernel_size // 2, bias=bias, device=device, dtype=dtype
        )
        self.bn = nn.BatchNorm2d(out_chans, device=device, dtype=dtype)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))
