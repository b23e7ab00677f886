"""Grad-CAM of captum and of pytorch-grad-cam."""

import torch
from captum.attr import LayerGradCam
from tiny import build, every_task, inputs_of
from torch import Tensor


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
