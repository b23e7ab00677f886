"""Fusion of the two branches: of one stage, and of all stages and scales."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .align import DualBranchAlign
from .checks import check_integer, check_map, check_number, check_same
from .conv import ConcatConvNormAct, PointwiseConv2d
from .dct import FrequencyPairs
from .mffe import MFFE
from .pyramid import MultiScalePyramid

__all__ = ["CrossBranchGate", "FusionStage", "MultiFreqMultiScaleFusion"]


class CrossBranchGate(nn.Module):
    r"""Weigh two maps against each other at every position, and fuse them.

    .. math::
        s = \sigma(\mathrm{Conv}(\mathrm{ReLU}(\mathrm{BN}(\mathrm{Conv}([r; p]))))) \qquad
        F = \mathrm{ReLU}(\mathrm{BN}(\mathrm{Conv}([s r; (1 - s) p])))

    All convolutions are 1x1 with bias; s has one channel. Neither concatenation is materialized, see
    :class:`~mfsf2.layers.ConcatConv2d`.

    Args:
        channels: channels C of both inputs and of the output.

    Shape: two maps ``(B, C, H, W)`` to one.

    Example:
        >>> CrossBranchGate(64)(torch.randn(2, 64, 7, 7), torch.randn(2, 64, 7, 7)).shape
        torch.Size([2, 64, 7, 7])
    """

    def __init__(
        self, channels: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.channels = channels = check_integer(channels, "channels")
        self.attn = ConcatConvNormAct(channels, channels, device=device, dtype=dtype)
        self.attn_out = PointwiseConv2d(channels, 1, 1, device=device, dtype=dtype)
        self.fuse = ConcatConvNormAct(channels, channels, device=device, dtype=dtype)

    def weight(self, r: Tensor, p: Tensor) -> Tensor:
        """The weight s of ``r``, ``(B, 1, H, W)``; ``p`` has the weight ``1 - s``."""
        check_map(r, self.channels, "r")
        check_map(p, self.channels, "p")
        check_same(r, p, "r and p", dims=(0, 2, 3))
        return self.attn_out(self.attn(r, p)).sigmoid()

    def forward(self, r: Tensor, p: Tensor) -> Tensor:
        return self.fuse(r, p, self.weight(r, p))


class FusionStage(nn.Module):
    """One stage of the fusion: align both maps, gate each with :class:`MFFE`, fuse them with :class:`CrossBranchGate`.

    The authors' newer name is MFAF, multi-frequency aware fusion.

    Args:
        cnn_chans: channels of the CNN map.
        transformer_chans: channels of the transformer map.
        channels: channels C of the fused map.
        reduction, num_frequencies, frequencies, grid_size: as for :class:`MFFE`.

    Shape: ``(B, cnn_chans, H, W)`` and ``(B, transformer_chans, h, w)`` to ``(B, C, h, w)``.

    Example:
        >>> stage = FusionStage(256, 64, channels=128)
        >>> stage(torch.randn(2, 256, 14, 14), torch.randn(2, 64, 14, 14)).shape
        torch.Size([2, 128, 14, 14])
    """

    def __init__(
        self,
        cnn_chans: int,
        transformer_chans: int,
        channels: int = 256,
        reduction: int = 16,
        num_frequencies: int = 16,
        frequencies: str | FrequencyPairs = "top",
        grid_size: int = 7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = dict(device=device, dtype=dtype)
        self.align = DualBranchAlign(cnn_chans, transformer_chans, channels, **dd)
        self.mffe_cnn = MFFE(channels, reduction, num_frequencies, frequencies, grid_size, **dd)
        self.mffe_transformer = MFFE(channels, reduction, num_frequencies, frequencies, grid_size, **dd)
        self.gate = CrossBranchGate(channels, **dd)

    def forward(self, cnn_map: Tensor, transformer_map: Tensor) -> Tensor:
        r, p = self.align(cnn_map, transformer_map)
        # Under the same names, so that the maps before the gates are freed.
        r, p = self.mffe_cnn(r), self.mffe_transformer(p)
        return self.gate(r, p)


class MultiFreqMultiScaleFusion(nn.Module):
    """Fuse two pyramids of feature maps stage by stage, then across the stages.

    Args:
        cnn_chans: channels of the CNN maps, one entry per stage.
        transformer_chans: channels of the transformer maps, one entry per stage.
        channels: channels C of the fused maps.
        pyramid_chans: channels A of each stage inside the pyramid.
        out_chans: channels O of the pyramid's output.
        pyramid_size: height and width of the pyramid's grid.
        reduction, num_frequencies, frequencies, grid_size: as for :class:`MFFE`.

    Shape: two lists of n maps to ``(fused, pyramid)``: the fused maps ``(B, C, h_i, w_i)`` on the transformer's grids,
    and the pooled pyramid ``(B, O)``; with ``pooled=False``, the pyramid's map ``(B, O, pyramid_size, pyramid_size)``.

    Raises:
        ValueError: lists of different or wrong lengths, or maps of the wrong shape.

    Example:
        >>> fusion = MultiFreqMultiScaleFusion([64, 128], [32, 64], channels=64, pyramid_chans=64, out_chans=128)
        >>> r, p = ([torch.randn(2, c, s, s) for c, s in zip(cs, (16, 8))] for cs in ([64, 128], [32, 64]))
        >>> fused, pyramid = fusion(r, p)
        >>> [f.shape for f in fused], pyramid.shape
        ([torch.Size([2, 64, 16, 16]), torch.Size([2, 64, 8, 8])], torch.Size([2, 128]))
    """

    def __init__(
        self,
        cnn_chans: Sequence[int],
        transformer_chans: Sequence[int],
        channels: int = 256,
        pyramid_chans: int = 256,
        out_chans: int = 512,
        pyramid_size: int = 14,
        reduction: int = 16,
        num_frequencies: int = 16,
        frequencies: str | FrequencyPairs = "top",
        grid_size: int = 7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(cnn_chans) != len(transformer_chans) or not cnn_chans:
            raise ValueError(
                f"cnn_chans has {len(cnn_chans)} stages and transformer_chans {len(transformer_chans)}: both need one "
                "entry per stage, and at least one stage"
            )
        self.channels = channels
        self.out_chans = out_chans
        self.stages = nn.ModuleList(
            FusionStage(r, p, channels, reduction, num_frequencies, frequencies, grid_size, device=device, dtype=dtype)
            for r, p in zip(cnn_chans, transformer_chans)
        )
        self.pyramid: MultiScalePyramid | None = MultiScalePyramid(
            [channels] * len(cnn_chans), pyramid_chans, out_chans, pyramid_size, device=device, dtype=dtype
        )

    def fuse(self, cnn_maps: list[Tensor], transformer_maps: list[Tensor]) -> list[Tensor]:
        """The fused maps F_1..F_n, without the pyramid."""
        check_number(cnn_maps, len(self.stages), "cnn_maps")
        check_number(transformer_maps, len(self.stages), "transformer_maps")
        return [stage(r, p) for stage, r, p in zip(self.stages, cnn_maps, transformer_maps)]

    def prune(self, keep: Sequence[int]) -> None:
        """Remove the pyramid and all stages except those at the positions ``keep``, which keep their positions."""
        last = max(keep)
        self.stages = nn.ModuleList(
            stage if index in keep else nn.Identity() for index, stage in enumerate(self.stages) if index <= last
        )
        self.pyramid = None

    def forward(
        self, cnn_maps: list[Tensor], transformer_maps: list[Tensor], pooled: bool = True
    ) -> tuple[list[Tensor], Tensor]:
        if self.pyramid is None:
            raise ValueError("this fusion is pruned and has no pyramid: call fuse() for the fused maps")
        fused = self.fuse(cnn_maps, transformer_maps)
        return fused, self.pyramid(fused, pooled=pooled)
