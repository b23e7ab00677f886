"""Time side by side, count allocated memory, and hold outputs against each other."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

__all__ = [
    "LAYOUTS",
    "Function",
    "Row",
    "agree",
    "compare",
    "compare_memory",
    "peak_memory",
    "ratio_row",
    "rounds_of",
    "timed",
]

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


def timed(function: Function, calls: int = 1) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def rounds_of(functions: Mapping[str, Function], rounds: int, seconds: float = 0.0) -> dict[str, list[float]]:
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
            times[name].append(1000 * timed(functions[name], calls[name]))
    return times


def compare(name: str, layout: str, sides: Mapping[str, Function], rounds: int, seconds: float = 0.0) -> Row:
    """The time of the first of two sides, divided by that of the second."""
    return ratio_row(name, layout, rounds_of(sides, rounds, seconds))


def ratio_row(name: str, layout: str, series: dict[str, list[float]], unit: str = "ms") -> Row:
    """A row of the ratios of two series, the first over the second."""
    over, under = series.values()
    ratios = [a / b for a, b in zip(over, under)]
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
    medians = {side: statistics.median(values) for side, values in series.items()}
    return Row(name, layout, ratio, low, high, medians, unit)


def compare_memory(name: str, layout: str, sides: Mapping[str, Function]) -> Row:
    """The same of the memory that each side holds at a time, which does not vary."""
    series = {side: [peak_memory(function)] for side, function in sides.items()}
    return ratio_row(name, layout, series, "MiB")


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
