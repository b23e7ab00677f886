"""PEFT: LoRA on every linear layer and ungrouped convolution."""

import peft
import pytest
from tiny import build, every_task, flat, inputs_of
from torch import nn


def adaptable(model: nn.Module) -> list[str]:
    """Linear layers and ungrouped convolutions."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]


@every_task
def test_lora(task: str) -> None:
    model = build(task)
    inputs = inputs_of(model)
    plain = flat(model(*inputs)).detach()
    names = adaptable(model)
    assert {"encoder.fusion.stages.0.mffe_cnn.fc1", "encoder.fusion.stages.0.gate.attn_out"} < set(names)
    assert {"encoder.fusion.pyramid.psa.fc", "encoder.fusion.pyramid.adapters.0.conv"} < set(names)
    config = peft.LoraConfig(r=4, target_modules=names, init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    parameters = {name: p for name, p in adapted.named_parameters() if "lora_" in name}
    assert len(parameters) == 2 * len(names)
    for name, parameter in parameters.items():
        # Small enough that no activation is lost, large enough that each matters.
        parameter.data.mul_(0.1 if "lora_B" in name else 1)
    before = flat(adapted(*inputs))
    before.square().mean().backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert (before - plain).abs().max() > 1e-3
    merged = adapted.merge_and_unload()
    after = flat(merged(*inputs))
    assert (after - before).abs().max() <= 1e-5 * max(1.0, before.abs().max().item())


@pytest.mark.parametrize("name", [r".*gate\.(attn|fuse)\.conv", r".*psa\.convs\.\d", r".*stem\.slices"])
def test_lora_is_refused_by_type_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match=r"Target module (ConcatConv2d|SplitConv2d|SliceStem)\(.* is not supported"):
        peft.get_peft_model(build("rcm_cls"), peft.LoraConfig(r=4, target_modules=name))
