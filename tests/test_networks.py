"""The networks by name, each through the whole contract, and networks of other backbones."""

from typing import Any

import pytest
import torch
from contract import ClassifierContract

import mfsf2


class TestTinyClassifier(ClassifierContract):
    name = "mfsf2_tiny_cls"


@pytest.mark.parametrize(
    ("name", "parameters"), [("mfsf2_cls", 59_729_419), ("mfsf2_small_cls", 38_626_315), ("mfsf2_tiny_cls", 16_177_835)]
)
def test_size(name: str, parameters: int) -> None:
    model = mfsf2.create_model(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", ["mfsf2_cls", "mfsf2_small_cls"])
def test_init_weights_of_the_larger_networks(name: str) -> None:
    model: Any = mfsf2.create_model(name, device="meta").to_empty(device="cpu")
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.fill_(float("nan") if tensor.is_floating_point() else 9)
    model.init_weights()
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, 64, 64)).isfinite().all()


def test_defaults_of_the_class_are_the_published_network() -> None:
    direct = mfsf2.MFSF2Classifier(device="meta").state_dict()
    named = mfsf2.create_model("mfsf2_cls", device="meta").state_dict()
    assert {k: v.shape for k, v in direct.items()} == {k: v.shape for k, v in named.items()}


@pytest.mark.parametrize(
    ("cnn", "transformer"),
    [
        ("regnetx_002", "pvt_v2_b0"),
        ("convnext_atto", "pvt_v2_b0"),
        ("resnet18", "efficientformerv2_s0"),
        ("mobilenetv3_small_050", "pvt_v2_b2_li"),
    ],
)
def test_other_backbones(cnn: str, transformer: str) -> None:
    size = 224 if "efficientformer" in transformer else 75
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", cnn=cnn, transformer=transformer, drop_path_rate=0.05)
    y = model(torch.randn(2, 3, size, size))
    assert y.shape == (2, 7)
    y.square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert all(regex.startswith(r"^encoder\.") for regex, _ in model.group_matcher()["blocks"])
    model.eval()
    x = torch.randn(1, 3, size, size)
    torch.testing.assert_close(model.forward_head(model.forward_features(x)), model(x))


def test_unknown_backbone() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet51'.*nearest: resnet5"):
        mfsf2.create_model("mfsf2_tiny_cls", cnn="resnet51")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit"])
def test_backbone_without_four_levels(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' has maps of strides \[16.*needed are four levels, strides \(4, 8"):
        mfsf2.create_model("mfsf2_tiny_cls", transformer=name, drop_path_rate=0)


def test_backbone_without_stochastic_depth() -> None:
    with pytest.raises(ValueError, match="'vgg11' has no stochastic depth: pass drop_path_rate=0"):
        mfsf2.create_model("mfsf2_tiny_cls", transformer="vgg11")
