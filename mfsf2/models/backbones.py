"""timm backbones as branches of the encoder. timm itself is imported when the first one is built."""

import difflib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["REDUCTIONS", "Branch", "create_branch"]

REDUCTIONS = (4, 8, 16, 32)
"""Strides of the four maps that a branch delivers."""


@dataclass(frozen=True)
class Branch:
    """A timm model and where its pyramid is found.

    Attributes:
        model: the timm model, without its classifier.
        levels: indices of the four maps in ``model.forward_intermediates``.
        chans: their channels.
        min_size: smallest height and width that the model takes, in pixels; 1 where it is not known.
    """

    model: nn.Module
    levels: tuple[int, ...]
    chans: tuple[int, ...]
    min_size: int


def create_branch(
    name: str,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    pretrained: bool = False,
    cache_dir: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Branch:
    """Build a timm model as a branch.

    Args:
        name: any timm model with feature maps of strides 4, 8, 16 and 32.
        in_chans: channels of the image; pretrained stems are adapted by timm.
        drop_path_rate: stochastic depth, passed on where it is not 0.
        pretrained: load timm's weights from the Hub.
        cache_dir: where they are kept.

    Raises:
        ValueError: unknown name, or a model without such a pyramid.
    """
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"unknown backbone {name!r}: give the name of a timm model{hint}")
    kwargs: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    try:
        model: Any = timm.create_model(
            name,
            pretrained=pretrained,
            cache_dir=cache_dir,
            num_classes=0,
            in_chans=in_chans,
            device=device,
            dtype=dtype,
            **kwargs,
        )
    except TypeError as error:
        if "drop_path_rate" in str(error):
            raise ValueError(f"backbone {name!r} has no stochastic depth: pass drop_path_rate=0") from error
        raise
    levels, chans = _find_pyramid(model, name)
    # What lies behind the last map (final convolutions, norms, classifier) would be parameters without a gradient.
    model.prune_intermediate_layers(list(levels), prune_norm=True)
    # Before timm 1.0.31 some heads keep their norm all the same.
    for key, parameter in model.named_parameters():
        if key.startswith("head."):
            parameter.requires_grad_(False)
    return Branch(model, levels, chans, _min_size(model))


def _find_pyramid(model: nn.Module, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices and channels of the maps with strides 4, 8, 16 and 32, the last one of each stride."""
    info = getattr(model, "feature_info", None)
    usable = isinstance(info, list) and all(
        callable(getattr(model, method, None)) for method in ("forward_intermediates", "prune_intermediate_layers")
    )
    if not usable or not isinstance(info, list):
        raise ValueError(f"backbone {name!r} offers no feature maps (timm's forward_intermediates): use another one")
    by_reduction = {entry["reduction"]: index for index, entry in enumerate(info)}
    if not all(reduction in by_reduction for reduction in REDUCTIONS):
        found = [entry["reduction"] for entry in info]
        raise ValueError(f"backbone {name!r} has maps of strides {found}, needed are four levels, strides {REDUCTIONS}")
    levels = tuple(by_reduction[reduction] for reduction in REDUCTIONS)
    return levels, tuple(int(info[level]["num_chs"]) for level in levels)


def _min_size(model: nn.Module) -> int:
    """Smallest image side in pixels for PVTv2, whose spatial reduction convolves each map with stride = kernel."""
    from timm.models.pvt_v2 import PyramidVisionTransformerV2

    if not isinstance(model, PyramidVisionTransformerV2):
        return 1
    smallest = 1
    stages: Any = model.stages
    for reduction, stage in zip(REDUCTIONS, stages):
        # Every patch embedding pads, so the map has ceil(size / reduction) positions a side.
        convolution = stage.blocks[0].attn.sr
        kernel = convolution.kernel_size[0] if convolution is not None and not stage.blocks[0].attn.pool else 1
        smallest = max(smallest, reduction * (kernel - 1) + 1)
    return smallest
