"""Where the time of ``mfsf2_cls`` goes: by part of the model, and by operator."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import mfsf2

from .classification import NAME, images, in_layout
from .timing import LAYOUTS, timed

__all__ = ["profiles"]

BATCH = 8
CALLS = 5
TOP = 8


def profiles() -> dict[str, dict[str, dict[str, float]]]:
    """Shares of the time of a call, by layout, and there ``"parts"`` and ``"operators"``."""
    model = mfsf2.create_model(NAME).eval()
    with torch.no_grad():
        return {layout: shares(in_layout(model, layout), images(BATCH, layout)) for layout in LAYOUTS}


def shares(model: Any, x: torch.Tensor) -> dict[str, dict[str, float]]:
    fusion = model.encoder.fusion
    parts = {"fusion stages": list(fusion.stages), "pyramid": [fusion.pyramid], "head": [model.head]}
    model(x)
    with seconds_in(parts) as seconds:
        total = sum(timed(lambda: model(x)) for _ in range(CALLS))
    seconds["backbones and the rest"] = total - sum(seconds.values())
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(CALLS):
            model(x)
    operators = {event.key: float(event.self_cpu_time_total) for event in profiler.key_averages()}
    largest = sorted(operators, key=operators.__getitem__, reverse=True)[:TOP]
    return {
        "parts": {part: value / total for part, value in seconds.items()},
        "operators": {name: operators[name] / sum(operators.values()) for name in largest},
    }


@contextmanager
def seconds_in(parts: dict[str, list[nn.Module]]) -> Iterator[dict[str, float]]:
    """The time spent in calls of some modules, by part."""
    seconds: dict[str, float] = defaultdict(float)
    started: dict[nn.Module, float] = {}
    handles = []
    for part, modules in parts.items():
        for module in modules:

            def start(module: nn.Module, _: Any) -> None:
                started[module] = time.perf_counter()

            def stop(module: nn.Module, _inputs: Any, _output: Any, part: str = part) -> None:
                seconds[part] += time.perf_counter() - started[module]

            handles += [module.register_forward_pre_hook(start), module.register_forward_hook(stop)]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()
