"""Segmentation head: coarse logits from a bottleneck, refined by reverse attention from coarse to fine."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.checks import check_batch, check_integer, check_maps
from ..layers.conv import ConvNormAct
from ..layers.reverse_attention import ReverseAttention

__all__ = ["SegmentationHead"]


class SegmentationHead(nn.Module):
    """Decoder for any list of feature maps, fine to coarse; the last one is the bottleneck.

    The bottleneck gives coarse logits, through a 1x1 convolution with batch norm and ReLU. Each further map, from
    coarse to fine, refines them by :class:`~mfsf2.layers.ReverseAttention`. A reconstruction, see there.

    The lists of timm's and segmentation_models_pytorch's encoders fit, but for the first entries of the latter: leave
    out the image itself and, where ``encoder.out_channels`` has a 0, the empty map.

    Args:
        in_chans: channels of the maps, fine to coarse; at least one, and all but the last at least ``axial_reduction``.
        num_classes: channels of the logits: 1 for foreground against background (sigmoid), more for several classes, of
            which channel 0 is the background (softmax).
        hidden_chans: channels of the decoder's convolutions.
        drop_rate: channel dropout of the bottleneck.
        axial_reduction: ``reduction`` of :class:`~mfsf2.layers.AxialAttention`.

    Shape: list of ``(B, in_chans[i], H_i, W_i)`` to logits ``(B, num_classes, H_0, W_0)`` on the grid of the finest
    map, or resized bilinearly to ``output_size``. With ``deep=True``, for deep supervision, to the logits of every
    step on the grid of its own map, coarse to fine, or each resized.

    Raises:
        ValueError: no classes, an empty list, entries with too few channels, maps of the wrong number or shape, or a
            single pixel of a single sample in training mode (batch norm).

    Example:
        >>> head = SegmentationHead([64, 64, 128], num_classes=1)
        >>> maps = [torch.randn(2, c, s, s) for c, s in [(64, 32), (64, 16), (128, 8)]]
        >>> head(maps, output_size=(128, 128)).shape
        torch.Size([2, 1, 128, 128])
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
        if not in_chans:
            raise ValueError("in_chans is empty: pass the channels of at least one feature map")
        _check_channels(in_chans, axial_reduction)
        dd: dict[str, Any] = dict(device=device, dtype=dtype)
        self.num_classes = num_classes = check_integer(num_classes, "num_classes")
        self.in_chans = list(in_chans)
        self.hidden_chans = hidden_chans
        self.bottleneck = ConvNormAct(self.in_chans[-1], hidden_chans, 1, **dd)
        self.drop = nn.Dropout2d(drop_rate)
        self.coarse = nn.Conv2d(hidden_chans, num_classes, 1, **dd)
        self.steps = nn.ModuleList(
            ReverseAttention(chans, num_classes, hidden_chans, axial_reduction, **dd)
            for chans in reversed(self.in_chans[:-1])
        )

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of the layers with one output per class, coarse to fine."""
        return ("coarse", *(f"steps.{i}.out" for i in range(len(self.steps))))

    def reset(
        self, num_classes: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Replace the layers of logits, for another number of classes."""
        self.num_classes = num_classes = check_integer(num_classes, "num_classes")
        self.coarse = nn.Conv2d(self.hidden_chans, num_classes, 1, device=device, dtype=dtype)
        for step in self.steps:
            step.reset(num_classes, device=device, dtype=dtype)  # type: ignore[operator]
        self.train(self.training)

    def forward(
        self, maps: Sequence[Tensor], deep: bool = False, output_size: Sequence[int] | None = None
    ) -> Tensor | list[Tensor]:
        check_maps(maps, self.in_chans)
        if self.training:
            for x in maps:
                # A single pixel gives batch norm one value per sample.
                check_batch(x, self, max_size=1)
        logits = [self.coarse(self.drop(self.bottleneck(maps[-1])))]
        for step, x in zip(self.steps, reversed(maps[:-1])):
            logits.append(step(x, logits[-1]))
        if not deep:
            logits = logits[-1:]
        if output_size is not None:
            logits = [F.interpolate(y, output_size, mode="bilinear", align_corners=False) for y in logits]
        return logits if deep else logits[0]


def _check_channels(in_chans: Sequence[int], axial_reduction: int) -> None:
    """Refuse entries that are not feature maps, such as the image, which some encoders return first."""
    wrong = [i for i, chans in enumerate(in_chans) if chans < (axial_reduction if i < len(in_chans) - 1 else 1)]
    if not wrong:
        return
    few = f"in_chans={list(in_chans)}: entries {wrong} have fewer channels than axial_reduction={axial_reduction}"
    rest = len(wrong)
    if wrong == list(range(rest)):
        raise ValueError(
            f"{few}: if the list begins with the image and an empty map, as those of segmentation_models_pytorch do, "
            f"leave them out: pass in_chans[{rest}:] and maps[{rest}:]"
        )
    raise ValueError(f"{few}: pass maps with more channels, or a smaller axial_reduction")
