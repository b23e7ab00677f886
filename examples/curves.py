"""The curves of a training."""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["draw_curves"]


def draw_curves(history: Sequence[dict[str, float]], metrics: Sequence[str], path: Path, over: str = "epoch") -> None:
    """Training loss and the validation's metrics, those of them that there are, over epochs or steps, as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    at = [entry[over] for entry in history]
    left.plot(at, [entry["loss"] for entry in history], "o-", markersize=3, color="C0")
    left.set(xlabel=over, ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel("training loss", color="C0")
    for index, name in enumerate((name for name in metrics if name in history[-1]), start=1):
        label = name.replace("_", " ")
        right.plot(at, [entry[name] for entry in history], "o-", markersize=3, color=f"C{index}", label=label)
    right.set(ylabel="validation", ylim=(0, 1.02))
    figure.legend(loc="outside upper center", ncols=2, fontsize=9)
    figure.savefig(path, dpi=120, format="png")
