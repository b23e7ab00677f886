"""Reverse attention: refine a segmentation where the coarser one sees no foreground."""

from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from .axial import AxialAttention
from .checks import check_dtypes, check_form, check_integer, check_map, check_reduction, check_same
from .conv import ConvBnAct
from .pooling import upsample_to

__all__ = ["ReverseAttention", "foreground_probability"]

torch.fx.wrap("check_map")
torch.fx.wrap("check_same")
torch.fx.wrap("foreground_probability")
torch.fx.wrap("upsample_to")


def foreground_probability(logits: Tensor) -> Tensor:
    """Probability of any foreground, ``(B, 1, H, W)``, for logits ``(B, K, H, W)``.

    ``sigmoid`` of the one logit for K = 1; for more ``1 - softmax[0]``, channel 0 being the background.

    Raises:
        ValueError: logits of another rank.
        TypeError: logits that are not floating point.
    """
    check_form(logits, "(B, K, H, W)", "logits")
    if logits.shape[1] == 1:
        return logits.sigmoid()
    return 1 - logits.softmax(1)[:, :1]


class ReverseAttention(nn.Module):
    """One refinement step: coarser logits and a feature map to finer logits.

    The logits are upsampled to the map's grid. The map, after axial attention, is multiplied with
    ``1 - P(foreground)``, so that what the coarser step has found already is out of sight, and a 1x1 and a 3x3
    convolution with batch norm and ReLU turn it into logits that are added to the upsampled ones.

    A reconstruction: reverse attention of PraNet (Fan et al., MICCAI 2020) with the axial attention of CaraNet is the
    best-supported reading of the network's figure ("RA-A"); the authors publish no code of it.

    Args:
        in_chans: channels of the feature map.
        num_classes: channels K of the logits.
        hidden_chans: channels of the convolutions.
        axial_reduction: as ``reduction`` of :class:`AxialAttention`.

    Shape: ``(B, in_chans, H, W)`` and ``(B, K, h, w)`` to ``(B, K, H, W)``.

    Raises:
        ValueError: no classes or channels, fewer channels than ``axial_reduction``, inputs of other shapes.
        TypeError: arguments that are no integers, inputs of another dtype.

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
        check_reduction(in_chans, axial_reduction, ("in_chans", "axial_reduction"), "query channel")
        check_integer(num_classes, "num_classes")
        check_integer(hidden_chans, "hidden_chans")
        dd: dict[str, Any] = dict(device=device, dtype=dtype)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.axial = AxialAttention(in_chans, axial_reduction, **dd)
        self.conv1 = ConvBnAct(in_chans, hidden_chans, 1, **dd)
        self.conv2 = ConvBnAct(hidden_chans, hidden_chans, 3, **dd)
        self.out = nn.Conv2d(hidden_chans, num_classes, 1, **dd)

    def reset(
        self, num_classes: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Put in a new layer of logits for another number of classes."""
        check_integer(num_classes, "num_classes")
        self.num_classes = num_classes
        self.out = nn.Conv2d(self.out.in_channels, num_classes, 1, device=device, dtype=dtype)

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """Finer logits on the grid of the map ``x``, for coarser ``logits`` on a grid of their own."""
        check_map(x, self.in_chans, "x")
        check_map(logits, self.num_classes, "logits")
        check_dtypes(self, x=x, logits=logits)
        check_same(x, logits, "x and logits", same_grid=False)
        coarse = upsample_to(logits, x)
        hidden = self.axial(x) * (1 - foreground_probability(coarse))
        return coarse + self.out(self.conv2(self.conv1(hidden)))
