"""Arguments that cannot be meant: every error names the argument as the user knows it."""

from typing import Any

import pytest
import torch
from torch import nn

import mfsf2
from mfsf2.deploy import export_onnx, export_program, fold_batch_norm
from mfsf2.layers import foreground_probability


@pytest.mark.parametrize(
    ("task", "name", "value", "error", "message"),
    [
        ("cls", "num_classes", True, TypeError, "=True must be an integer"),
        ("seg", "num_classes", True, TypeError, "=True must be an integer"),
        ("clsseg", "mask_classes", True, TypeError, "=True must be an integer"),
        ("cls", "in_chans", True, TypeError, "=True must be an integer"),
        ("cls", "head_hidden_size", -4, ValueError, "=-4 must be at least 1"),
        ("cls", "head_hidden_size", 0, ValueError, "=0 must be at least 1"),
        ("cls", "head_hidden_size", 1.5, TypeError, r"=1\.5 must be an integer"),
        ("cls", "channels", -3, ValueError, "=-3 must be at least 1"),
        ("seg", "out_chans", "64", TypeError, "='64' must be an integer"),
        ("seg", "grid_size", 7.0, TypeError, r"=7\.0 must be an integer"),
        ("cls", "cnn", 5, TypeError, "=5 must be the name of a timm model"),
        ("cls", "transformer", nn.Identity, TypeError, "=.* must be the name of a timm model"),
        ("cls", "drop_rate", 2, ValueError, "=2 must be from 0 to 1"),
        ("seg", "drop_rate", "a", TypeError, "='a' must be a number from 0 to 1"),
        ("clsseg", "mask_drop_rate", -1, ValueError, "=-1 must be from 0 to 1"),
        ("cls", "drop_path_rate", "a", TypeError, "='a' must be a number from 0 to below 1"),
        ("rcm_cls", "modality_drop_rate", "a", TypeError, "='a' must be a number from 0 to 1"),
        ("rcm_cls", "modality_drop_rate", 1.1, ValueError, r"=1\.1 must be from 0 to 1"),
        ("rcm_cls", "slice_chans", 1.5, TypeError, r"=1\.5 must be an integer"),
        ("rcm_cls", "slice_chans", -1, ValueError, "=-1 must be at least 1"),
        ("rcm_cls", "num_slices", True, TypeError, "=True must be an integer"),
        ("cls", "dtype", "float32", TypeError, "='float32' must be a floating-point dtype of torch"),
        ("cls", "dtype", torch.int64, TypeError, r"=torch\.int64 must be a floating-point dtype of torch"),
    ],
)
def test_networks(task: str, name: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{name}{message}"):
        mfsf2.create_model(f"mfsf2_tiny_{task}", **{"device": "meta", name: value})


def test_slices_that_cannot_stand_in() -> None:
    with pytest.raises(ValueError, match=r"use modality_drop_rate=0, given was 0\.2"):
        mfsf2.create_model("mfsf2_tiny_rcm_cls", slice_chans=5, device="meta")


@pytest.mark.parametrize("task", ["cls", "seg", "clsseg", "rcm_cls", "rcm_seg", "rcm_clsseg"])
def test_reset_classifier(task: str) -> None:
    model: Any = mfsf2.create_model(f"mfsf2_tiny_{task}", device="meta")
    before = model.num_classes
    for value in (True, 1.5, None):
        with pytest.raises(TypeError, match=f"num_classes={value} must be an integer"):
            model.reset_classifier(value)
    assert model.num_classes == before


@pytest.mark.parametrize("name", ["in_chans", "num_classes", "hidden_chans", "axial_reduction"])
def test_reverse_attention(name: str) -> None:
    arguments: dict[str, Any] = dict(in_chans=16, num_classes=1)
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"^{name}={value} must be at least 1"):
            mfsf2.ReverseAttention(**{**arguments, name: value})
    for value in (1.5, None, True):
        with pytest.raises(TypeError, match=f"^{name}={value} must be an integer"):
            mfsf2.ReverseAttention(**{**arguments, name: value})
    with pytest.raises(ValueError, match="in_chans=4 with axial_reduction=8 leaves no query channel"):
        mfsf2.ReverseAttention(4, 1)
    with pytest.raises(ValueError, match="num_classes=0 must be at least 1"):
        mfsf2.ReverseAttention(**arguments).reset(0)


def test_segmentation_head() -> None:
    for value in (None, 5, [True], {16}):
        with pytest.raises(TypeError, match=r"in_chans=.* must be a list of integers"):
            mfsf2.SegmentationHead(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"hidden_chans=1\.5 must be an integer"):
        mfsf2.SegmentationHead([16], hidden_chans=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="drop_rate=2 must be from 0 to 1"):
        mfsf2.SegmentationHead([16], drop_rate=2)


def test_classification_head() -> None:
    for value in (0, -4):
        with pytest.raises(
            ValueError, match=f"hidden_features={value} must be at least 1, or None for no hidden layer"
        ):
            mfsf2.ClassificationHead(16, 3, hidden_features=value)


@pytest.mark.parametrize("name", ["channels", "reduction"])
@pytest.mark.parametrize("block", [mfsf2.AxialAttention, mfsf2.MFFE])
def test_reductions(block: Any, name: str) -> None:
    for value in (None, 2.0, "16"):
        with pytest.raises(TypeError, match=f"^{name}={value!r} must be an integer"):
            block(**{"channels": 16, name: value})
    with pytest.raises(ValueError, match=f"^{name}=0 must be at least 1"):
        block(**{"channels": 16, name: 0})


def test_foreground_probability() -> None:
    for logits in (torch.randn(1, 4, 5), torch.randn(4)):
        with pytest.raises(ValueError, match=rf"logits must have shape \(B, K, H, W\), got {logits.dim()} dimensions"):
            foreground_probability(logits)
    for wrong in (torch.ones(1, 1, 4, 5, dtype=torch.int64), torch.ones(1, 2, 4, 5, dtype=torch.bool)):
        with pytest.raises(TypeError, match="logits must be floating point"):
            foreground_probability(wrong)
    with pytest.raises(TypeError, match="logits must be a tensor"):
        foreground_probability(None)  # type: ignore[arg-type]


def test_deployment(tmp_path: Any) -> None:
    model: Any = mfsf2.create_model("mfsf2_tiny_cls").eval()
    for wrong in (model, None):
        with pytest.raises(TypeError, match=rf"program is a {type(wrong).__name__}: give what export_program\(model\)"):
            export_onnx(wrong, tmp_path / "model.onnx")
    for function in (fold_batch_norm, export_program):
        with pytest.raises(TypeError, match="NoneType is no network"):
            function(None)
    with pytest.raises(TypeError, match="min_size='a' must be an integer"):
        export_program(model, min_size="a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_size=0 must be at least 1"):
        export_program(model, min_size=0)
