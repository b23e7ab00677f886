"""Rows of ``mfsf2_cls`` over its two backbones and against its published form: inference and training."""

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

import mfsf2

from .published import PublishedModel
from .timing import LAYOUTS, Row, agree, compare, compare_memory, ratio_row, rounds_of

__all__ = ["NAME", "SIZE", "Backbones", "images", "in_layout", "inference_rows", "training_rows"]

NAME, CNN, TRANSFORMER = "mfsf2_cls", "resnet50", "pvt_v2_b2"
SIZE = 224
BATCHES: Sequence[int] = (1, 4, 8)
TRAINING_BATCH = 8


class Backbones(nn.Module):
    """The two timm models side by side, without classifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = timm.create_model(CNN, num_classes=0)
        self.transformer = timm.create_model(TRANSFORMER, num_classes=0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cnn(x), self.transformer(x)


def images(batch: int, layout: str = "contiguous", size: int = SIZE) -> Tensor:
    return torch.randn(batch, 3, size, size).contiguous(memory_format=LAYOUTS[layout])


def in_layout(model: nn.Module, layout: str) -> Any:
    return copy.deepcopy(model).to(memory_format=LAYOUTS[layout])


def inference_rows(rounds: int) -> Iterator[Row]:
    """Evaluation: over the backbones in one layout, each side in its best one, and against the published form."""
    model, backbones = mfsf2.create_model(NAME).eval(), Backbones().eval()
    with torch.no_grad():
        for batch in BATCHES:
            for layout in LAYOUTS:
                yield from layout_rows(in_layout(model, layout), in_layout(backbones, layout), batch, layout, rounds)
            yield best_layouts(model, backbones, batch, rounds)


def layout_rows(model: Any, backbones: Any, batch: int, layout: str, rounds: int) -> Iterator[Row]:
    published, x = PublishedModel(model).eval(), images(batch, layout)
    agree(published(x), model(x), NAME)
    sides = {"mfsf2": partial(model, x), "backbones": partial(backbones, x), "published": partial(published, x)}
    times = rounds_of(sides, rounds)
    over = {side: times[side] for side in ("mfsf2", "backbones")}
    yield ratio_row(f"{NAME}, batch {batch}: over its backbones", layout, over)
    over = {side: times[side] for side in ("published", "mfsf2")}
    yield ratio_row(f"{NAME}, batch {batch}: published over ours", layout, over)


def best_layouts(model: nn.Module, backbones: Backbones, batch: int, rounds: int) -> Row:
    """Over the backbones, where model, CNN and transformer each have the layout in which they are fastest."""
    parts: dict[str, nn.Module] = {"mfsf2": model, "cnn": backbones.cnn, "transformer": backbones.transformer}
    functions: dict[str, Callable[[], Any]] = {
        f"{part} {layout}": partial(in_layout(module, layout), images(batch, layout))
        for layout in LAYOUTS
        for part, module in parts.items()
    }
    times = rounds_of(functions, rounds)
    best = {part: min((times[f"{part} {layout}"] for layout in LAYOUTS), key=statistics.median) for part in parts}
    bare = [a + b for a, b in zip(best["cnn"], best["transformer"])]
    name = f"{NAME}, batch {batch}: over its backbones"
    return ratio_row(name, "each its best", {"mfsf2": best["mfsf2"], "backbones": bare})


def training_rows(rounds: int) -> Iterator[Row]:
    """One step of training, its time and its memory, also with checkpointing."""
    for layout in LAYOUTS:
        plain = in_layout(mfsf2.create_model(NAME), layout)
        checkpointed = copy.deepcopy(plain)
        checkpointed.set_grad_checkpointing()
        x, labels = images(TRAINING_BATCH, layout), torch.randint(7, (TRAINING_BATCH,))
        models = (PublishedModel(copy.deepcopy(plain)), plain, checkpointed)
        published, ours, with_checkpoints = (partial(training_step, model, x, labels) for model in models)
        name = f"training step of {NAME}, batch {TRAINING_BATCH}"
        yield compare(f"{name}: published over ours", layout, {"published": published, "mfsf2": ours}, rounds)
        sides = {"with": with_checkpoints, "without": ours}
        yield compare(f"{name}: with checkpointing over without", layout, sides, rounds)
        sides = {"mfsf2": ours, "published": published}
        yield compare_memory(f"{name}: memory, ours over published", layout, sides)
        sides = {"mfsf2": with_checkpoints, "published": published}
        yield compare_memory(f"{name}: memory, ours with checkpointing over published", layout, sides)


def training_step(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    nn.functional.cross_entropy(model(x), labels).backward()
    model.zero_grad(set_to_none=True)
