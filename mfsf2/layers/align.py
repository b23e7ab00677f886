"""Alignment: bring the two branches' maps of one stage to the same grid and the same number of channels."""

import torch
import torch.fx
from torch import Tensor, nn

from .checks import check_map
from .conv import ConvNormAct
from .pooling import resize_bilinear

__all__ = ["DualBranchAlign"]

torch.fx.wrap("resize_bilinear")


class DualBranchAlign(nn.Module):
    """Align a CNN map and a transformer map: resize, then convolution, batch norm and ReLU on each.

    The CNN map is resized to the transformer map's grid if they differ (bilinear, ``align_corners=True``). As in the
    published code, the default kernels are 1x1 for the CNN map and 3x3 for the transformer map, both with bias.

    Args:
        cnn_chans: channels of the CNN map.
        transformer_chans: channels of the transformer map.
        channels: channels C of both outputs.
        cnn_kernel_size: odd kernel size of the convolution on the CNN map.
        transformer_kernel_size: odd kernel size of the convolution on the transformer map.

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
        self.cnn = ConvNormAct(cnn_chans, channels, cnn_kernel_size, device=device, dtype=dtype)
        self.transformer = ConvNormAct(transformer_chans, channels, transformer_kernel_size, device=device, dtype=dtype)

    def forward(self, cnn_map: Tensor, transformer_map: Tensor) -> tuple[Tensor, Tensor]:
        check_map(cnn_map, self.cnn_chans, "cnn_map")
        check_map(transformer_map, self.transformer_chans, "transformer_map")
        return self.cnn(resize_bilinear(cnn_map, transformer_map)), self.transformer(transformer_map)
