"""What a benchmark leaves behind: a table, JSON, a plot."""

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch

import mfsf2

from .timing import Row

__all__ = ["HEADER", "content", "draw_scaling", "machine", "markdown", "shares_table"]


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "mfsf2": mfsf2.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """Name of the processor with its widest vector instructions."""
    names = [
        line.split(":", 1)[1].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else [])
        if line.startswith("model name")
    ]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


HEADER = "| row | layout | ratio | quartiles | median of each side |\n|---|---|---|---|---|"


def markdown(row: Row) -> str:
    """One row of the table."""
    sides = ", ".join(f"{name} {value:.4g}" for name, value in row.values.items())
    return f"| {row.name} | {row.layout} | {row.ratio:.2f} | {row.low:.2f} to {row.high:.2f} | {sides} {row.unit} |"


def shares_table(profiles: dict[str, dict[str, dict[str, float]]]) -> str:
    """The shares of all layouts, those of parts and of operators, in one table."""
    lines = ["\n| share of the time | " + " | ".join(profiles) + " |", "|---|" + "---|" * len(profiles)]
    for kind in ("parts", "operators"):
        names = list(dict.fromkeys(name for shares in profiles.values() for name in shares[kind]))
        for name in names:
            # An operator may be among the largest in one layout only.
            cells = [f"{shares[kind][name]:.0%}" if name in shares[kind] else "" for shares in profiles.values()]
            lines.append(f"| {name if kind == 'parts' else f'`{name}`'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def content(rows: Iterable[Row], scaling: Any, profiles: Any) -> dict[str, Any]:
    """What ``benchmark.json`` holds."""
    return {"machine": machine(), "rows": [asdict(row) for row in rows], "scaling": scaling, "profiles": profiles}


def draw_scaling(path: Path, scaling: dict[str, dict[int, dict[str, list[float]]]], size: int) -> None:
    """Time against pixels and against images, each with the straight line through its largest point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    panels = (("size", "megapixels of one image"), ("batch", f"images of {size} x {size} pixels"))
    for axis, (key, label) in zip(axes, panels):
        points = scaling[key]
        xs = [point**2 / 1e6 if key == "size" else point for point in points]
        for name in next(iter(points.values())):
            ys: Sequence[float] = [statistics.median(times[name]) for times in points.values()]
            (line,) = axis.plot(xs, ys, "o", label=name)
            axis.plot([0, xs[-1]], [0, ys[-1]], color=line.get_color(), linewidth=1, alpha=0.5)
        axis.set(xlabel=label, ylabel="milliseconds", xlim=0, ylim=0)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120, format="png")
