"""MFFE inserted into models of segmentation_models_pytorch, and the segmentation head on its encoders."""

from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

import mfsf2

ENCODERS = [
    "resnet18",
    "efficientnet-b0",
    "densenet121",
    "vgg11_bn",
    "mobilenet_v2",
    "timm-regnetx_002",
    "tu-convnext_atto",
]


def blocks_of(model: torch.nn.Module) -> list[mfsf2.MFFE]:
    return [module for module in model.modules() if isinstance(module, mfsf2.MFFE)]


@pytest.mark.parametrize(
    ("build", "names", "number"),
    [
        (lambda: smp.Unet("resnet18", encoder_weights=None), "encoder.layer*", 4),
        (lambda: smp.Unet("resnet18", encoder_weights=None), "decoder.blocks.*", 5),
        (lambda: smp.Unet("efficientnet-b0", encoder_weights=None), "encoder._blocks.*", 16),
        (lambda: smp.FPN("mobilenet_v2", encoder_weights=None), ["encoder.features.*", "decoder.p?"], 23),
        (
            lambda: smp.UnetPlusPlus(
                "tu-convnext_atto", encoder_weights=None, encoder_depth=4, decoder_channels=(64, 32, 16, 8)
            ),
            "encoder.model.stages_*",
            3,
        ),
        (lambda: smp.DeepLabV3Plus("resnet18", encoder_weights=None), "decoder.aspp", 1),
        (lambda: smp.MAnet("densenet121", encoder_weights=None), "encoder.features.denseblock?.denselayer1", 4),
    ],
)
def test_insertion(build: Any, names: Any, number: int) -> None:
    torch.manual_seed(0)
    model = build().eval()
    x = torch.randn(1, 3, 64, 64)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        expected = model(x)
        mfsf2.add_mffe(model, names, x)
        assert len(blocks_of(model)) == number
        assert (model(x) - expected).abs().max() <= 1e-6
    mfsf2.load_host_state_dict(model, state)
    model(x).sum().backward()
    assert all(block.fc2.weight.grad is not None for block in blocks_of(model))
    mfsf2.remove_mffe(model)
    with torch.no_grad():
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_head_on_encoders(name: str) -> None:
    """The error says which entries of the encoder's lists to leave out; VGG's has nothing but maps."""
    encoder = smp.encoders.get_encoder(name, weights=None)
    first = 0
    if not name.startswith("vgg"):
        with pytest.raises(ValueError, match=r"pass in_chans\[\d:\] and maps\[\d:\]") as caught:
            mfsf2.SegmentationHead(encoder.out_channels)
        first = int(str(caught.value).rpartition("maps[")[2][0])
    head = mfsf2.SegmentationHead(encoder.out_channels[first:], num_classes=2)
    x = torch.randn(2, 3, 64, 96)
    logits = head(encoder(x)[first:], output_size=x.shape[-2:])
    assert logits.shape == (2, 2, 64, 96)
    F.cross_entropy(logits, torch.zeros(2, 64, 96, dtype=torch.long)).backward()
    assert all(p.grad is not None for p in head.parameters())
