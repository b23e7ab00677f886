"""Compilation, export with dynamic sizes, ONNX, folded batch norms: all compute what the network computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract import randomize_norms
from torch import Tensor, nn
from torch.export import ExportedProgram

import mfsf2
from mfsf2.deploy import MIN_EXPORT_SIZE, MIN_EXPORT_TORCH, export_onnx, export_program, fold_batch_norm

TOLERANCE = 1e-4
# 224 and 200 give maps of 7x7, the pooling grid; 65, 71 and 97 are odd; the first is the minimum.
SIZES = [(1, MIN_EXPORT_SIZE, MIN_EXPORT_SIZE), (2, 224, 224), (3, 65, 71), (1, 200, 97), (2, 130, 250)]


OLD_TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_EXPORT_TORCH
exports = pytest.mark.skipif(OLD_TORCH, reason=f"torch {torch.__version__} refuses to export, as another test checks")


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    network = mfsf2.create_model("mfsf2_tiny_cls")
    randomize_norms(network)
    return network.eval()


@pytest.fixture(scope="module")
def program(model: Any) -> ExportedProgram:
    return export_program(model)


@pytest.fixture(scope="module")
def exported(program: ExportedProgram) -> Any:
    return program.module()


def error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


def test_minimum_is_at_most_64() -> None:
    assert MIN_EXPORT_SIZE <= 64


def test_compile_to_one_graph(model: Any) -> None:
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for batch, height, width in SIZES[1:3]:
        x = torch.randn(batch, 3, height, width)
        assert error(compiled(x), model(x)) <= TOLERANCE


def test_compile_training_step(model: Any) -> None:
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    model.zero_grad()
    compiled(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad(set_to_none=True)


def test_old_torch_is_named(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.12.1+cpu")
    with pytest.raises(RuntimeError, match=r"needs torch 2\.13 or later, installed is 2\.12\.1\+cpu"):
        export_program(model)


@exports
@pytest.mark.parametrize("size", SIZES)
def test_exported_program(model: Any, exported: Any, size: tuple[int, int, int]) -> None:
    x = torch.randn(size[0], 3, *size[1:])
    assert error(exported(x), model(x)) <= TOLERANCE


@exports
@pytest.mark.parametrize("size", [(MIN_EXPORT_SIZE - 1, 64), (64, MIN_EXPORT_SIZE - 1)])
def test_exported_program_refuses_smaller_images(exported: Any, size: tuple[int, int]) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=f">= {MIN_EXPORT_SIZE}"):
        exported(torch.randn(1, 3, *size))


@exports
def test_minimum_is_the_smallest_possible(model: Any) -> None:
    with pytest.raises(torch._dynamo.exc.UserError, match=f"min={MIN_EXPORT_SIZE}"):
        export_program(model, min_size=MIN_EXPORT_SIZE - 1)


@exports
def test_onnx(model: Any, program: ExportedProgram, tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "model.onnx"
    export_onnx(program, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(path)
    for batch, height, width in SIZES:
        x = torch.randn(batch, 3, height, width)
        (y,) = session.run(None, {"image": x.numpy()})
        assert error(torch.from_numpy(np.asarray(y)), model(x)) <= TOLERANCE


@exports
def test_features_export() -> None:
    features: Any = mfsf2.create_model("mfsf2_tiny_cls", features_only=True, out_indices=(0, 1)).eval()
    exported = export_program(features).module()
    x = torch.randn(1, 3, 65, 71)
    for actual, expected in zip(exported(x), features(x), strict=True):
        assert error(actual, expected) <= TOLERANCE


def test_fold_batch_norm(model: Any) -> None:
    folded = fold_batch_norm(model)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert not [m for m in folded.modules() if isinstance(m, norms)]
    assert [m for m in model.modules() if isinstance(m, norms)]
    x = torch.randn(2, 3, 65, 71)
    assert error(folded(x), model(x)) <= 1e-5
    assert error(folded.forward_features(x), model.forward_features(x)) <= 1e-4
    exact, x = fold_batch_norm(model.double()), x.double()
    assert error(exact(x), model(x)) <= 1e-12
    model.float()


def test_training_mode_is_refused(model: Any) -> None:
    model.train()
    try:
        for function in (fold_batch_norm, export_program):
            with pytest.raises(ValueError, match=r"model\.eval\(\)"):
                function(model)
    finally:
        model.eval()
