"""timm backbones as branches of the encoder. timm is imported when the first one is built."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["REDUCTIONS", "Branch", "create_branch"]

REDUCTIONS = (4, 8, 16, 32)
"""Strides of a branch's four maps."""


@dataclass(frozen=True)
class Branch:
    """A timm model and the indices of its four pyramid maps.

    Attributes:
        model: the timm model, without its classifier.
        levels: indices of the four maps in ``model.forward_intermediates``.
        chans: channels of the maps.
        min_size: minimum height and width of an image, in pixels; 1 if unknown.
    """

    model: nn.Module
    levels: tuple[int, ...]
    chans: tuple[int, ...]
    min_size: int


def create_branch(
    name: str,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    pretrained: bool | Path = False,
    cache_dir: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Branch:
    """Build a timm model as a branch.

    Args:
        name: any timm model with feature maps at strides 4, 8, 16 and 32.
        in_chans: channels of the image; timm adapts pretrained stems.
        drop_path_rate: stochastic depth, passed on unless it is 0.
        pretrained: load timm's weights from the Hub, or from a file.
        cache_dir: where to keep them.

    Raises:
        ValueError: an unknown name, or a model without such a pyramid.
    """
    import timm

    if not isinstance(name, str) or not timm.is_model(name):
        near = difflib.get_close_matches(str(name).split(".")[0], timm.list_models(), n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"unknown backbone {name!r}: use the name of a timm model{hint}")
    kwargs: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    if not isinstance(pretrained, bool):
        kwargs["pretrained_cfg_overlay"] = dict(file=str(pretrained))
    try:
        model: Any = timm.create_model(
            name,
            pretrained=bool(pretrained),
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
    # Layers after the last map (final convolutions, norms, classifier) would never receive a gradient.
    model.prune_intermediate_layers(list(levels), prune_norm=True)
    # Before timm 1.0.31, some heads keep their norm.
    for key, parameter in model.named_parameters():
        if key.startswith("head."):
            parameter.requires_grad_(False)
    return Branch(model, levels, chans, _min_size(model))


def _find_pyramid(model: nn.Module, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices and channels of the last map at each of the strides 4, 8, 16 and 32."""
    info = getattr(model, "feature_info", None)
    usable = isinstance(info, list) and all(
        callable(getattr(model, method, None)) for method in ("forward_intermediates", "prune_intermediate_layers")
    )
    if not usable or not isinstance(info, list):
        raise ValueError(f"backbone {name!r} has no feature maps (timm's forward_intermediates): use another one")
    by_reduction = {entry["reduction"]: index for index, entry in enumerate(info)}
    if not all(reduction in by_reduction for reduction in REDUCTIONS):
        found = [entry["reduction"] for entry in info]
        raise ValueError(f"backbone {name!r} has maps at strides {found}, but four maps at {REDUCTIONS} are needed")
    levels = tuple(by_reduction[reduction] for reduction in REDUCTIONS)
    return levels, tuple(int(info[level]["num_chs"]) for level in levels)


def _min_size(model: nn.Module) -> int:
    """Minimum height and width for PVTv2, whose spatial reduction is a convolution with its kernel size as stride."""
    from timm.models.pvt_v2 import PyramidVisionTransformerV2

    if not isinstance(model, PyramidVisionTransformerV2):
        return 1
    smallest = 1
    stages: Any = model.stages
    for reduction, stage in zip(REDUCTIONS, stages):
        # Every patch embedding pads, so the map has ceil(size / reduction) rows and columns.
        convolution = stage.blocks[0].attn.sr
        kernel = convolution.kernel_size[0] if convolution is not None and not stage.blocks[0].attn.pool else 1
        smallest = max(smallest, reduction * (kernel - 1) + 1)
    return smallest
