"""Rows of import, building a model and loading weights, beside timm's."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import timm
from safetensors.torch import load_file, save_file

import mfsf2

from .timing import Row, compare, ratio_row

__all__ = ["loading_rows"]

LABELS = ("mfsf2", "timm")
TINY, TINY_CNN, TINY_TRANSFORMER = "mfsf2_tiny_cls", "resnet18", "pvt_v2_b0"


def loading_rows(rounds: int) -> Iterator[Row]:
    """Import in new processes, ``create_model`` and weights of the package over ``create_model`` alone."""
    code = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    series: dict[str, list[float]] = {"mfsf2": [], "timm": []}
    for _ in range(3):
        for name, times in series.items():
            printed = subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True, check=True).stdout
            times.append(1000 * float(printed))
    yield ratio_row("import", "", series["mfsf2"], series["timm"], LABELS)

    def build_timms() -> None:
        timm.create_model(TINY_CNN, num_classes=0)
        timm.create_model(TINY_TRANSFORMER, num_classes=0)

    yield compare(f"create_model, {TINY} over its two backbones", "", lambda: mfsf2.create_model(TINY), build_timms, LABELS, rounds)
    labels = ("with weights", "without")
    yield compare(
        f"create_model, {TINY} with the package's weights over without",
        "",
        lambda: mfsf2.create_model(TINY, pretrained=True),
        lambda: mfsf2.create_model(TINY),
        labels,
        rounds,
    )
    with tempfile.TemporaryDirectory() as folder:
        yield from checkpoint_rows(Path(folder), rounds)


def checkpoint_rows(folder: Path, rounds: int) -> Iterator[Row]:
    """``checkpoint_path=`` of both libraries, each over its own bare ``create_model``."""
    for create, name, library in ((mfsf2.create_model, TINY, "mfsf2"), (timm.create_model, TINY_CNN, "timm")):
        path = folder / f"{name}.safetensors"
        save_file(create(name).state_dict(), path)
        load_file(path)
        row = f"create_model, {name} with checkpoint_path over without"
        both = (lambda c=create, n=name, p=path: c(n, checkpoint_path=str(p)), lambda c=create, n=name: c(n))
        yield compare(row, library, *both, ("with weights", "without"), rounds)
