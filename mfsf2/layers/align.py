"""Bring the two branches' maps of one stage to one grid and one number of channels."""

import torch
import torch.fx
from torch import Tensor, nn

from .checks import check_dtypes, check_map, check_same
from .conv import ConvBnAct
from .pooling import resize_bilinear

__all__ = ["DualBranchAlign"]

torch.fx.wrap("check_map")
torch.fx.wrap("check_same")
torch.fx.wrap("resize_bilinear")


class DualBranchAlign(nn.Module):
    """Align a CNN map and a transformer map: resize, then convolution + batch norm + ReLU on each.

    The CNN map is resized to the transformer map's grid where they differ (bilinear, align_corners=True). The published
    code has a 1x1 convolution on the CNN map and a 3x3 one on the transformer map, both with bias: the defaults here.

    Args:
        cnn_chans: channels of the CNN map.
        transformer_chans: channels of the transformer map.
        channels: channels C of both outputs.
        cnn_kernel_size: kernel of the convolution on the CNN map, odd.
        transformer_kernel_size: kernel of the convolution on the transformer map, odd.

    Shape: ``(B, cnn_chans, H, W)`` and ``(B, transformer_chans, h, w)`` to two maps ``(B, C, h, w)``.

    Example:
        >>> align = DualBranchAlign(512, 128, channels=256)
        >>> [y.shape for y in align(torch.randn(2, 512, 10, 12), torch.randn(2, 128, 7, 9))]
        [torch.Size([2, 256, 7, 9]), torch.Size([2, 256, 7, 9])]
    """

    def __init__(
        self,
        cnn_chans: int,
        transformer_chans: int,
        channels: int = 256,
        cnn_kernel_size: int = 1,
        transformer_kernel_size: int = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.cnn_chans = cnn_chans
        self.transformer_chans = transformer_chans
        self.cnn = ConvBnAct(cnn_chans, channels, cnn_kernel_size, device=device, dtype=dtype)
        self.transformer = ConvBnAct(transformer_chans, channels, transformer_kernel_size, device=device, dtype=dtype)

    def forward(self, cnn_map: Tensor, transformer_map: Tensor) -> tuple[Tensor, Tensor]:
        check_map(cnn_map, self.cnn_chans, "cnn_map")
        check_map(transformer_map, self.transformer_chans, "transformer_map")
        check_dtypes(self, cnn_map=cnn_map, transformer_map=transformer_map)
        check_same(cnn_map, transformer_map, "cnn_map and transformer_map", same_grid=False)
        return self.cnn(resize_bilinear(cnn_map, transformer_map)), self.transformer(transformer_map)
