"""Encoder of MFSF2-NET: a CNN branch, a transformer branch and the fusion of their feature maps."""

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from ..layers.checks import check_dtypes, check_image, check_integer, check_rate, takes_statistics
from ..layers.dct import FrequencyPairs
from ..layers.fusion import FusionStage, MultiFreqMultiScaleFusion
from ..layers.pooling import resize_bilinear, upsample_to
from .backbones import create_branch

__all__ = ["Images", "Indices", "MFSF2Encoder", "check_indices", "join_maps", "join_pooled", "reset_modules"]

for _name in ("check_image", "resize_bilinear", "upsample_to"):
    torch.fx.wrap(_name)

Images = tuple[Tensor, ...]
"""One image for both branches, or one for each."""

Indices = int | Sequence[int] | None


def check_indices(indices: Any, n: int, name: str = "indices") -> None:
    """Check which of ``n`` maps are asked for: the last few, or a list of positions."""
    if isinstance(indices, int) and not isinstance(indices, bool):
        if not 0 < indices <= n:
            raise ValueError(f"{name}={indices}: ask for the last 1 to {n} maps")
        return
    if not isinstance(indices, Sequence) or not all(type(i) is int for i in indices):
        given = type(indices) if isinstance(indices, Tensor) else repr(indices)
        raise TypeError(f"{name}={given} must be an integer, for the last maps, or a list of integers, their positions")
    if not indices or not all(-n <= i < n for i in indices):
        raise ValueError(f"{name}={list(indices)}: ask for at least one of the maps 0 to {n - 1}, or -{n} to -1")


class MFSF2Encoder(nn.Module):
    """Two timm backbones side by side, fused stage by stage.

    Args:
        cnn: name of the timm model of the CNN branch, with maps of strides 4, 8, 16 and 32.
        transformer: the same for the transformer branch.
        in_chans: channels of the image.
        channels: channels C of the fused maps.
        pyramid_chans: channels A of each stage inside the pyramid.
        out_chans: channels O of the pyramid's output.
        reduction, num_frequencies, frequencies, grid_size: as for :class:`~mfsf2.layers.MFFE`.
        drop_path_rate: stochastic depth, in the transformer branch only.
        pretrained_backbones: load timm's ImageNet weights of both branches from the Hub.
        cache_dir: where these are kept.

    Attributes:
        cnn, transformer: the plain timm models.
        fusion: the :class:`~mfsf2.layers.MultiFreqMultiScaleFusion`.
        min_size: smallest height and width of an image, in pixels.

    Shape: image ``(B, in_chans, H, W)``, H, W >= ``min_size``, to ``(cnn_maps, transformer_maps)``, four maps each.
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
        pretrained_backbones: bool = False,
        cache_dir: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = dict(channels=channels, pyramid_chans=pyramid_chans, out_chans=out_chans)
        for name, size in dict(in_chans=in_chans, **sizes, reduction=reduction, grid_size=grid_size).items():
            check_integer(size, name)
        for name, backbone in (("cnn", cnn), ("transformer", transformer)):
            if not isinstance(backbone, str):
                raise TypeError(f"{name}={backbone!r} must be the name of a timm model")
        check_rate(drop_path_rate, "drop_path_rate", below_one=True)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"dtype={dtype!r} must be a floating-point dtype of torch, e.g. torch.float32")
        dd: dict[str, Any] = dict(device=device, dtype=dtype)
        common: dict[str, Any] = dict(in_chans=in_chans, pretrained=pretrained_backbones, cache_dir=cache_dir, **dd)
        cnn_branch = create_branch(cnn, **common)
        transformer_branch = create_branch(transformer, drop_path_rate=drop_path_rate, **common)
        # What rebuilds this encoder.
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
        """Channels of what the heads read: the CNN's last map, the transformer's last map and the pyramid together."""
        return self.cnn_chans[-1] + self.transformer_chans[-1] + self.fusion.out_chans

    @property
    def placement(self) -> dict[str, Any]:
        """Device and dtype of the weights."""
        parameter = next(self.parameters())
        return dict(device=parameter.device, dtype=parameter.dtype)

    @property
    def num_stages(self) -> int:
        """How many stages the branches have: four, fewer after :meth:`prune`."""
        return len(self.fusion.stages)

    @property
    def kept_stages(self) -> list[int]:
        """Positions of the stages that can be fused: all, fewer after :meth:`prune`."""
        return [index for index, stage in enumerate(self.fusion.stages) if isinstance(stage, FusionStage)]

    def forward(
        self, x: Tensor, transformer_x: Tensor | None = None, num_stages: int | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The maps of both branches, of the first ``num_stages`` stages.

        Args:
            x: image.
            transformer_x: another image for the transformer branch, of a size of its own; None for the same image.
            num_stages: how many stages; None for all.
        """
        statistics = self.training and takes_statistics(self)
        for image in (x,) if transformer_x is None else (x, transformer_x):
            check_image(image, self.in_chans, self.min_size, statistics)
            check_dtypes(self, image=image)
        transformer_x = x if transformer_x is None else transformer_x
        n = num_stages or self.num_stages
        cnn_maps = _maps(self.cnn, x, self.cnn_levels[:n])
        return cnn_maps, _maps(self.transformer, transformer_x, self.transformer_levels[:n])

    def features(
        self, images: Images, pooled: bool, take: Sequence[int] = (), num_stages: int | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The map that the heads read, and the fused maps by their positions.

        Args:
            images: one for both branches, or one for each.
            pooled: join the pyramid's mean to the branches' last maps, in place of its map.
            take: which fused maps are wanted; all are computed where the pyramid needs them.
            num_stages: stop after so many stages; the last one's fused map is then returned for the heads' map, as
                after :meth:`prune`.
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
        """Positions from 0 of the fused maps that ``indices`` names: the last n for an integer, all kept for None."""
        n, kept = self.num_stages, self.kept_stages
        if indices is None:
            return kept
        check_indices(indices, n)
        if isinstance(indices, int):
            indices = range(n - indices, n)
        take = [i % n for i in indices]
        if not set(take) <= set(kept):
            raise ValueError(f"indices={list(indices)}: this network is pruned to the maps {kept}")
        return take

    def prune(self, keep: Sequence[int]) -> None:
        """Remove what the fused maps at the positions ``keep`` do not need."""
        num_stages = max(keep) + 1
        for backbone, levels in ((self.cnn, self.cnn_levels), (self.transformer, self.transformer_levels)):
            backbone.prune_intermediate_layers(list(levels[:num_stages]), prune_norm=True)  # type: ignore[operator]
        self.fusion.prune(keep)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the branches' blocks in the backward pass instead of keeping their activations."""
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
        """Names of parameters that timm's optimisers spare from weight decay, as the branches declare them."""
        names: set[str] = set()
        for branch in ("cnn", "transformer"):
            declared = getattr(getattr(self, branch), "no_weight_decay", None)
            names.update(f"{branch}.{name}" for name in (declared() if declared else ()))
        return names

    def init_weights(self) -> None:
        """Draw all weights afresh, also after ``to_empty``: norm statistics and filters included."""
        reset_modules(self)
        for branch in (self.cnn, self.transformer):
            if callable(getattr(branch, "init_weights", None)):
                branch.init_weights()  # type: ignore[operator]
            elif callable(getattr(branch, "_init_weights", None)):
                # timm's PVTv2 has no public method, it applies this one to every module.
                branch.apply(branch._init_weights)  # type: ignore[arg-type]


def reset_modules(root: nn.Module) -> None:
    """Have every module that can draw its own weights afresh."""
    for module in root.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def join_pooled(cnn_map: Tensor, transformer_map: Tensor, pyramid: Tensor) -> Tensor:
    """Concatenate two maps and a vector on the grid of the transformer map."""
    constant = pyramid.unsqueeze(2).unsqueeze(3).expand(-1, -1, transformer_map.shape[2], transformer_map.shape[3])
    return torch.cat([resize_bilinear(cnn_map, transformer_map), transformer_map, constant], dim=1)


def join_maps(cnn_map: Tensor, transformer_map: Tensor, pyramid: Tensor) -> Tensor:
    """Concatenate three maps on the grid of the transformer map."""
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
        # timm matches from the start of the name, so "^" adds nothing and must not stand behind the prefix.
        relative = re.sub(r"(^|[|(])\^", r"\1", regex)
        patterns.append((rf"^{re.escape(prefix)}(?:{relative})", suffix))
    return patterns
