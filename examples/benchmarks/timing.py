"""Time side by side, count allocated memory, and hold outputs against each other."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

__all__ = ["LAYOUTS", "Row", "agree", "compare", "peak_memory", "timed"]

Function = Callable[[], Any]

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TOLERANCE = 1e-5


@dataclass
class Row:
    """One line of the table: a ratio, and what it was made of.

    Attributes:
        name: what was measured.
        layout: memory layout, or what else distinguishes two rows of one name.
        ratio: median over the rounds of one round's ratio.
        low, high: its quartiles.
        values: median of each side, in milliseconds or MiB.
    """

    name: str
    layout: str
    ratio: float
    low: float
    high: float
    values: dict[str, float] = field(default_factory=dict)
    unit: str = "ms"


def timed(function: Function) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rounds_of(functions: dict[str, Function], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds a call, one entry a round, of functions that take turns; a round starts with another one each time.

    A function is called as often in a round as fits into ``seconds``, at least once.
    """
    names = list(functions)
    calls = {}
    for name, function in functions.items():
        function()
        calls[name] = max(1, int(seconds / max(timed(function), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            for _ in range(calls[name]):
                functions[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(1000 * (time.perf_counter() - start) / calls[name])
    return times


def compare(
    name: str, layout: str, over: Function, under: Function, labels: tuple[str, str], rounds: int, seconds: float = 0.02
) -> Row:
    """The time of ``over``, divided by that of ``under``."""
    times = rounds_of({"over": over, "under": under}, rounds, seconds)
    return ratio_row(name, layout, times["over"], times["under"], labels)


def ratio_row(
    name: str, layout: str, over: Sequence[float], under: Sequence[float], labels: tuple[str, str], unit: str = "ms"
) -> Row:
    """A row of the ratios of two series."""
    ratios = [a / b for a, b in zip(over, under)]
    low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    values = {labels[0]: statistics.median(over), labels[1]: statistics.median(under)}
    return Row(name, layout, ratio, low, high, values, unit)


def peak_memory(function: Function) -> float:
    """Largest amount of memory, in MiB, that a call holds on the CPU at a time, from the profiler's allocations."""
    function()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    results: Any = profiler.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def agree(a: Any, b: Any, what: str) -> None:
    """Refuse to time two sides with different outputs."""
    pairs = [(a, b)] if isinstance(a, Tensor) else list(zip(a, b, strict=True))
    error = max(float((x - y).detach().abs().max()) for x, y in pairs)
    if error > TOLERANCE:
        raise RuntimeError(f"{what}: outputs differ by {error:.1e}, more than {TOLERANCE:.0e}")
