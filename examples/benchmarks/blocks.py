"""Rows of single blocks against their published form, in both memory layouts."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2

from .published import PublishedFusionStage, PublishedMFFE, PublishedPyramid
from .timing import LAYOUTS, Function, Row, agree, compare, compare_memory

__all__ = ["block_rows"]

BATCH, CHANNELS = 8, 256
# Blocks are fast: a round repeats them for this long.
SECONDS = 0.05


class SimpleGate(nn.Module):
    """``x * sigmoid(linear(pool(x)))``: what any channel gate costs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1)).sigmoid()[:, :, None, None]


def block_rows(rounds: int) -> Iterator[Row]:
    """MFFE's logits, MFFE with its backward pass, a fusion stage, the pooled pyramid."""
    for layout in LAYOUTS:
        mffe = mfsf2.MFFE(CHANNELS)
        with torch.no_grad():
            for size in (56, 28, 14, 7):
                yield logits_row(mffe, size, layout, rounds)
        for size in (56, 14):
            yield from gate_rows(mffe, size, layout, rounds)
        with torch.no_grad():
            yield stage_row(layout, rounds)
            yield pyramid_row(layout, rounds)


def random_map(channels: int, size: int, layout: str) -> Tensor:
    return torch.randn(BATCH, channels, size, size).contiguous(memory_format=LAYOUTS[layout])


def logits_row(mffe: mfsf2.MFFE, size: int, layout: str, rounds: int) -> Row:
    published, x = PublishedMFFE(mffe), random_map(CHANNELS, size, layout)
    agree(published.logits(x), mffe.logits(x), "MFFE")
    sides = {"published": partial(published.logits, x), "mfsf2": partial(mffe.logits, x)}
    return compare(f"MFFE logits, {size}x{size}: published over ours", layout, sides, rounds, SECONDS)


def gate_rows(mffe: mfsf2.MFFE, size: int, layout: str, rounds: int) -> Iterator[Row]:
    x = random_map(CHANNELS, size, layout).requires_grad_()
    upstream = torch.randn_like(x)

    def step(gate: nn.Module) -> None:
        gate(x).backward(upstream)
        # Freed within the call, or the next one's memory would count as less.
        x.grad = None

    expected, actual = (torch.autograd.grad(gate(x), x, upstream)[0] for gate in (PublishedMFFE(mffe), mffe))
    agree(expected, actual, "gradient of MFFE")
    ours, published, simple = (partial(step, gate) for gate in (mffe, PublishedMFFE(mffe), SimpleGate()))
    name = f"MFFE gate, forward and backward, {size}x{size}"
    yield compare(f"{name}: published over ours", layout, {"published": published, "mfsf2": ours}, rounds, SECONDS)
    yield compare(f"{name}: ours over a simple gate", layout, {"mfsf2": ours, "simple": simple}, rounds, SECONDS)
    yield compare_memory(f"{name}: memory, ours over published", layout, {"mfsf2": ours, "published": published})


def stage_row(layout: str, rounds: int) -> Row:
    stage: Any = mfsf2.FusionStage(CHANNELS, CHANNELS // 4, CHANNELS).eval().to(memory_format=LAYOUTS[layout])
    published = PublishedFusionStage(stage).eval()
    r, p = random_map(CHANNELS, 56, layout), random_map(CHANNELS // 4, 56, layout)
    agree(published(r, p), stage(r, p), "fusion stage")
    sides = {"published": partial(published, r, p), "mfsf2": partial(stage, r, p)}
    return compare("fusion stage, 56x56: published over ours", layout, sides, rounds)


def pyramid_row(layout: str, rounds: int) -> Row:
    pyramid: Any = mfsf2.MultiScalePyramid([CHANNELS] * 4).eval().to(memory_format=LAYOUTS[layout])
    published = PublishedPyramid(pyramid).eval()
    maps = [random_map(CHANNELS, size, layout) for size in (56, 28, 14, 7)]
    agree(published(maps).mean((2, 3)), pyramid(maps, pooled=True), "pyramid")
    sides: dict[str, Function] = {
        "published": lambda: published(maps).mean((2, 3)),
        "mfsf2": partial(pyramid, maps, pooled=True),
    }
    return compare("pooled pyramid: published over ours", layout, sides, rounds)
