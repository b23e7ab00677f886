"""What a network computes: the forward passes of networks with either head or both.

Each takes the network and its images, one for both branches or one for each.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.fx
from torch import Tensor

from ..layers.pooling import upsample_to
from .encoder import Images, Indices, join_maps, join_pooled

if TYPE_CHECKING:
    from .mfsf2 import MFSF2

__all__ = ["Outputs", "classify", "encode", "intermediates", "predict", "predict_deep", "segment"]

torch.fx.wrap("upsample_to")


class Outputs(NamedTuple):
    """What a network of classes and masks returns, and any network of masks for deep supervision."""

    logits: Tensor | None
    """Logits of the classes, ``(B, num_classes)``; None without a head of classes."""

    masks: Tensor | list[Tensor]
    """Logits of the masks, ``(B, mask_classes, H, W)`` at the image's size; or five maps of them, coarse to fine."""


def predict(network: "MFSF2", images: Images) -> Tensor | Outputs:
    """What the network returns: of one head a tensor, of two both."""
    if network.mask_head is None:
        return encode(network, images) if network.head is None else classify(network, images)
    if network.head is None:
        return segment(network, images)
    logits, deep = predict_deep(network, images)
    return Outputs(logits, upsample_to(deep[-1], images[0]))


def encode(network: "MFSF2", images: Images) -> Tensor:
    """The heads' map, or the last fused one of a pruned network."""
    return network.encoder.features(images, pooled=network.head is not None)[0]


def classify(network: "MFSF2", images: Images) -> Tensor:
    """Logits of the classes."""
    network.require_head("head").check_batch(images[0])
    return network.forward_head(encode(network, images))


def segment(network: "MFSF2", images: Images) -> Tensor:
    """Logits of the masks, at the first image's size."""
    return upsample_to(predict_deep(network, images, with_classes=False).masks[-1], images[0])


def predict_deep(network: "MFSF2", images: Images, with_classes: bool = True) -> Outputs:
    """Logits of the classes, where there are any and they are wanted, and the logits of every step of the masks."""
    mask_head = network.require_head("mask_head")
    head = network.head if with_classes else None
    if head is not None:
        head.check_batch(images[0])
    cnn_maps, transformer_maps = network.encoder(*images)
    fused, pyramid = network.encoder.fusion(cnn_maps, transformer_maps, pooled=False)
    last = (cnn_maps[-1], transformer_maps[-1])
    # The mean of the pyramid's map is its pooled vector, so one pyramid serves both heads.
    logits = None if head is None else head(join_pooled(*last, pyramid.mean((2, 3))))
    return Outputs(logits, mask_head([*fused, join_maps(*last, pyramid)], deep=True))


def intermediates(
    network: "MFSF2", images: Images, indices: Indices, stop_early: bool, output_fmt: str, intermediates_only: bool
) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
    """The fused maps that ``indices`` names, and what ``forward_features`` returns."""
    if output_fmt != "NCHW":
        raise ValueError(f"output_fmt={output_fmt!r} is not offered: the fused maps are 'NCHW'")
    encoder = network.encoder
    take = encoder.take_indices(indices)
    num_stages = max(take) + 1
    to_the_end = not (intermediates_only or (stop_early and num_stages < encoder.num_stages))
    features, fused = encoder.features(
        images, network.head is not None, take, num_stages=None if to_the_end else num_stages
    )
    maps = [fused[i] for i in take]
    return maps if intermediates_only else (features, maps)
