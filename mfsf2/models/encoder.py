"""Encoder of MFSF2-NET: a CNN branch, a transformer branch and the fusion of their feature maps."""

import operator
import re
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from ..layers.checks import check_batch, check_image, check_integer
from ..layers.dct import FrequencyPairs
from ..layers.fusion import FusionStage, MultiFreqMultiScaleFusion
from ..layers.pooling import resize_bilinear, upsample_to
from .backbones import create_branch

__all__ = ["Images", "Indices", "MFSF2Encoder", "join_maps", "join_pooled", "reset_modules", "resolve_indices"]

torch.fx.wrap("resize_bilinear")

Images = tuple[Tensor, ...]
"""One image for both branches, or one for each."""

Indices = int | Sequence[int] | None
"""Which maps: the last few for an integer, else their positions."""


def resolve_indices(indices: Any, n: int, name: str = "indices") -> list[int]:
    """Positions from 0 of the maps that ``indices`` names, of n."""
    if isinstance(indices, Integral):
        if isinstance(indices, bool) or not 0 < int(indices) <= n:
            raise ValueError(f"{name}={indices}: use an integer from 1 to {n}, for the last maps")
        return list(range(n - int(indices), n))
    if not len(indices) or not all(-n <= i < n for i in indices):
        raise ValueError(f"{name}={list(indices)}: use at least one of the positions 0 to {n - 1}, or -{n} to -1")
    return [operator.index(i) % n for i in indices]


class MFSF2Encoder(nn.Module):
    """Two timm backbones side by side, fused stage by stage.

    Args:
        cnn: name of a timm model with feature maps at strides 4, 8, 16 and 32, for the CNN branch.
        transformer: the same for the transformer branch.
        in_chans: channels of the image.
        channels: channels C of the fused maps.
        pyramid_chans: channels A of each stage inside the pyramid.
        out_chans: channels O of the pyramid's output.
        reduction, num_frequencies, frequencies, grid_size: as for :class:`~mfsf2.layers.MFFE`.
        drop_path_rate: stochastic depth, in the transformer branch only.
        pretrained_backbones: load timm's ImageNet weights for both branches, from the Hub or, given a pair, from the
            files of the CNN and the transformer.
        cache_dir: where to keep weights from the Hub.

    Attributes:
        cnn, transformer: the plain timm models.
        fusion: the :class:`~mfsf2.layers.MultiFreqMultiScaleFusion`.
        min_size: minimum height and width of an image, in pixels.

    Shape: image ``(B, in_chans, H, W)`` with H, W >= ``min_size`` to ``(cnn_maps, transformer_maps)``, four maps each.
    """

    def __init__(
        self,
        cnn: str = "resnet50",
        transformer: str = "pvt_v2_b2",
        in_chans: int = 3,
        channels: int = 256,
        pyramid_chans: int = 256,
        out_chans: int = 512,
        reduction: int = 16,
        num_frequencies: int = 16,
        frequencies: str | FrequencyPairs = "top",
        grid_size: int = 7,
        drop_path_rate: float = 0.1,
        pretrained_backbones: bool | tuple[bool | Path, bool | Path] = False,
        cache_dir: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = dict(channels=channels, pyramid_chans=pyramid_chans, out_chans=out_chans)
        for name, size in dict(in_chans=in_chans, **sizes).items():
            check_integer(size, name)
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate={drop_path_rate} must be at least 0 and below 1")
        dd: dict[str, Any] = dict(device=device, dtype=dtype)
        common: dict[str, Any] = dict(in_chans=in_chans, cache_dir=cache_dir, **dd)
        files = pretrained_backbones
        of_cnn, of_transformer = (files, files) if isinstance(files, bool) else files
        cnn_branch = create_branch(cnn, pretrained=of_cnn, **common)
        transformer_branch = create_branch(
            transformer, pretrained=of_transformer, drop_path_rate=drop_path_rate, **common
        )
        # The arguments that rebuild this encoder.
        self.model_args: dict[str, Any] = dict(
            cnn=cnn,
            transformer=transformer,
            in_chans=in_chans,
            channels=channels,
            pyramid_chans=pyramid_chans,
            out_chans=out_chans,
            reduction=reduction,
            num_frequencies=num_frequencies,
            frequencies=frequencies,
            grid_size=grid_size,
            drop_path_rate=drop_path_rate,
        )
        self.in_chans = in_chans
        self.cnn = cnn_branch.model
        self.transformer = transformer_branch.model
        self.cnn_levels = cnn_branch.levels
        self.transformer_levels = transformer_branch.levels
        self.cnn_chans = cnn_branch.chans
        self.transformer_chans = transformer_branch.chans
        self.min_size = max(cnn_branch.min_size, transformer_branch.min_size)
        self.fusion = MultiFreqMultiScaleFusion(
            self.cnn_chans,
            self.transformer_chans,
            channels,
            pyramid_chans,
            out_chans,
            reduction=reduction,
            num_frequencies=num_frequencies,
            frequencies=frequencies,
            grid_size=grid_size,
            **dd,
        )

    @property
    def num_features(self) -> int:
        """Channels of the heads' input: the last map of the CNN, the last map of the transformer, and the pyramid."""
        return self.cnn_chans[-1] + self.transformer_chans[-1] + self.fusion.out_chans

    @property
    def placement(self) -> dict[str, Any]:
        """Device and dtype of the weights, as arguments."""
        parameter = next(self.parameters())
        return dict(device=parameter.device, dtype=parameter.dtype)

    @property
    def num_stages(self) -> int:
        """Number of stages of the branches: four, or fewer after :meth:`prune`."""
        return len(self.fusion.stages)

    @property
    def kept_stages(self) -> list[int]:
        """Positions of the stages with a fusion: all, or fewer after :meth:`prune`."""
        return [index for index, stage in enumerate(self.fusion.stages) if isinstance(stage, FusionStage)]

    def forward(
        self, x: Tensor, transformer_x: Tensor | None = None, num_stages: int | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The maps of both branches, of the first ``num_stages`` stages.

        Args:
            x: image.
            transformer_x: another image for the transformer branch, of any size; None for the same image.
            num_stages: number of stages; None for all.
        """
        for image in (x,) if transformer_x is None else (x, transformer_x):
            check_image(image, self.in_chans, self.min_size)
            if self.training:
                # For such images, the stride-32 map is a single pixel, so batch norm sees only one value per sample.
                check_batch(image, self, max_size=32)
        transformer_x = x if transformer_x is None else transformer_x
        n = num_stages or self.num_stages
        cnn_maps = _maps(self.cnn, x, self.cnn_levels[:n])
        return cnn_maps, _maps(self.transformer, transformer_x, self.transformer_levels[:n])

    def features(
        self, images: Images, pooled: bool, take: Sequence[int] = (), num_stages: int | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The heads' input, and the fused maps by position.

        Args:
            images: one for both branches, or one for each.
            pooled: join the mean of the pyramid's map to the last maps of the branches, instead of the map itself.
            take: positions of the fused maps to compute; the pyramid needs all of them.
            num_stages: stop after this many stages and return their last fused map as the heads' input, as after
                :meth:`prune`.
        """
        cnn_maps, transformer_maps = self(*images, num_stages=num_stages)
        if num_stages is None and self.fusion.pyramid is not None:
            maps, pyramid = self.fusion(cnn_maps, transformer_maps, pooled=pooled)
            join = join_pooled if pooled else join_maps
            return join(cnn_maps[-1], transformer_maps[-1], pyramid), dict(enumerate(maps))
        last = len(cnn_maps) - 1
        fused = {i: self.fusion.stages[i](cnn_maps[i], transformer_maps[i]) for i in sorted({*take, last})}
        return fused[last], fused

    def take_indices(self, indices: Indices) -> list[int]:
        """Positions from 0 of the fused maps that ``indices`` names; None for all that are left."""
        kept = self.kept_stages
        if indices is None:
            return kept
        take = resolve_indices(indices, self.num_stages)
        if not set(take) <= set(kept):
            raise ValueError(f"indices={take}: this model is pruned to the maps {kept}")
        return take

    def prune(self, keep: Sequence[int]) -> None:
        """Remove everything that the fused maps at the positions ``keep`` do not need."""
        num_stages = max(keep) + 1
        for backbone, levels in ((self.cnn, self.cnn_levels), (self.transformer, self.transformer_levels)):
            backbone.prune_intermediate_layers(list(levels[:num_stages]), prune_norm=True)  # type: ignore[operator]
        self.fusion.prune(keep)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks of both branches in the backward pass instead of storing their activations."""
        self.cnn.set_grad_checkpointing(enable)  # type: ignore[operator]
        self.transformer.set_grad_checkpointing(enable)  # type: ignore[operator]

    def group_matcher(self, coarse: bool = False, prefix: str = "") -> dict[str, Any]:
        """Patterns that sort the parameters by depth, in timm's form: the branches' own, the fusion, the pyramid."""
        groups: dict[str, Any] = {}
        for branch in ("cnn", "transformer"):
            matcher = getattr(self, branch).group_matcher(coarse=coarse)
            for name, spec in matcher.items():
                groups.setdefault(name, []).extend(_prefix_patterns(spec, f"{prefix}{branch}."))
        groups["fusion"] = [(rf"^{re.escape(prefix)}fusion\.stages\.(\d+)", None)]
        groups["pyramid"] = [(rf"^{re.escape(prefix)}fusion\.pyramid", None)]
        return groups

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to exclude from weight decay, as the branches declare them."""
        names: set[str] = set()
        for branch in ("cnn", "transformer"):
            declared = getattr(getattr(self, branch), "no_weight_decay", None)
            names.update(f"{branch}.{name}" for name in (declared() if declared else ()))
        return names

    def init_weights(self) -> None:
        """Initialize all weights, norm statistics and filters, also after ``to_empty``."""
        reset_modules(self)
        for branch in (self.cnn, self.transformer):
            if callable(getattr(branch, "init_weights", None)):
                branch.init_weights()  # type: ignore[operator]
            elif callable(getattr(branch, "_init_weights", None)):
                # timm's PVTv2 has no public method and applies this one to every module.
                branch.apply(branch._init_weights)  # type: ignore[arg-type]


def reset_modules(root: nn.Module) -> None:
    """Call ``reset_parameters`` of every module that has it."""
    for module in root.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def join_pooled(cnn_map: Tensor, transformer_map: Tensor, pyramid: Tensor) -> Tensor:
    """Concatenate two maps and a vector, on the grid of the transformer map."""
    constant = pyramid.unsqueeze(2).unsqueeze(3).expand(-1, -1, transformer_map.shape[2], transformer_map.shape[3])
    return torch.cat([resize_bilinear(cnn_map, transformer_map), transformer_map, constant], dim=1)


def join_maps(cnn_map: Tensor, transformer_map: Tensor, pyramid: Tensor) -> Tensor:
    """Concatenate three maps, on the grid of the transformer map."""
    return torch.cat(
        [resize_bilinear(cnn_map, transformer_map), transformer_map, upsample_to(pyramid, transformer_map)], dim=1
    )


def _maps(backbone: nn.Module, x: Tensor, levels: tuple[int, ...]) -> list[Tensor]:
    maps: list[Tensor] = backbone.forward_intermediates(  # type: ignore[operator]
        x, indices=list(levels), stop_early=True, output_fmt="NCHW", intermediates_only=True
    )
    return maps


def _prefix_patterns(spec: Any, prefix: str) -> list[tuple[str, Any]]:
    """Put a module's prefix before the patterns of a timm group matcher, each relative to that module."""
    entries = [(spec, None)] if isinstance(spec, str) else list(spec or ())
    patterns = []
    for regex, suffix in entries:
        # timm matches from the start of the name, so "^" adds nothing and must not come after the prefix.
        relative = re.sub(r"(^|[|(])\^", r"\1", regex)
        patterns.append((rf"^{re.escape(prefix)}(?:{relative})", suffix))
    return patterns
