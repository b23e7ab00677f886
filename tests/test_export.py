"""Compilation, export with dynamic sizes, saved programs, ONNX: all compute what the model computes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from micro import TASKS, build
from torch import Tensor
from torch.export import ExportedProgram

from mfsf2.deploy import MIN_EXPORT_SIZE, MIN_EXPORT_TORCH, export_onnx, export_program, fold_batch_norm

TOLERANCE = 1e-4
# 224 and 200 give maps of 7x7, the pooling grid; 65, 71 and 97 are odd; the first is the minimum.
SIZES = [(1, MIN_EXPORT_SIZE, MIN_EXPORT_SIZE), (2, 224, 224), (3, 65, 71), (1, 200, 97), (2, 130, 250)]
# Below that, ONNX Runtime computes what eager mode does, which takes 29 pixels or more.
SMALL_SIZES = [(1, 29, 29), (2, 60, 29), (1, 33, 45), (3, 60, 60)]

OLD_TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_EXPORT_TORCH
exports = pytest.mark.skipif(OLD_TORCH, reason=f"torch {torch.__version__} refuses to export, as another test checks")

# Heads of both kinds, inputs of both kinds, in micro size.
# The slow jobs run these tests on the other tasks, and on a tiny model.
NAMES = ["cls", "rcm_clsseg"]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """What was compiled before makes the compiler take sizes for variables, which is slower."""
    torch._dynamo.reset()


def network(name: str) -> Any:
    return build(name.removeprefix("mfsf2_tiny_"), is_micro=name in TASKS)


def inputs_of(model: Any, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
    """An image and, of a network of two modalities, a stack of another size."""
    image = torch.randn(batch, 3, height, width)
    return (
        (image, torch.randn(batch, 4, 3, width, height))
        if hasattr(getattr(model, "model", model), "stem")
        else (image,)
    )


def error(actual: Any, expected: Any) -> float:
    """Largest difference of two outputs, tensors or tuples of tensors of the same shapes."""
    if not isinstance(expected, Tensor):
        return max(error(a, e) for a, e in zip(actual, expected, strict=True))
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


def total(output: Any) -> Tensor:
    return output.square().sum() if isinstance(output, Tensor) else sum(total(part) for part in output)


def test_minimum_is_at_most_64() -> None:
    assert MIN_EXPORT_SIZE <= 64


@pytest.mark.compile
@pytest.mark.parametrize("name", [*NAMES, "seg"])
def test_compile_to_one_graph(name: str) -> None:
    model = network(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    # A second size compiles again, with sizes as variables.
    for size in SIZES[1:3] if name == "cls" else SIZES[1:2]:
        inputs = inputs_of(model, *size)
        assert error(compiled(*inputs), model(*inputs)) <= TOLERANCE


@pytest.mark.compile
@pytest.mark.parametrize("name", NAMES)
def test_compile_training_step(name: str) -> None:
    model = network(name).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    total(compiled(*inputs_of(model, 2, 64, 64))).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_old_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.12.1+cpu")
    with pytest.raises(RuntimeError, match=r"needs torch 2\.13 or later; 2\.12\.1\+cpu is installed"):
        export_program(build())


def check_exported(model: Any, program: ExportedProgram, path: Path) -> None:
    """The program, and the ONNX file made of it, against the network; it takes no smaller images than it says."""
    import onnxruntime

    assert program.state_dict.keys() == model.state_dict().keys()
    exported = program.module()
    export_onnx(program, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    session = onnxruntime.InferenceSession(path)
    for size in SIZES + SMALL_SIZES:
        inputs = inputs_of(model, *size)
        expected = model(*inputs)
        if size in SIZES:
            actual = exported(*inputs)
            assert type(actual) in (Tensor, tuple, list)
            assert error(actual, expected) <= TOLERANCE, size
        outputs = session.run(None, {name: x.numpy() for name, x in zip(("image", "stack"), inputs)})
        expected = [expected] if isinstance(expected, Tensor) else list(expected)
        assert error([torch.from_numpy(np.asarray(y)) for y in outputs], expected) <= TOLERANCE, size
    inputs = inputs_of(model, 1, 64, 64)
    for size in [(MIN_EXPORT_SIZE - 1, 64), (64, MIN_EXPORT_SIZE - 1)]:
        for index, x in enumerate(inputs):
            smaller = [*inputs[:index], torch.randn(*x.shape[:-2], *size), *inputs[index + 1 :]]
            with pytest.raises((AssertionError, RuntimeError), match=f">= {MIN_EXPORT_SIZE}"):
                exported(*smaller)


LOAD = """
import sys
sys.modules["mfsf2"] = sys.modules["timm"] = None  # cannot be imported
import torch
torch.save(torch.export.load("model.pt2").module()(*torch.load("inputs.pt")), "outputs.pt")
assert not [name for name in sys.modules if name.startswith(("mfsf2.", "timm."))]
"""


def check_saved(model: Any, program: ExportedProgram, folder: Path) -> None:
    """A saved program runs where neither this library nor timm is installed."""
    inputs = inputs_of(model, 1, 65, 71)
    torch.export.save(program, folder / "model.pt2")
    torch.save(inputs, folder / "inputs.pt")
    subprocess.run([sys.executable, "-c", LOAD], cwd=folder, check=True)
    outputs, expected = torch.load(folder / "outputs.pt"), model(*inputs)
    assert type(outputs) is (Tensor if isinstance(expected, Tensor) else tuple)
    assert error(outputs, expected) <= TOLERANCE


@exports
@pytest.mark.compile
@pytest.mark.parametrize("name", NAMES)
def test_export_and_onnx(name: str, tmp_path: Path) -> None:
    import onnxruntime

    model = network(name)
    program = export_program(model)
    check_exported(model, program, tmp_path / "model.onnx")
    outputs = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_outputs()
    classes, masks = ["batch", model.num_classes], ["batch", 1, "height", "width"]
    assert {y.name: y.shape for y in outputs} == {"logits": classes, **({"masks": masks} if "seg" in name else {})}
    check_saved(model, program, tmp_path)


@exports
def test_the_first_stage_compiles_exports_and_becomes_onnx(tmp_path: Path) -> None:
    """A part of what the slow tests do with whole models, for every run."""
    model = build("cls", features_only=True, out_indices=(0,))
    inputs = inputs_of(model, 2, 64, 96)
    assert error(torch.compile(model, fullgraph=True, backend="aot_eager")(*inputs), model(*inputs)) <= TOLERANCE
    check_exported(model, export_program(model), tmp_path / "model.onnx")


@exports
@pytest.mark.compile
@pytest.mark.parametrize("name", ["cls", "rcm_cls"])
def test_minimum_is_the_smallest_possible(name: str) -> None:
    with pytest.raises(torch._dynamo.exc.UserError, match=f"min={MIN_EXPORT_SIZE}"):
        export_program(network(name), min_size=MIN_EXPORT_SIZE - 1)


@exports
@pytest.mark.compile
@pytest.mark.parametrize("name", ["seg", "rcm_cls"])
def test_features_export(name: str) -> None:
    features = build(name, features_only=True, out_indices=(0, 1))
    exported = export_program(features).module()
    inputs = inputs_of(features.model, 1, 65, 71)
    assert error(exported(*inputs), features(*inputs)) <= TOLERANCE


@pytest.mark.parametrize("name", TASKS)
def test_training_mode_is_refused(name: str) -> None:
    for function in (fold_batch_norm, export_program):
        with pytest.raises(ValueError, match=r"model\.eval\(\)"):
            function(build(name).train())
