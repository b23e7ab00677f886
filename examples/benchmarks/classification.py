"""Rows of ``mfsf2_cls`` over its two backbones and against its published form: inference, training, deployment."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import mfsf2
from mfsf2.deploy import export_onnx, export_program, fold_batch_norm

from .published import PublishedModel
from .timing import LAYOUTS, Row, agree, compare, peak_memory, ratio_row, rounds_of

__all__ = ["deployed_rows", "inference_rows", "training_rows"]

NAME, CNN, TRANSFORMER = "mfsf2_cls", "resnet50", "pvt_v2_b2"
SIZE = 224
OVER_BACKBONES = ("mfsf2", "backbones")


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


def inference_rows(rounds: int, batches: tuple[int, ...] = (1, 4, 8)) -> Iterator[Row]:
    """Evaluation: over the backbones in one layout, each side in its best one, and against the published form."""
    model, backbones = mfsf2.create_model(NAME).eval(), Backbones().eval()
    with torch.no_grad():
        for layout in LAYOUTS:
            ours, bare = in_layout(model, layout), in_layout(backbones, layout)
            published = PublishedModel(ours).eval()
            for batch in batches:
                x = images(batch, layout)
                agree(published(x), ours(x), NAME)
                times = rounds_of(dict(ours=lambda: ours(x), bare=lambda: bare(x), published=lambda: published(x)), rounds, 0)
                name = f"{NAME}, batch {batch}"
                yield ratio_row(f"{name}, over its backbones", layout, times["ours"], times["bare"], OVER_BACKBONES)
                labels = ("published", "mfsf2")
                yield ratio_row(f"{name}, published form over it", layout, times["published"], times["ours"], labels)
        for batch in batches:
            yield best_layouts(model, backbones, batch, rounds)


def best_layouts(model: nn.Module, backbones: Backbones, batch: int, rounds: int) -> Row:
    """Over the backbones, where model, CNN and transformer each have the layout in which they are fastest."""
    functions: dict[str, Callable[[], Any]] = {}
    for layout in LAYOUTS:
        x = images(batch, layout)
        for part, module in (("model", model), ("cnn", backbones.cnn), ("transformer", backbones.transformer)):
            functions[f"{part} {layout}"] = lambda m=in_layout(module, layout), x=x: m(x)
    times = rounds_of(functions, rounds, 0)
    best = {
        part: min((times[f"{part} {layout}"] for layout in LAYOUTS), key=lambda series: sorted(series)[len(series) // 2])
        for part in ("model", "cnn", "transformer")
    }
    bare = [a + b for a, b in zip(best["cnn"], best["transformer"])]
    return ratio_row(f"{NAME}, batch {batch}, over its backbones", "each its best", best["model"], bare, OVER_BACKBONES)


def deployed_rows(rounds: int, batches: tuple[int, ...] = (1, 4, 8)) -> Iterator[Row]:
    """Folded, compiled, and in ONNX Runtime: over the eager backbones, and over backbones deployed the same way."""
    model, backbones = mfsf2.create_model(NAME).eval(), Backbones().eval()
    with torch.no_grad():
        for layout in LAYOUTS:
            folded = in_layout(fold_batch_norm(model), layout)
            for batch in batches:
                x, like = images(batch), images(batch, layout)
                name = f"{NAME} folded, batch {batch}, over eager contiguous backbones"
                yield compare(name, layout, lambda: folded(like), lambda: backbones(x), OVER_BACKBONES, rounds, 0)
        x = images(1)
        for kind, deploy in (("torch.compile", compiled), ("ONNX Runtime", in_onnx_runtime)):
            ours, bare = deploy(model, x), deploy(backbones, x)
            agree(ours(), model(x), kind)
            times = rounds_of(dict(ours=ours, bare=bare, eager=lambda: backbones(x)), rounds, 0)
            name = f"{NAME} by {kind}, batch 1, over"
            yield ratio_row(f"{name} eager backbones", "contiguous", times["ours"], times["eager"], OVER_BACKBONES)
            yield ratio_row(f"{name} backbones so deployed", "contiguous", times["ours"], times["bare"], OVER_BACKBONES)


def compiled(model: nn.Module, x: Tensor) -> Callable[[], Any]:
    program = torch.compile(fold_batch_norm(model) if isinstance(model, mfsf2.MFSF2) else model)
    return lambda: program(x)


def in_onnx_runtime(model: nn.Module, x: Tensor) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        if isinstance(model, mfsf2.MFSF2):
            export_onnx(export_program(model), path, sizes=dict(batch=1, height=SIZE, width=SIZE))
        else:
            torch.onnx.export(model, (x,), path, dynamo=True, input_names=["image"], verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"image": x.numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def training_rows(rounds: int, batch: int = 8) -> Iterator[Row]:
    """One step of training, its time and its memory."""
    for layout in LAYOUTS:
        model = in_layout(mfsf2.create_model(NAME), layout)
        published = PublishedModel(copy.deepcopy(model))
        x, labels = images(batch, layout), torch.randint(7, (batch,))

        def step(network: nn.Module) -> None:
            nn.functional.cross_entropy(network(x), labels).backward()
            network.zero_grad(set_to_none=True)

        name = f"{NAME}, training step, batch {batch}"
        yield compare(
            f"{name}, published form over it", layout, lambda: step(published), lambda: step(model), ("published", "mfsf2"), rounds, 0
        )
        memory = [peak_memory(lambda: step(network)) for network in (model, published)]
        yield ratio_row(f"{name}, memory", layout, memory[:1], memory[1:], ("mfsf2", "published"), "MiB")
        checkpointed = copy.deepcopy(model)
        checkpointed.set_grad_checkpointing()
        memory = [peak_memory(lambda: step(checkpointed)), memory[1]]
        yield ratio_row(f"{name}, memory with checkpointing", layout, memory[:1], memory[1:], ("mfsf2", "published"), "MiB")
        labels_ = ("with", "without")
        yield compare(f"{name}, with checkpointing over without", layout, lambda: step(checkpointed), lambda: step(model), labels_, rounds, 0)
