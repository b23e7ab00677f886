"""Rows of ``mfsf2_cls`` deployed: over its eager backbones, and over backbones deployed the same way."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor_config

import mfsf2
from mfsf2.deploy import export_onnx, export_program, fold_batch_norm

from .classification import BATCHES, NAME, SIZE, Backbones, images, in_layout
from .sessions import open_onnx
from .timing import LAYOUTS, Row, agree, compare, ratio_row, rounds_of

__all__ = ["deployed_rows"]


def deployed_rows(rounds: int) -> Iterator[Row]:
    """Folded, compiled with inductor, and in ONNX Runtime."""
    model, backbones = mfsf2.create_model(NAME).eval(), Backbones().eval()
    with torch.no_grad():
        for layout in LAYOUTS:
            folded = in_layout(fold_batch_norm(model), layout)
            for batch in BATCHES:
                x = images(batch, layout)
                agree(folded(x), model(x), "folded")
                sides = {"mfsf2": partial(folded, x), "backbones": partial(backbones, images(batch))}
                name = f"{NAME} folded, batch {batch}: over eager contiguous backbones"
                yield compare(name, layout, sides, rounds)
        x = images(1)
        for kind, freezing in (("torch.compile", False), ("torch.compile with frozen weights", True)):
            # Without it, the second kind would be answered with the programs of the first.
            torch.compiler.reset()
            programs = compiled(model, x, freezing), compiled(backbones, x, freezing)
            yield from program_rows(kind, *programs, model, backbones, x, rounds)
        try:
            programs = in_onnx_runtime(model, x), in_onnx_runtime(backbones, x)
        except ImportError as error:
            print(f"rows of ONNX Runtime are left out: {error}", file=sys.stderr)
            return
        yield from program_rows("ONNX Runtime", *programs, model, backbones, x, rounds)


def program_rows(
    kind: str,
    ours: Callable[[], Any],
    bare: Callable[[], Any],
    model: nn.Module,
    backbones: nn.Module,
    x: Tensor,
    rounds: int,
) -> Iterator[Row]:
    agree(ours(), model(x), kind)
    agree(bare(), backbones(x), f"backbones by {kind}")
    times = rounds_of({"mfsf2": ours, "eager backbones": partial(backbones, x), "backbones so deployed": bare}, rounds)
    for other in ("eager backbones", "backbones so deployed"):
        series = {side: times[side] for side in ("mfsf2", other)}
        yield ratio_row(f"{NAME} by {kind}, batch 1: over {other}", "contiguous", series)


def compiled(model: nn.Module, x: Tensor, freezing: bool) -> Callable[[], Any]:
    """By inductor; with ``freezing``, weights are constants, which it arranges in advance as its kernels need them."""
    function = torch.compile(model)
    with inductor_config.patch(freezing=freezing):
        function(x)
    return partial(function, x)


def in_onnx_runtime(model: nn.Module, x: Tensor) -> Callable[[], Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        if isinstance(model, mfsf2.MFSF2):
            export_onnx(export_program(model), path, sizes={"batch": 1, "height": SIZE, "width": SIZE})
        else:
            torch.onnx.export(model, (x,), path, dynamo=True, input_names=["image"], verbose=False)
        return partial(open_onnx(path), x)
