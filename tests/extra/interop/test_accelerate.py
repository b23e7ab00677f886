"""accelerate: offloading, models without weights, and training in bf16."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from tiny import build, every_task, flat, inputs_of
from torch import nn
from torch.nn import functional as F

import mfsf2

CPU = torch.device("cpu")


@every_task
@pytest.mark.parametrize("kind", ["cpu", "disk"])
@torch.no_grad()
def test_offload(task: str, kind: str, tmp_path: Path) -> None:
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
def test_empty_weights(loader: str, include_buffers: bool, tmp_path: Path) -> None:
    trained = build("clsseg")
    torch.save(trained.state_dict(), tmp_path / "pytorch_model.bin")
    with accelerate.init_empty_weights(include_buffers=include_buffers):
        model: Any = mfsf2.create_model("mfsf2_tiny_clsseg")
    LOADERS[loader](model, tmp_path / "pytorch_model.bin")
    inputs = inputs_of(model)
    assert torch.equal(flat(model.eval()(*inputs)), flat(trained(*inputs)))


@every_task
def test_bf16_training_step(task: str) -> None:
    accelerator = accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    model = build(task)
    inputs = inputs_of(model)
    expected = flat(model(*inputs))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    outputs = flat(prepared(*inputs))
    # Computed in bf16, returned in fp32; bf16 has 8 significant bits.
    assert outputs.dtype == torch.float32
    assert 0 < (outputs - expected).abs().max() < 0.1 * expected.abs().max()
    accelerator.backward(F.mse_loss(outputs, torch.ones_like(outputs)))
    optimizer.step()
    after = accelerator.unwrap_model(prepared).state_dict()
    assert all(after[name].dtype == torch.float32 and after[name].isfinite().all() for name in before)
    assert not any(torch.equal(after[name], parameter) for name, parameter in before.items())
