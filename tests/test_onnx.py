"""ONNX files: names, metadata, fixed sizes, and what is refused before the work starts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from micro import build
from test_export import TOLERANCE, check_exported, error, exports
from torch.export import ExportedProgram

from mfsf2.deploy import MAX_OPSET, MIN_EXPORT_SIZE, MIN_OPSET, export_onnx, export_program
from mfsf2.deploy.export import describe

pytestmark = exports
onnx = pytest.importorskip("onnx")
PREPROCESSING = {"input_size": [3, 224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.fixture(scope="module")
def features() -> Any:
    return build("rcm_cls", features_only=True, out_indices=(0,))


@pytest.fixture(scope="module")
def program(features: Any, tmp_path_factory: pytest.TempPathFactory) -> ExportedProgram:
    """The first stage of a model with two modalities, saved and loaded."""
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    torch.export.save(export_program(features), path)
    return torch.export.load(path)


def shapes(values: Any) -> dict[str, list[Any]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_names_and_metadata(program: ExportedProgram, features: Any, tmp_path: Path) -> None:
    """A part of what the slow tests do with whole models, for every run."""
    check_exported(features, program, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert shapes(model.graph.input) == {
        "image": ["batch", 3, "height", "width"],
        "stack": ["batch", 4, 3, "stack_height", "stack_width"],
    }
    outputs = shapes(model.graph.output)
    assert list(outputs) == ["features_0"]
    assert outputs["features_0"][:2] == ["batch", 16]
    assert "stack_height" in outputs["features_0"][2]
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata == {**PREPROCESSING, "interpolation": "bicubic", "crop_pct": 0.9}


def test_fixed_sizes(program: ExportedProgram, features: Any, tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "model.onnx"
    export_onnx(program, path, {"batch": 1, "stack_height": 65, "stack_width": 72}, opset=MIN_OPSET)
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [MIN_OPSET]
    assert shapes(model.graph.input) == {"image": [1, 3, "height", "width"], "stack": [1, 4, 3, 65, 72]}
    assert shapes(model.graph.output) == {"features_0": [1, 16, 17, 18]}
    session = onnxruntime.InferenceSession(path)
    for height, width in ((64, 90), (130, 71)):
        image, stack = torch.randn(1, 3, height, width), torch.randn(1, 4, 3, 65, 72)
        actual = session.run(None, {"image": image.numpy(), "stack": stack.numpy()})
        assert error([torch.from_numpy(y) for y in actual], features(image, stack)) <= TOLERANCE


def test_refused_before_the_work(program: ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: pytest.fail("the work has started"))
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError, match=r"nowhere' does not exist"):
        export_onnx(program, tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export_onnx(program, tmp_path)
    with pytest.raises(ValueError, match=r"sizes has 'depth', .*: batch, height, width, stack_height, stack_width"):
        export_onnx(program, path, {"depth": 4})
    with pytest.raises(ValueError, match=rf"sizes\['height'\]=60 must be at least {MIN_EXPORT_SIZE}"):
        export_onnx(program, path, {"height": 60})
    with pytest.raises(ValueError, match=r"sizes\['batch'\]=0 must be at least 1"):
        export_onnx(program, path, {"batch": 0})
    with pytest.raises(TypeError, match=r"sizes\['width'\]=64\.0 must be an integer"):
        export_onnx(program, path, {"width": 64.0})  # type: ignore[dict-item]
    for opset, message in ((MIN_OPSET - 1, "at least"), (MAX_OPSET + 1, "at most")):
        with pytest.raises(ValueError, match=f"opset={opset} must be {message}"):
            export_onnx(program, path, opset=opset)
    with pytest.raises(TypeError, match="opset='18' must be an integer"):
        export_onnx(program, path, opset="18")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_failures_leave_the_old_file(program: ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        model = onnx_ir_model()

        def save(self, path: Path) -> None:
            path.write_text("half")
            raise OSError("disk full")

    (tmp_path / "model.onnx").write_text("old")
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: Full())
    with pytest.raises(OSError, match="disk full"):
        export_onnx(program, tmp_path / "model.onnx")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("model.onnx", "old")]


def onnx_ir_model() -> Any:
    from onnxscript import ir

    return ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}), ir_version=10)


def test_a_program_of_another_function(tmp_path: Path) -> None:
    """It has no names or metadata, and becomes ONNX as torch writes it."""
    program = torch.export.export(torch.nn.Linear(3, 2).eval(), (torch.randn(1, 3),))
    export_onnx(program, tmp_path / "model.onnx")
    assert list(shapes(onnx.load(tmp_path / "model.onnx").graph.input)) == ["input"]
    with pytest.raises(ValueError, match=r"sizes has 'batch', .* none, because export_program did not make it"):
        export_onnx(program, tmp_path / "model.onnx", {"batch": 1})


@pytest.mark.compile
@pytest.mark.parametrize(
    ("task", "changes", "outputs"),
    [
        ("cls", {"num_classes": 0}, ["features"]),
        ("seg", {}, ["masks"]),
        ("clsseg", {"num_classes": 2}, ["logits", "masks"]),
    ],
)
def test_descriptions(task: str, changes: dict[str, Any], outputs: list[str]) -> None:
    model = build(task, **changes)
    model.pretrained_cfg |= {"label_names": ["a", "b"], "temperature": 1.5}
    description = describe(export_program(model))
    assert description["outputs"] == outputs
    is_prediction = outputs != ["features"]
    assert ("temperature" in description["metadata"]) == is_prediction
    assert description["metadata"].get("label_names") == (["a", "b"] if is_prediction else None)


def test_description_of_a_pruned_model() -> None:
    model = build("cls")
    model.prune_intermediate_layers([0])
    assert describe(export_program(model))["outputs"] == ["features"]
