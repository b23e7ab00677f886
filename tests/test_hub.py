"""Weights from the Hub: the real client against a server on this machine."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import mfsf2
import mfsf2.timm_models


def test_backbones_from_imagenet(backbones: dict[str, Any]) -> None:
    message = r"encoder\.fusion and head are untrained.*Fully trained tags: mfsf2_tiny_cls\.ham10000"
    with pytest.warns(UserWarning, match=message) as caught:
        model: Any = mfsf2.create_model("mfsf2_tiny_cls.in1k_backbones", pretrained=True)
    assert [Path(w.filename).name for w in caught if "untrained" in str(w.message)] == ["test_hub.py"]
    for name, branch in (("resnet18", model.encoder.cnn), ("pvt_v2_b0", model.encoder.transformer)):
        expected = backbones[name].state_dict()
        for key, value in branch.state_dict().items():
            assert torch.equal(value, expected[key]), key
    assert "label_names" not in model.pretrained_cfg
    assert model.pretrained_cfg["tag"] == "in1k_backbones"


def test_backbones_adapt_to_other_channels(backbones: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="untrained"):
        model: Any = mfsf2.create_model("mfsf2_tiny_cls.in1k_backbones", pretrained=True, in_chans=1, num_classes=2)
    pairs = [
        (model.encoder.cnn.conv1.weight, backbones["resnet18"].conv1.weight),
        (model.encoder.transformer.patch_embed.proj.weight, backbones["pvt_v2_b0"].patch_embed.proj.weight),
    ]
    for actual, source in pairs:
        torch.testing.assert_close(actual, source.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("task", "heads"), [("seg", "mask_head"), ("clsseg", "head and mask_head"), ("rcm_cls", "head")]
)
def test_backbones_of_other_tasks(backbones: dict[str, Any], task: str, heads: str) -> None:
    with pytest.warns(UserWarning, match=rf"mfsf2_tiny_{task}\..*; encoder\.fusion and {heads} are untrained"):
        model: Any = mfsf2.create_model(f"mfsf2_tiny_{task}.in1k_backbones", pretrained=True)
    expected = backbones["resnet18"].state_dict()
    for key, value in model.encoder.cnn.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_pretrained_features(backbones: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="untrained"):
        model: Any = mfsf2.create_model("mfsf2_tiny_cls.in1k_backbones", pretrained=True, features_only=True)
    assert torch.equal(model.model.encoder.cnn.conv1.weight, backbones["resnet18"].conv1.weight)


@pytest.mark.parametrize("create", [mfsf2.create_model, timm.create_model])
def test_backbones_by_the_networks_argument(backbones: dict[str, Any], create: Any) -> None:
    for name, pretrained in (("mfsf2_tiny_cls", False), ("mfsf2_tiny_cls.in1k_backbones", True)):
        with pytest.warns(UserWarning, match="untrained"):
            model = create(name, pretrained_backbones=True, pretrained=pretrained)
        assert torch.equal(model.encoder.cnn.conv1.weight, backbones["resnet18"].conv1.weight)


def test_pretrained_through_timm(backbones: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="untrained"):
        model: Any = timm.create_model("mfsf2_tiny_cls.in1k_backbones", pretrained=True)
    assert torch.equal(model.encoder.cnn.conv1.weight, backbones["resnet18"].conv1.weight)


def test_network_from_the_hub(hub: Path) -> None:
    model = mfsf2.create_model("mfsf2_tiny_cls", num_classes=2).eval()
    mfsf2.save_pretrained(model, hub / "someone" / "lesions", label_names=["benign", "malignant"])
    x = torch.randn(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for name in ("hf-hub:someone/lesions", "hf-hub:someone/lesions@main"):
            loaded: Any = mfsf2.create_model(name).eval()
            assert torch.equal(loaded(x), model(x))
            assert loaded.pretrained_cfg["label_names"] == ["benign", "malignant"]
    assert torch.equal(timm.create_model("hf-hub:someone/lesions", pretrained=True).eval()(x), model(x))


def test_missing_repository() -> None:
    with pytest.raises(Exception, match=r"nobody/nothing|404"):
        mfsf2.create_model("hf-hub:nobody/nothing")
