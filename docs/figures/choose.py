"""The tables in docs/choose.md: cost and accuracy of each model, and which file or repository each name loads.

    python docs/figures/choose.py --rounds 15

Times are medians of calls that take turns, in processor time of one thread, which waiting for a busy machine does not
lengthen. It takes a few minutes.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from pages import DOCS, SIZES, markdown, put
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mfsf2
from mfsf2.factory import pretrained_cfg
from mfsf2.models.variants import VARIANTS

# The examples' timing, found once pages.py is imported.
from benchmarks.timing import Function, peak_memory  # isort: skip

__all__ = ["COSTS", "NAMES", "PAGE", "create", "gmacs", "models", "names_table", "parameters"]

PAGE, COSTS, NAMES = "choose.md", "costs", "names"
IMAGE = 224
TASKS = ("cls", "seg", "clsseg")
METRICS = (("classification", "balanced_accuracy"), ("segmentation", "dice"))
HEADER = (
    "model",
    "parameters, M",
    "GMACs",
    "time, ms",
    "over its backbones",
    "memory, MiB",
    "balanced accuracy",
    "Dice",
)


def models(size: str) -> tuple[list[str], list[str]]:
    """The named models of a size, and its two backbones."""
    args = VARIANTS[f"{size}_cls"].args
    return [f"{size}_{task}" for task in TASKS], [args["cnn"], args["transformer"]]


def create(name: str, **kwargs: Any) -> nn.Module:
    """A model of this library, or a backbone of timm's without its classifier."""
    if name in VARIANTS:
        return mfsf2.create_model(name, **kwargs).eval()
    backbone: nn.Module = timm.create_model(name, num_classes=0, **kwargs)
    return backbone.eval()


def parameters(model: nn.Module) -> str:
    """Millions of parameters."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}"


@torch.no_grad()
def gmacs(model: nn.Module, image: int = IMAGE) -> str:
    """Billions of multiplications of one image, in convolutions, matrix products and attention.

    The model is on the meta device, because torch does not count the CPU's form of attention.
    """
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, image, image, device="meta"))
    return f"{counter.get_total_flops() / 2e9:.2f}"


def megabytes(model: nn.Module, x: torch.Tensor) -> float:
    """MiB of the weights and of the most that a forward pass holds beside them."""
    tensors = (*model.parameters(), *model.buffers())
    return sum(tensor.nbytes for tensor in tensors) / 2**20 + peak_memory(partial(model, x))


def accuracies(name: str) -> list[str]:
    """The test metrics of the trained weights, a dash for each that there is none of."""
    tags = VARIANTS[name].trained_tags if name in VARIANTS else []
    metrics = mfsf2.list_pretrained(name, details=True)[f"{name}.{tags[0]}"].metrics if tags else {}
    return [f"{metrics[task][metric]:.3f}" if task in metrics else "—" for task, metric in METRICS]


def processor_times(functions: Mapping[str, Function], rounds: int) -> dict[str, list[float]]:
    """Milliseconds a call, one entry a round, of functions that take turns; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            times[name].append(1000 * (time.process_time() - start))
    return {name: values[1:] for name, values in times.items()}


@torch.no_grad()
def costs_table(rounds: int) -> str:
    """A row for each model and each backbone."""
    x = torch.randn(1, 3, IMAGE, IMAGE)
    groups = [models(size) for size in SIZES]
    built = {name: create(name) for named, backbones in groups for name in (*named, *backbones)}
    times = processor_times({name: partial(model, x) for name, model in built.items()}, rounds)
    rows = []
    for named, backbones in groups:
        both = [sum(pair) for pair in zip(*(times[name] for name in backbones))]
        for name in (*named, *backbones):
            model = built[name]
            ratios = [time / other for time, other in zip(times[name], both)]
            rows.append(
                [
                    f"`{name}`" if name in named else f"`{name}` alone",
                    parameters(model),
                    gmacs(create(name, device="meta")),
                    f"{statistics.median(times[name]):.0f}",
                    f"{statistics.median(ratios):.2f}",
                    f"{megabytes(model, x):.0f}",
                    *accuracies(name),
                ]
            )
    return markdown(HEADER, rows)


def names_table() -> str:
    """A row for each file or pair of repositories: the names that load it, their tag, and the license."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name, details in mfsf2.list_pretrained(details=True).items():
        model, tag = name.rsplit(".", 1)
        source = file_of(model, tag) if details.source == "package" else links(details.source)
        rows.setdefault((f"`{tag}`", source, details.license), []).append(model)
    # The smallest size first, and within a size the file in the package.
    ordered = sorted(rows.items(), key=lambda row: (SIZES.index(size_of(row[1][0])), row[0]))
    return markdown(["models", "tag", "weights", "license"], [[summary(names), *row] for row, names in ordered])


def size_of(model: str) -> str:
    return next(size for size in SIZES if model.startswith(f"{size}_"))


def summary(names: Sequence[str]) -> str:
    """The names, or a pattern if they are all of a size."""
    size = size_of(names[0])
    is_all = len(names) == sum(size_of(name) == size for name in mfsf2.list_models())
    return f"all `{size}_*`" if is_all else ", ".join(f"`{name}`" for name in names)


def file_of(model: str, tag: str) -> str:
    """The file in the package, and its size."""
    path = Path(pretrained_cfg(model, tag)["file"])
    return f"`{path.relative_to(DOCS.parent)}` ({path.stat().st_size / 1e6:.1f} MB)"


def links(source: str) -> str:
    """The repositories on the Hub."""
    return " and ".join(f"[{repo}](https://huggingface.co/{repo})" for repo in source.split(" and "))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the tables in docs/choose.md.")
    parser.add_argument("--rounds", type=int, default=15, help="how often each model is timed; 0 for the names only")
    rounds = parser.parse_args(argv).rounds
    put(PAGE, NAMES, names_table())
    if rounds:
        torch.set_num_threads(1)
        put(PAGE, COSTS, costs_table(rounds))


if __name__ == "__main__":
    main()
