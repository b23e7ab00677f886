"""Rows of ``mfsf2_seg`` beside two models of segmentation_models_pytorch and its own two backbones."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

import mfsf2

from .classification import Backbones, images, in_layout
from .timing import LAYOUTS, Row, ratio_row, rounds_of

__all__ = ["segmentation_rows"]

NAME = "mfsf2_seg"
SIZE = 352
BATCH = 2


def segmentation_rows(rounds: int) -> Iterator[Row]:
    """The model, its decoder alone, and Unet and FPN (resnet50) if segmentation_models_pytorch is installed."""
    model = mfsf2.create_model(NAME).eval()
    others: dict[str, nn.Module] = {"backbones": Backbones().eval(), **unet_and_fpn()}
    with torch.no_grad():
        for layout in LAYOUTS:
            x = images(BATCH, layout, SIZE)
            ours: Any = in_layout(model, layout)
            decoder, maps = ours.mask_head, decoder_input(ours, x)
            functions = {name: (lambda m=in_layout(other, layout): m(x)) for name, other in others.items()}
            functions |= {"mfsf2": lambda: ours(x), "decoder": lambda: decoder(maps)}
            times = rounds_of(functions, rounds, 0)
            name = f"{NAME} at {SIZE}, batch {BATCH}, over"
            for other in others:
                yield ratio_row(f"{name} {other}", layout, times["mfsf2"], times[other], ("mfsf2", other))
            name = f"decoder of {NAME} at {SIZE}, batch {BATCH}, over the model"
            yield ratio_row(name, layout, times["decoder"], times["mfsf2"], ("decoder", "mfsf2"))


def decoder_input(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """The feature maps that the decoder receives."""
    received: list[Any] = []
    handle = model.mask_head.register_forward_pre_hook(lambda module, inputs: received.append(inputs[0]))
    model(x)
    handle.remove()
    return received[0]


def unet_and_fpn() -> dict[str, nn.Module]:
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        print("segmentation_models_pytorch is not installed: rows of Unet and FPN are left out")
        return {}
    return {
        "smp.Unet": smp.Unet("resnet50", encoder_weights=None).eval(),
        "smp.FPN": smp.FPN("resnet50", encoder_weights=None).eval(),
    }
