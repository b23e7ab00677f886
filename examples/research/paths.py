"""The three paths to a classifier's head: what it is without one of them, and how to make it use them all."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PathDropout", "balance_paths", "logits_of", "path_slices", "without_each_path"]


def path_slices(model: Any) -> dict[str, slice]:
    """Channels of the CNN map r4, the transformer map p4 and the pooled pyramid P in the head's input."""
    encoder = model.encoder
    r4 = encoder.cnn_chans[-1]
    p4 = r4 + encoder.transformer_chans[-1]
    return {"r4": slice(0, r4), "p4": slice(r4, p4), "P": slice(p4, None)}


def without_each_path(model: Any, pooled: Tensor, means: Tensor) -> dict[str, Tensor]:
    """Inputs of the head with one path replaced, which keeps its scale and takes away what it says about the image.

    Args:
        model: an MFSF2-NET for classes.
        pooled: inputs of its head, averaged over their positions, ``(N, C)``.
        means: what to put in their place, means over images, ``(C,)``.

    Returns:
        ``(N, C)`` by the path that is left out.
    """
    without = {}
    for name, channels in path_slices(model).items():
        without[name] = pooled.clone()
        without[name][:, channels] = means[channels]
    return without


def logits_of(model: Any, pooled: Tensor) -> Tensor:
    """Logits ``(N, num_classes)`` of averaged inputs of the head ``(N, C)``."""
    # The head's own average of a 1x1 map is that map.
    logits: Tensor = model.head(pooled[:, :, None, None])
    return logits


@torch.no_grad()
def balance_paths(model: Any, x: Tensor) -> None:
    """Scale the head's first weights so that r4, p4 and P vary equally there, as measured on one batch.

    P starts ten times smaller than the maps: a mean over convolutions that no norm follows.
    """
    model.train()
    pooled = model.forward_features(x).mean((2, 3))
    weight = model.head.hidden[0].weight
    for channels in path_slices(model).values():
        weight[:, channels] *= 0.25 / pooled[:, channels].std(0).mean()


class PathDropout:
    """Forward pre-hook of the head that zeroes r4 and P, each for a random share of the images, while training.

    If only the CNN branch starts from trained weights, the head would settle on its map and on the pyramid, which it
    feeds too; where both are dropped, only the transformer's own map p4 can bring the loss down.
    """

    def __init__(self, model: Any, rate: float) -> None:
        slices = path_slices(model)
        self.slices = [slices["r4"], slices["P"]]
        self.rate = rate

    def __call__(self, head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if not head.training:
            return None
        (x,) = inputs
        mask = x.new_ones(x.shape[0], x.shape[1], 1, 1)
        for channels in self.slices:
            mask[:, channels] = (torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.rate).to(x.dtype)
        return (x * mask,)
