"""Rows of single blocks against their published form, in both memory layouts."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2

from .published import PublishedFusionStage, PublishedMFFE, PublishedPyramid
from .timing import LAYOUTS, Row, agree, compare, peak_memory, ratio_row

__all__ = ["block_rows"]

BATCH, CHANNELS = 8, 256
LABELS = ("published", "mfsf2")


class SimpleGate(nn.Module):
    """``x * sigmoid(linear(pool(x)))``: what any gate of channels costs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1)).sigmoid()[:, :, None, None]


def block_rows(rounds: int) -> Iterator[Row]:
    """MFFE's logits, MFFE with its backward pass, a fusion stage, the pooled pyramid."""
    for layout, memory_format in LAYOUTS.items():
        yield from mffe_rows(layout, memory_format, rounds)
        yield from fusion_rows(layout, memory_format, rounds)


def random_map(channels: int, size: int, memory_format: Any) -> Tensor:
    return torch.randn(BATCH, channels, size, size).contiguous(memory_format=memory_format)


def mffe_rows(layout: str, memory_format: Any, rounds: int) -> Iterator[Row]:
    mffe = mfsf2.MFFE(CHANNELS)
    published, simple = PublishedMFFE(mffe), SimpleGate()
    for size in (56, 28, 14, 7):
        x = random_map(CHANNELS, size, memory_format)
        with torch.no_grad():
            agree(published.logits(x), mffe.logits(x), "MFFE")
            yield compare(
                f"MFFE logits, {size}x{size}", layout, lambda: published.logits(x), lambda: mffe.logits(x), LABELS, rounds
            )
    for size in (56, 14):
        x = random_map(CHANNELS, size, memory_format).requires_grad_()
        upstream = torch.randn_like(x)

        def step(gate: nn.Module) -> None:
            x.grad = None
            gate(x).backward(upstream)

        name = f"MFFE gate, forward and backward, {size}x{size}"
        yield compare(name, layout, lambda: step(published), lambda: step(mffe), LABELS, rounds)
        yield compare(
            f"{name}, over a simple gate", layout, lambda: step(mffe), lambda: step(simple), ("mfsf2", "simple"), rounds
        )
        memory = [peak_memory(lambda: step(gate)) for gate in (mffe, published)]
        yield ratio_row(f"{name}, memory", layout, memory[:1], memory[1:], ("mfsf2", "published"), "MiB")


def fusion_rows(layout: str, memory_format: Any, rounds: int) -> Iterator[Row]:
    with torch.no_grad():
        stage = mfsf2.FusionStage(256, 64, CHANNELS).eval().to(memory_format=memory_format)
        published = PublishedFusionStage(stage).eval()
        r, p = random_map(256, 56, memory_format), random_map(64, 56, memory_format)
        agree(published(r, p), stage(r, p), "fusion stage")
        yield compare(
            "fusion stage, 56x56", layout, lambda: published(r, p), lambda: stage(r, p), LABELS, rounds
        )
        pyramid = mfsf2.MultiScalePyramid([CHANNELS] * 4).eval().to(memory_format=memory_format)
        published_pyramid = PublishedPyramid(pyramid).eval()
        maps = [random_map(CHANNELS, size, memory_format) for size in (56, 28, 14, 7)]
        agree(published_pyramid(maps).mean((2, 3)), pyramid(maps, pooled=True), "pyramid")
        yield compare(
            "pyramid, pooled",
            layout,
            lambda: published_pyramid(maps).mean((2, 3)),
            lambda: pyramid(maps, pooled=True),
            LABELS,
            rounds,
        )
