"""Arguments that cannot be meant: the errors name them as the user knows them, or are torch's own."""

from typing import Any

import numpy as np
import pytest
import torch
from micro import TASKS, build

import mfsf2
from mfsf2.deploy import export_onnx, export_program, fold_batch_norm
from mfsf2.layers import foreground_probability


@pytest.mark.parametrize(
    ("task", "name", "value", "error", "message"),
    [
        ("cls", "num_classes", True, TypeError, "^num_classes=True must be an integer"),
        ("seg", "num_classes", True, TypeError, "^num_classes=True must be an integer"),
        ("seg", "num_classes", 0, ValueError, "^num_classes=0 must be at least 1"),
        ("clsseg", "mask_classes", True, TypeError, "^mask_classes=True must be an integer"),
        ("clsseg", "mask_classes", 0, ValueError, "^mask_classes=0 must be at least 1"),
        ("cls", "in_chans", True, TypeError, "^in_chans=True must be an integer"),
        ("cls", "in_chans", 0, ValueError, "^in_chans=0 must be at least 1"),
        ("cls", "channels", -3, ValueError, "^channels=-3 must be at least 1"),
        ("seg", "out_chans", "64", TypeError, "^out_chans='64' must be an integer"),
        ("cls", "reduction", 0, ValueError, "reduction=0"),
        ("cls", "drop_path_rate", 1, ValueError, "^drop_path_rate=1 must be"),
        ("rcm_cls", "modality_drop_rate", 1.1, ValueError, r"^modality_drop_rate=1\.1 must be"),
        ("rcm_cls", "num_slices", 0, ValueError, "^num_slices=0 must be at least 1"),
        ("rcm_cls", "num_slices", 2.0, TypeError, r"^num_slices=2\.0 must be an integer"),
        # torch's own errors: what matters is that there is one.
        ("cls", "head_hidden_size", -4, RuntimeError, ""),
        ("cls", "head_hidden_size", 1.5, TypeError, ""),
        ("seg", "grid_size", 7.0, TypeError, ""),
        ("cls", "drop_rate", 2, ValueError, "between 0 and 1"),
        ("seg", "drop_rate", 2, ValueError, "between 0 and 1"),
        ("clsseg", "mask_drop_rate", -1, ValueError, "between 0 and 1"),
        ("cls", "drop_rate", "a", TypeError, ""),
        ("cls", "drop_path_rate", "a", TypeError, ""),
        ("rcm_cls", "modality_drop_rate", "a", TypeError, ""),
        ("cls", "dtype", "float32", TypeError, ""),
        ("cls", "dtype", torch.int64, RuntimeError, ""),
    ],
)
def test_models(task: str, name: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message or None):
        build(task, **{"device": "meta", name: value})


def test_numpy_numbers(tmp_path: Any) -> None:
    numbers = dict(channels=np.int64(32), grid_size=np.int32(8), frequencies=[(np.int64(0), np.int64(1))])
    model = build("clsseg", num_classes=np.int64(3), mask_classes=np.int8(2), drop_rate=np.float32(0.25), **numbers)
    x = torch.randn(2, 3, 64, 64)
    logits, masks = model(x)
    assert logits.shape == (2, 3) and masks.shape == (2, 2, 64, 64)
    mfsf2.save_pretrained(model, tmp_path)
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path}").eval()
    assert torch.equal(loaded(x).masks, masks) and loaded.model_args["channels"] == 32
    model.reset_classifier(np.int64(5))
    assert model(x).logits.shape == (2, 5)
    assert mfsf2.SegmentationHead(list(np.array([16, 8])), np.int64(2)).num_classes == 2
    assert model.prune_intermediate_layers([np.int64(1)]) == [1]
    assert len(build(features_only=True, out_indices=np.int64(2))(x)) == 2


@pytest.mark.parametrize("task", TASKS)
def test_reset_classifier(task: str) -> None:
    model = build(task, device="meta")
    before = model.num_classes
    for value in (True, 1.5, None):
        with pytest.raises(TypeError, match=f"num_classes={value} must be an integer"):
            model.reset_classifier(value)
    assert model.num_classes == before


def test_reverse_attention() -> None:
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"^num_classes={value} must be at least 1"):
            mfsf2.ReverseAttention(16, value)
    with pytest.raises(TypeError, match=r"^num_classes=1\.5 must be an integer"):
        mfsf2.ReverseAttention(16, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="channels=4 with reduction=8"):
        mfsf2.ReverseAttention(4, 1)
    with pytest.raises(ValueError, match="num_classes=0 must be at least 1"):
        mfsf2.ReverseAttention(16, 1).reset(0)


@pytest.mark.parametrize("block", [mfsf2.AxialAttention, mfsf2.MFFE])
def test_reductions(block: Any) -> None:
    for channels, reduction, message in (
        (16, 0, "reduction=0 must be at least 1"),
        (16, -1, "reduction=-1 must be at least 1"),
        (0, 1, "channels=0 must be at least 1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            block(channels, reduction)
    for value in (None, 2.0, "16"):
        with pytest.raises(TypeError, match=r"^reduction=.* must be an integer$"):
            block(16, value)
        with pytest.raises(TypeError, match=r"^channels=.* must be an integer$"):
            block(value, 1)


def test_reduction_beyond_the_channels() -> None:
    with pytest.raises(ValueError, match=r"^channels=4 with reduction=8: use a reduction of at most 4$"):
        mfsf2.AxialAttention(4, 8)
    assert mfsf2.MFFE(4, 8).fc1.out_features == 1


def test_gate_channels() -> None:
    with pytest.raises(ValueError, match=r"^channels=0 must be at least 1$"):
        mfsf2.CrossBranchGate(0)
    with pytest.raises(TypeError, match=r"^channels=16\.0 must be an integer$"):
        mfsf2.CrossBranchGate(16.0)  # type: ignore[arg-type]


def test_foreground_probability() -> None:
    for logits in (torch.randn(1, 4, 5), torch.randn(4)):
        with pytest.raises(ValueError, match=r"logits must have shape \(B, K, H, W\)"):
            foreground_probability(logits)
    for wrong in (torch.ones(1, 2, 4, 5, dtype=torch.int64), torch.ones(1, 2, 4, 5, dtype=torch.bool)):
        with pytest.raises(RuntimeError):
            foreground_probability(wrong)


def test_deployment(tmp_path: Any) -> None:
    model = build()
    for wrong in (model, None):
        with pytest.raises(TypeError, match=rf"program is a {type(wrong).__name__}: pass the result of export_program"):
            export_onnx(wrong, tmp_path / "model.onnx")
    with pytest.raises(TypeError, match="Linear is not a model of this library"):
        export_program(torch.nn.Linear(2, 2).eval())
    for function in (fold_batch_norm, export_program):
        with pytest.raises(
            TypeError, match=r"compiled by torch\.compile: pass the model itself, which model\._orig_mod"
        ):
            function(torch.compile(model))
    with pytest.raises(TypeError, match=r"model is a str, expected a torch\.nn\.Module"):
        fold_batch_norm("x")  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"min_size=64\.0 must be an integer"):
        export_program(model, min_size=64.0)  # type: ignore[arg-type]
    for task, largest in (("cls", 192), ("rcm_cls", 160)):
        with pytest.raises(ValueError, match=f"min_size={largest + 1} must be at most {largest}"):
            export_program(build(task).eval(), min_size=largest + 1)
