"""Segmentation head: coarse logits from a bottleneck, refined by reverse attention from coarse to fine."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from ..layers.checks import check_dtypes, check_integer, check_pixels, check_pyramid, check_rate, takes_statistics
from ..layers.conv import ConvBnAct
from ..layers.reverse_attention import ReverseAttention

__all__ = ["SegmentationHead"]

torch.fx.wrap("check_pixels")
torch.fx.wrap("check_pyramid")


class SegmentationHead(nn.Module):
    """Decoder for any list of feature maps, fine to coarse; the last one is the bottleneck.

    The bottleneck gives coarse logits (1x1 convolution with batch norm and ReLU, then the logits). Each further map,
    from coarse to fine, refines them by :class:`~mfsf2.layers.ReverseAttention`. A reconstruction, see there.

    Args:
        in_chans: channels of the maps, fine to coarse, at least one.
        num_classes: channels of the logits: 1 for a foreground against the background (sigmoid), more for several
            classes of which channel 0 is the background (softmax).
        hidden_chans: channels of the decoder's convolutions.
        drop_rate: dropout of whole channels of the bottleneck, in training.
        axial_reduction: as ``reduction`` of :class:`~mfsf2.layers.AxialAttention`.

    Shape: list of ``(B, in_chans[i], H_i, W_i)`` to logits ``(B, num_classes, H_0, W_0)`` on the finest map's grid.
    With ``deep=True``, for deep supervision, to every step's logits on its own map's grid, coarse to fine.

    Raises:
        ValueError: no classes, an empty list, maps of a wrong number or of wrong channels, a single pixel of a single
            sample in training mode (batch norm).
        TypeError: maps that are not floating point, or of another dtype than the weights.

    Example:
        >>> head = SegmentationHead([64, 64, 128], num_classes=1)
        >>> maps = [torch.randn(2, c, s, s) for c, s in [(64, 32), (64, 16), (128, 8)]]
        >>> head(maps).shape, [y.shape[-1] for y in head(maps, deep=True)]
        (torch.Size([2, 1, 32, 32]), [8, 16, 32])
    """

    def __init__(
        self,
        in_chans: Sequence[int],
        num_classes: int = 1,
        hidden_chans: int = 64,
        drop_rate: float = 0.0,
        axial_reduction: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_mask_classes(num_classes)
        if not isinstance(in_chans, Sequence) or not all(type(chans) is int for chans in in_chans):
            raise TypeError(f"in_chans={in_chans!r} must be a list of integers, the channels of each feature map")
        if not in_chans:
            raise ValueError("in_chans is empty: give the channels of at least one feature map")
        if min(in_chans) < 1:
            raise ValueError(f"in_chans={list(in_chans)} must be at least 1 each")
        check_integer(hidden_chans, "hidden_chans")
        check_rate(drop_rate, "drop_rate")
        dd: dict[str, Any] = dict(device=device, dtype=dtype)
        self.in_chans = list(in_chans)
        self.hidden_chans = hidden_chans
        self.bottleneck = ConvBnAct(self.in_chans[-1], hidden_chans, 1, **dd)
        self.drop = nn.Dropout2d(drop_rate)
        self.coarse = nn.Conv2d(hidden_chans, num_classes, 1, **dd)
        self.steps = nn.ModuleList(
            ReverseAttention(chans, num_classes, hidden_chans, axial_reduction, **dd)
            for chans in reversed(self.in_chans[:-1])
        )
        self.num_classes = num_classes

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of the layers with an output for each class, coarse to fine."""
        return ("coarse", *(f"steps.{i}.out" for i in range(len(self.steps))))

    def reset(
        self, num_classes: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Put in new layers of logits for another number of classes; all else stays."""
        check_mask_classes(num_classes)
        self.num_classes = num_classes
        self.coarse = nn.Conv2d(self.hidden_chans, num_classes, 1, device=device, dtype=dtype)
        for step in self.steps:
            step.reset(num_classes, device=device, dtype=dtype)  # type: ignore[operator]
        self.train(self.training)

    def forward(self, maps: list[Tensor], deep: bool = False) -> Tensor | list[Tensor]:
        check_pyramid(maps, self.in_chans, "maps")
        check_dtypes(self, maps=maps)
        if self.training and takes_statistics(self):
            check_pixels(maps)
        logits = [self.coarse(self.drop(self.bottleneck(maps[-1])))]
        for step, x in zip(self.steps, reversed(maps[:-1])):
            logits.append(step(x, logits[-1]))
        return logits if deep else logits[-1]


def check_mask_classes(value: int, name: str = "num_classes") -> None:
    """Check a number of channels of masks."""
    check_integer(value, name, meaning=": one channel of logits for the foreground")
