"""Rows of ``mfsf2_seg`` beside two models of segmentation_models_pytorch and its own two backbones."""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

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
            yield from layout_rows(in_layout(model, layout), others, layout, rounds)


def layout_rows(model: Any, others: dict[str, nn.Module], layout: str, rounds: int) -> Iterator[Row]:
    x = images(BATCH, layout, SIZE)
    functions = {name: partial(in_layout(other, layout), x) for name, other in others.items()}
    functions |= {"mfsf2": partial(model, x), "decoder": partial(model.mask_head, decoder_input(model, x))}
    times = rounds_of(functions, rounds)
    for other in others:
        series = {side: times[side] for side in ("mfsf2", other)}
        yield ratio_row(f"{NAME} at {SIZE}, batch {BATCH}: over {other}", layout, series)
    series = {side: times[side] for side in ("decoder", "mfsf2")}
    yield ratio_row(f"{NAME} at {SIZE}, batch {BATCH}: decoder over the whole model", layout, series)


def decoder_input(model: Any, x: Tensor) -> list[Tensor]:
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
        print("segmentation_models_pytorch is not installed: rows of Unet and FPN are left out", file=sys.stderr)
        return {}
    return {
        "smp.Unet": smp.Unet("resnet50", encoder_weights=None).eval(),
        "smp.FPN": smp.FPN("resnet50", encoder_weights=None).eval(),
    }
