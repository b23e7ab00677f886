"""What the blocks cost, in counts instead of seconds: products, calls, and bytes held at a time."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from benchmarks.published import PublishedFusionStage, PublishedMFFE, PublishedModel, PublishedPyramid
from benchmarks.timing import agree, peak_memory
from micro import build
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import mfsf2

BATCH, CHANNELS, SIZE = 2, 64, 28
MAP_BYTES = BATCH * CHANNELS * SIZE**2 * 4


class CallCounter(TorchDispatchMode):
    """Counts the operators that run, except views."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def flops(function: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops()


def calls(function: Callable[[], Any]) -> int:
    with CallCounter() as counter, torch.no_grad():
        function()
    return counter.calls.total()


def mffe_flops(channels: int) -> int:
    """One filter for the mean; the bottleneck's first layer three times, its second once."""
    hidden = channels // 16
    return 2 * BATCH * (49 * channels + 3 * channels * hidden + hidden * channels)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mffe(layout: torch.memory_format) -> None:
    mffe = mfsf2.MFFE(CHANNELS)
    published = PublishedMFFE(mffe)
    x = torch.randn(BATCH, CHANNELS, SIZE, SIZE).contiguous(memory_format=layout)
    agree(mffe.logits(x), published.logits(x), "MFFE")
    assert flops(lambda: mffe.logits(x)) == mffe_flops(CHANNELS)
    # Loops over the filters need more than a hundred.
    assert calls(lambda: mffe.logits(x)) <= 24 < 100 < calls(lambda: published.logits(x))

    def step(gate: Any) -> None:
        gate(x.requires_grad_()).sum().backward()

    assert peak_memory(lambda: step(mffe)) <= peak_memory(lambda: step(published))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fusion_stage(layout: torch.memory_format) -> None:
    stage = mfsf2.FusionStage(48, 32, CHANNELS).eval().to(memory_format=layout)
    published = PublishedFusionStage(stage).eval()
    r, p = (torch.randn(BATCH, c, SIZE, SIZE).contiguous(memory_format=layout) for c in (48, 32))
    agree(stage(r, p), published(r, p), "fusion stage")
    per_position = 48 * CHANNELS + 9 * 32 * CHANNELS + 2 * (2 * CHANNELS) * CHANNELS + CHANNELS
    expected = 2 * BATCH * SIZE**2 * per_position + 2 * mffe_flops(CHANNELS)
    assert flops(lambda: stage(r, p)) == expected
    with torch.no_grad():
        held = [peak_memory(partial(one, r, p)) * 2**20 / MAP_BYTES for one in (stage, published)]
    # In maps: the two gated ones, the result of a convolution, and what its norm makes of it.
    assert held[0] <= 4.5 < 5.9 <= held[1]


def test_pooled_pyramid() -> None:
    adapter_chans, out_chans, size, widest = 32, 64, 14, 9
    pyramid = mfsf2.MultiScalePyramid([CHANNELS] * 3, adapter_chans, out_chans, size, groups=(1, 4, 8, 16)).eval()
    published = PublishedPyramid(pyramid).eval()
    maps = [torch.randn(BATCH, CHANNELS, s, s) for s in (28, 14, 7)]
    agree(pyramid(maps, pooled=True), published(maps).mean((2, 3)), "pyramid")
    joined, split = 3 * adapter_chans, out_chans // 4
    adapters = sum(s * s * CHANNELS * adapter_chans for s in (28, 14, 7))
    windows = joined * (widest * size * size + widest * widest * size)
    convs = sum(k * k * (joined // g) * split for k, g in ((3, 1), (5, 4), (7, 8), (9, 16)))
    assert flops(lambda: pyramid(maps, pooled=True)) == 2 * BATCH * (adapters + windows + convs + 4 * split * split)


def test_the_published_form_is_the_model() -> None:
    model = build("cls")
    x = torch.randn(2, 3, 65, 71)
    agree(model(x), PublishedModel(model).eval()(x), "model")
    assert flops(lambda: model(x)) < flops(lambda: PublishedModel(model).eval()(x))
