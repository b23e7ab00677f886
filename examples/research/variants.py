"""MFSF2-NET and what is left of it without its parts, at one size and with one head."""

from typing import Any, Literal

import torch
from cnn import load_cnn
from torch import Tensor, nn

import mfsf2

__all__ = ["VARIANTS", "Branches", "Variant", "build_variant"]

Variant = Literal["cnn", "transformer", "concat", "fusion", "mfsf2"]

VARIANTS: dict[Variant, str] = {
    "cnn": "CNN branch alone",
    "transformer": "transformer branch alone",
    "concat": "both branches, last maps concatenated",
    "fusion": "MFSF2-NET without MFFE",
    "mfsf2": "MFSF2-NET",
}


class Branches(nn.Module):
    """The head of MFSF2-NET on the last map of one branch, or of both, pooled and concatenated.

    Args:
        model: a model with a classification head, which gives its branches away.
        names: which of them, ``cnn`` and ``transformer``.

    Shape: image ``(B, 3, H, W)`` to logits ``(B, num_classes)``.
    """

    def __init__(self, model: Any, *names: str) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({name: getattr(model.encoder, name) for name in names})
        self.levels = [getattr(model.encoder, f"{name}_levels")[-1] for name in names]
        channels = sum(getattr(model.encoder, f"{name}_chans")[-1] for name in names)
        self.head = mfsf2.ClassificationHead(
            channels, model.num_classes, model.head_hidden_size, drop_rate=model.drop_rate
        )
        self.pretrained_cfg = dict(model.pretrained_cfg)

    def forward(self, x: Tensor) -> Tensor:
        branches: Any = self.encoder.values()
        pooled = [
            branch.forward_intermediates(x, indices=[level], intermediates_only=True)[0].mean((2, 3), keepdim=True)
            for branch, level in zip(branches, self.levels)
        ]
        logits: Tensor = self.head(torch.cat(pooled, 1))
        return logits

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to exclude from weight decay, as the branches declare them."""
        return {
            f"encoder.{branch}.{name}"
            for branch, module in self.encoder.items()
            for name in getattr(module, "no_weight_decay", set)()
        }


def build_variant(variant: Variant, seed: int, num_classes: int, cnn_weights: str | None = None) -> Any:
    """A network; those of one seed start with the same weights where they have the same parts.

    Args:
        variant: one of :data:`VARIANTS`.
        seed: of the first weights.
        num_classes: number of classes.
        cnn_weights: file that the CNN branch starts from; None for random weights.
    """
    torch.manual_seed(seed)
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", num_classes=num_classes, drop_path_rate=0.0)
    if cnn_weights is not None:
        load_cnn(model, cnn_weights)
    if variant == "fusion":
        for stage in model.encoder.fusion.stages:
            stage.mffe_cnn = stage.mffe_transformer = nn.Identity()
    elif variant == "concat":
        model = Branches(model, "cnn", "transformer")
    elif variant != "mfsf2":
        model = Branches(model, variant)
    return model
