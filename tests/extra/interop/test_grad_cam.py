"""Grad-CAM of captum and of pytorch-grad-cam."""

from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SemanticSegmentationTarget
from timm.data import create_transform, resolve_data_config
from tiny import build, every_task, inputs_of
from torch import Tensor, nn
from torch.nn import functional

import mfsf2


@every_task
def test_captum(task: str) -> None:
    model = build(task)
    inputs = inputs_of(model)
    fusion = model.encoder.fusion
    layers = [*fusion.stages, *(stage.gate for stage in fusion.stages), *fusion.pyramid.adapters]
    layers += [part for stage in fusion.stages for part in (stage.gate.attn, stage.gate.fuse.conv, stage.mffe_cnn)]
    if model.mask_head is not None:
        layers.append(fusion.pyramid)

    def score(*given: Tensor) -> Tensor:
        """One number a sample, of all that is predicted."""
        outputs = model(*given)
        parts = [outputs] if isinstance(outputs, Tensor) else outputs
        return sum(y[:, 0].flatten(1).mean(1) if y.dim() > 2 else y[:, 0] for y in parts)

    for layer in layers:
        attributions = LayerGradCam(score, layer).attribute(inputs)
        kept: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _m, _i, output, kept=kept: kept.append(output))
        total = score(*inputs).sum()
        hook.remove()
        (gradient,) = torch.autograd.grad(total, kept[0])
        expected = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True)
        torch.testing.assert_close(attributions, expected, rtol=1e-4, atol=1e-7)
        assert attributions.abs().sum() > 0


def lesions(model: Any) -> Tensor:
    transform = create_transform(**resolve_data_config(model=model))
    paths = sorted(Path(__file__).parents[2].glob("lesions/*.png"))
    return torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[:4]])


@pytest.mark.parametrize("task", ["cls", "clsseg"])
def test_pytorch_grad_cam(task: str) -> None:
    model: Any = mfsf2.create_model(f"mfsf2_tiny_{task}", pretrained=True).eval()
    x = lesions(model)
    classes = model.forward_logits(x).argmax(1).tolist()
    for layer in model.encoder.fusion.stages:
        with GradCAM(FirstOutput(model), [layer]) as cam:
            heat = torch.from_numpy(cam(x, [ClassifierOutputTarget(index) for index in classes]))
        attributions = LayerGradCam(model.forward_logits, layer).attribute(x, target=classes)
        # Scaled before and after the resize to the image's size.
        expected = scaled(functional.interpolate(scaled(attributions.relu()), x.shape[2:], mode="bilinear"))
        assert expected.amax((2, 3)).sum() > 0
        torch.testing.assert_close(heat, expected[:, 0].detach(), rtol=0, atol=2e-2)


def test_pytorch_grad_cam_of_masks() -> None:
    model: Any = mfsf2.create_model("mfsf2_tiny_seg", pretrained=True).eval()
    x = lesions(model)
    targets = [SemanticSegmentationTarget(0, mask.numpy()) for mask in (model(x)[:, 0] > 0).float()]
    with GradCAM(model, [model.encoder.fusion.stages[0]]) as cam:
        heat = cam(x, targets)
    assert heat.shape == (len(x), *x.shape[2:])
    assert (heat.max((1, 2)) > 0.99).all()


class FirstOutput(nn.Module):
    """A model's class logits alone: pytorch-grad-cam asks for one tensor."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_logits(x)


def scaled(maps: Tensor) -> Tensor:
    """From 0 to 1 in each sample."""
    maps = maps - maps.amin((2, 3), keepdim=True)
    return maps / (1e-7 + maps.amax((2, 3), keepdim=True))
