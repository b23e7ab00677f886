"""Counters of operations: fvcore's by tracing, torch's by dispatch, and hooks on modules."""

from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from tiny import build, every_task, inputs_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mfsf2
from mfsf2.layers import ConcatConv2d, SplitConv2d

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
