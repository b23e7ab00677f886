"""Rows of import, building a model and loading weights, beside timm's."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file

import mfsf2

from .timing import Function, Row, compare, ratio_row

__all__ = ["loading_rows"]

SECONDS = 1.0
"""Of a round: several calls, whose mean varies less."""

TINY, TINY_CNN, TINY_TRANSFORMER = "mfsf2_tiny_cls", "resnet18", "pvt_v2_b0"


def loading_rows(rounds: int) -> Iterator[Row]:
    """Import in new processes, ``create_model``, and weights over ``create_model`` alone."""
    yield ratio_row("import and first model: over timm's", "", first_models())
    sides: dict[str, Function] = {"mfsf2": partial(mfsf2.create_model, TINY), "timm": build_backbones}
    yield compare(f"create_model, {TINY}: over its two backbones", "", sides, rounds, SECONDS)
    sides = {"with": partial(mfsf2.create_model, TINY, pretrained=True), "without": partial(mfsf2.create_model, TINY)}
    yield compare(f"create_model, {TINY}: with the package's weights over without", "", sides, rounds, SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        libraries: list[tuple[Any, str]] = [(mfsf2.create_model, TINY), (timm.create_model, TINY_CNN)]
        for create, name in libraries:
            path = Path(folder) / f"{name}.safetensors"
            save_file(create(name).state_dict(), path)
            sides = {"with": partial(create, name, checkpoint_path=str(path)), "without": partial(create, name)}
            yield compare(f"create_model, {name}: with checkpoint_path over without", "", sides, rounds, SECONDS)


def first_models() -> dict[str, list[float]]:
    """Milliseconds of an import and a first model, each in a process of its own, in turns."""
    timed = "import {0}; {0}.create_model({1!r})"
    code = f"import time; start = time.perf_counter(); {timed}; print(time.perf_counter() - start)"
    times: dict[str, list[float]] = {"mfsf2": [], "timm": []}
    for _ in range(4):
        for library, name in (("mfsf2", TINY), ("timm", TINY_CNN)):
            command = [sys.executable, "-c", code.format(library, name)]
            printed = subprocess.run(command, capture_output=True, check=True).stdout
            times[library].append(1000 * float(printed))
    # The first of each reads files that later ones find in memory.
    return {library: series[1:] for library, series in times.items()}


def build_backbones() -> None:
    timm.create_model(TINY_CNN, num_classes=0)
    timm.create_model(TINY_TRANSFORMER, num_classes=0)
