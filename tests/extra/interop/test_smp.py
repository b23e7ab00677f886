"""segmentation_models_pytorch: the tiny classifier as the encoder of every decoder that takes timm's PVTv2."""

import pytest
import segmentation_models_pytorch as smp
import torch

import mfsf2
import mfsf2.timm_models

# They ask for an encoder at a stride of 8 or 16, which neither PVTv2 nor this library's models have.
DILATED = ["deeplabv3", "deeplabv3plus", "pan"]
OTHERS = sorted(set(smp.MODEL_ARCHITECTURES_MAPPING) - set(DILATED))


@pytest.mark.parametrize("decoder", OTHERS)
def test_decoders(decoder: str) -> None:
    model = smp.create_model(decoder, "tu-mfsf2_tiny_cls", encoder_weights=None, in_channels=3, classes=2)
    masks = model(torch.randn(2, 3, 64, 96))
    assert masks.shape == (2, 2, 64, 96)
    masks.square().mean().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any("fusion.stages" in name for name in trained)
    # Left out: the map of stride 4, for PSPNet; the pyramid, for DPT.
    unused = {name for name, _ in model.named_parameters()} - trained
    parts = {"pspnet": "fusion.stages.0.", "dpt": "fusion.pyramid."}
    assert all(
        part in name for name in unused if (part := parts[decoder]) and not name.startswith("encoder.model.head")
    )


@pytest.mark.parametrize("decoder", DILATED)
def test_no_dilated_encoder(decoder: str) -> None:
    for encoder in ("tu-mfsf2_tiny_cls", "tu-pvt_v2_b0"):
        with pytest.raises(TypeError, match="argument 'output_stride'"):
            smp.create_model(decoder, encoder, encoder_weights=None)


def test_pretrained_encoder() -> None:
    model = smp.Unet("tu-mfsf2_tiny_cls.ham10000", encoder_weights=True).eval()
    features = mfsf2.create_model("mfsf2_tiny_cls.ham10000", pretrained=True, features_only=True).eval()
    x = torch.randn(1, 3, 64, 64)
    # Before the maps: the image and an empty one at a stride of 2.
    assert all(torch.equal(a, b) for a, b in zip(model.encoder(x)[2:], features(x), strict=True))
