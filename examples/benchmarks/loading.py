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

TINY, TINY_CNN, TINY_TRANSFORMER = "mfsf2_tiny_cls", "resnet18", "pvt_v2_b0"


def loading_rows(rounds: int) -> Iterator[Row]:
    """Import in new processes, ``create_model``, and weights over ``create_model`` alone."""
    yield ratio_row("import: over timm's", "", {name: import_times(name) for name in ("mfsf2", "timm")})
    sides: dict[str, Function] = {"mfsf2": partial(mfsf2.create_model, TINY), "timm": build_backbones}
    yield compare(f"create_model, {TINY}: over its two backbones", "", sides, rounds)
    sides = {"with": partial(mfsf2.create_model, TINY, pretrained=True), "without": partial(mfsf2.create_model, TINY)}
    yield compare(f"create_model, {TINY}: with the package's weights over without", "", sides, rounds)
    with tempfile.TemporaryDirectory() as folder:
        libraries: list[tuple[Any, str]] = [(mfsf2.create_model, TINY), (timm.create_model, TINY_CNN)]
        for create, name in libraries:
            path = Path(folder) / f"{name}.safetensors"
            save_file(create(name).state_dict(), path)
            sides = {"with": partial(create, name, checkpoint_path=str(path)), "without": partial(create, name)}
            yield compare(f"create_model, {name}: with checkpoint_path over without", "", sides, rounds)


def import_times(name: str) -> list[float]:
    """Milliseconds of an import, each in a process of its own."""
    code = f"import time; start = time.perf_counter(); import {name}; print(time.perf_counter() - start)"
    command = [sys.executable, "-c", code]
    return [1000 * float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]


def build_backbones() -> None:
    timm.create_model(TINY_CNN, num_classes=0)
    timm.create_model(TINY_TRANSFORMER, num_classes=0)
