"""The libraries that people use around a network, on every network; needs the extra ``interop``."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import micro
import peft
import pytest
import torch
from captum.attr import LayerGradCam
from fvcore.nn import FlopCountAnalysis
from micro import TASKS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageClassification

import mfsf2
import mfsf2.timm_models
from mfsf2.layers import ConcatConv2d, SplitConv2d

CPU = torch.device("cpu")
every_task = pytest.mark.parametrize("task", TASKS)


def build(task: str, **kwargs: Any) -> Any:
    return micro.build(task, is_micro=False, **kwargs)


def inputs_of(model: Any) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, 64, 64, generator=generator)
    stack = torch.randn(2, 4, 3, 48, 64, generator=generator)
    return (image, stack) if isinstance(model, mfsf2.MFSF2TwoModality) else (image,)


def flat(outputs: Any) -> Tensor:
    """All outputs, a row a sample."""
    return torch.cat([y.flatten(1) for y in ([outputs] if isinstance(outputs, Tensor) else outputs)], dim=1)


@every_task
@pytest.mark.parametrize("kind", ["cpu", "disk"])
@torch.no_grad()
def test_accelerate_offload(task: str, kind: str, tmp_path: Path) -> None:
    model = build(task)
    inputs = inputs_of(model)
    expected = flat(model(*inputs))
    if kind == "cpu":
        accelerate.cpu_offload(model, execution_device=CPU)
    else:
        accelerate.disk_offload(model, tmp_path, execution_device=CPU)
    assert all(parameter.is_meta for parameter in model.parameters())
    for _ in range(2):
        torch.testing.assert_close(flat(model(*inputs)), expected, rtol=1e-5, atol=1e-5)


LOADERS: dict[str, Callable[[nn.Module, Path], Any]] = {
    "load_state_dict": lambda model, path: model.load_state_dict(torch.load(path, weights_only=True), assign=True),
    "load_checkpoint_in_model": lambda model, path: accelerate.load_checkpoint_in_model(
        model, str(path), device_map={"": "cpu"}
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("include_buffers", [False, True])
def test_accelerate_empty_weights(loader: str, include_buffers: bool, tmp_path: Path) -> None:
    trained = build("clsseg")
    torch.save(trained.state_dict(), tmp_path / "pytorch_model.bin")
    with accelerate.init_empty_weights(include_buffers=include_buffers):
        model: Any = mfsf2.create_model("mfsf2_tiny_clsseg")
    LOADERS[loader](model, tmp_path / "pytorch_model.bin")
    inputs = inputs_of(model)
    assert torch.equal(flat(model.eval()(*inputs)), flat(trained(*inputs)))


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


@every_task
def test_captum_layer_grad_cam(task: str) -> None:
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


CONVOLUTIONS = (nn.Conv2d, ConcatConv2d, SplitConv2d, mfsf2.SliceStem)


def hook_flops(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, int]:
    """Floating-point operations of convolutions and linear layers as a hook on each counts them."""
    counted: dict[str, int] = {}

    def count(name: str, module: Any, output: Tensor) -> None:
        per_output = module.weight[0].numel()
        counted[name] = counted.get(name, 0) + 2 * output.numel() * per_output

    hooks = [
        module.register_forward_hook(lambda m, _i, output, name=name: count(name, m, output))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS))
    ]
    model(*inputs)
    for hook in hooks:
        hook.remove()
    return counted


@every_task
@torch.no_grad()
def test_flops_by_hooks_are_torchs(task: str) -> None:
    model = build(task)
    inputs = inputs_of(model)
    by_hooks = hook_flops(model, inputs)
    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    by_operation = {name.partition(".")[2]: operations for name, operations in counter.get_flop_counts().items()}
    by_torch = {name: sum(operations.values()) for name, operations in by_operation.items()}
    kinds = {name: type(m) for name, m in model.named_modules() if isinstance(m, (nn.Linear, *CONVOLUTIONS))}
    assert by_hooks.keys() == kinds.keys()
    assert {name: by_torch.get(name, 0) for name in kinds} == by_hooks
    # No convolution is computed outside these modules; those of 1x1 kernels may be matrix products.
    convolution = torch.ops.aten.convolution
    inside = sum(
        by_operation[name].get(convolution, 0) for name, kind in kinds.items() if issubclass(kind, CONVOLUTIONS)
    )
    assert counter.get_flop_counts()["Global"][convolution] == inside


@every_task
def test_fvcore(task: str) -> None:
    model = build(task)
    analysis = FlopCountAnalysis(model, inputs_of(model))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_module = analysis.by_module()
    assert analysis.total() > 0
    names = [f"encoder.fusion.stages.{i}.gate.{part}.conv" for i in range(4) for part in ("attn", "fuse")]
    names += [f"encoder.fusion.pyramid.psa.convs.{i}" for i in range(4)]
    assert all(by_module[name] > 0 for name in names)


def test_transformers(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 64, 64)
    for index, kwargs in enumerate([dict(pretrained=True), dict(num_classes=3)]):
        model: Any = mfsf2.create_model("mfsf2_tiny_cls", **kwargs).eval()
        folder = tmp_path / str(index)
        mfsf2.save_pretrained(model, folder)
        wrapped = AutoModelForImageClassification.from_pretrained(folder)
        assert torch.equal(wrapped.eval()(x).logits, model(x))
        F.cross_entropy(wrapped.train()(x).logits, torch.tensor([0, 1])).backward()
        with tempfile.TemporaryDirectory() as again:
            wrapped.save_pretrained(again)
            twin = AutoModelForImageClassification.from_pretrained(again).eval()
            assert torch.equal(twin(x).logits, wrapped.eval()(x).logits)
