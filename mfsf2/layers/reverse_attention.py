"""Reverse attention: refine a segmentation where the coarser step sees no foreground."""

from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from .axial import AxialAttention
from .checks import check_integer, check_map, check_same
from .conv import ConvNormAct
from .pooling import upsample_to

__all__ = ["ReverseAttention", "foreground_probability"]

torch.fx.wrap("foreground_probability")


def foreground_probability(logits: Tensor) -> Tensor:
    """Probability of the foreground, ``(B, 1, H, W)``, for logits ``(B, K, H, W)``.

    K = 1: the sigmoid of the logit. K > 1: one minus the softmax of channel 0, the background.

    Raises:
        ValueError: logits of another rank.
    """
    if logits.dim() != 4:
        raise ValueError(f"logits must have shape (B, K, H, W), got {list(logits.shape)}")
    if logits.shape[1] == 1:
        return logits.sigmoid()
    return 1 - logits.softmax(1)[:, :1]


class ReverseAttention(nn.Module):
    """One refinement step: coarse logits and a feature map to finer logits.

    The logits are upsampled to the map's grid. The map goes through axial attention and is multiplied by
    ``1 - P(foreground)``, which hides what the coarser step has already found. A 1x1 and a 3x3 convolution with batch
    norm and ReLU turn it into logits, which are added to the upsampled ones.

    A reconstruction: the authors publish no code for this step. Reverse attention as in PraNet (Fan et al., MICCAI
    2020) with the axial attention of CaraNet is the best-supported reading of their figure ("RA-A").

    Args:
        in_chans: channels of the feature map.
        num_classes: channels K of the logits.
        hidden_chans: channels of the convolutions.
        axial_reduction: as ``reduction`` of :class:`AxialAttention`.

    Shape: ``(B, in_chans, H, W)`` and ``(B, K, h, w)`` to ``(B, K, H, W)``.

    Raises:
        ValueError: no classes, fewer channels than ``axial_reduction``, or inputs of the wrong shape.

    Example:
        >>> step = ReverseAttention(64, num_classes=1)
        >>> step(torch.randn(2, 64, 18, 14), torch.randn(2, 1, 9, 7)).shape
        torch.Size([2, 1, 18, 14])
    """

    def __init__(
        self,
        in_chans: int,
        num_classes: int,
        hidden_chans: int = 64,
        axial_reduction: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_classes = check_integer(num_classes, "num_classes")
        dd: dict[str, Any] = dict(device=device, dtype=dtype)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.axial = AxialAttention(in_chans, axial_reduction, **dd)
        self.conv1 = ConvNormAct(in_chans, hidden_chans, 1, **dd)
        self.conv2 = ConvNormAct(hidden_chans, hidden_chans, 3, **dd)
        self.out = nn.Conv2d(hidden_chans, num_classes, 1, **dd)

    def reset(
        self, num_classes: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Replace the layer of logits, for another number of classes."""
        self.num_classes = num_classes = check_integer(num_classes, "num_classes")
        self.out = nn.Conv2d(self.out.in_channels, num_classes, 1, device=device, dtype=dtype)

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """Refine ``logits``, on any grid, to the grid of the map ``x``."""
        check_map(x, self.in_chans)
        check_map(logits, self.num_classes, "logits")
        check_same(x, logits, "x and logits")
        coarse = upsample_to(logits, x)
        hidden = self.axial(x) * (1 - foreground_probability(coarse))
        return coarse + self.out(self.conv2(self.conv1(hidden)))
