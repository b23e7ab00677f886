"""The forward passes of models with one head or both.

Each function takes the model and its images, one for both branches or one for each.
"""

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..layers.checks import check_batch
from ..layers.pooling import upsample_to
from .encoder import Images, Indices, join_maps, join_pooled

if TYPE_CHECKING:
    from .mfsf2 import MFSF2

__all__ = ["Outputs", "classify", "encode", "intermediates", "predict", "predict_deep", "segment"]


class Outputs(NamedTuple):
    """What a model with both heads returns, and for deep supervision any model with a segmentation head."""

    logits: Tensor | None
    """Class logits, ``(B, num_classes)``; None without a classification head."""

    masks: Tensor | list[Tensor]
    """Mask logits, ``(B, mask_classes, H, W)`` at the size of the image; or five maps of them, coarse to fine."""


def predict(model: "MFSF2", images: Images) -> Tensor | Outputs:
    """The model's output: a tensor for one head, :class:`Outputs` for two."""
    if model.mask_head is None:
        return encode(model, images) if model.head is None else classify(model, images)
    if model.head is None:
        return segment(model, images)
    logits, deep = predict_deep(model, images)
    return Outputs(logits, upsample_to(deep[-1], images[0]))


def encode(model: "MFSF2", images: Images) -> Tensor:
    """The heads' input, or the last fused map of a pruned model."""
    return model.encoder.features(images, pooled=model.head is not None)[0]


def classify(model: "MFSF2", images: Images) -> Tensor:
    """Class logits."""
    # Before the encoder updates its norms.
    check_batch(images[0], model.require_head("head"))
    return model.forward_head(encode(model, images))


def segment(model: "MFSF2", images: Images) -> Tensor:
    """Mask logits, at the size of the first image."""
    return upsample_to(predict_deep(model, images, with_classes=False).masks[-1], images[0])


def predict_deep(model: "MFSF2", images: Images, with_classes: bool = True) -> Outputs:
    """Class logits, unless there are none or ``with_classes`` is False, and the mask logits of every step."""
    mask_head = model.require_head("mask_head")
    head = model.head if with_classes else None
    if head is not None:
        check_batch(images[0], head)
    cnn_maps, transformer_maps = model.encoder(*images)
    fused, pyramid = model.encoder.fusion(cnn_maps, transformer_maps, pooled=False)
    last = (cnn_maps[-1], transformer_maps[-1])
    # The mean of the pyramid's map is its pooled vector, so both heads share one pyramid.
    logits = None if head is None else head(join_pooled(*last, pyramid.mean((2, 3))))
    return Outputs(logits, mask_head([*fused, join_maps(*last, pyramid)], deep=True))


def intermediates(
    model: "MFSF2", images: Images, indices: Indices, stop_early: bool, output_fmt: str, intermediates_only: bool
) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
    """The fused maps that ``indices`` names, and what ``forward_features`` returns."""
    if output_fmt != "NCHW":
        raise ValueError(f"output_fmt={output_fmt!r} is not supported: the fused maps are 'NCHW'")
    encoder = model.encoder
    take = encoder.take_indices(indices)
    num_stages = max(take) + 1
    to_the_end = not (intermediates_only or (stop_early and num_stages < encoder.num_stages))
    features, fused = encoder.features(
        images, model.head is not None, take, num_stages=None if to_the_end else num_stages
    )
    maps = [fused[i] for i in take]
    return maps if intermediates_only else (features, maps)
