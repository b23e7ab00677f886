"""DDP and FSDP2: a training step of two CPU processes is the step of one process on the whole batch.

Batch norms are in evaluation mode: each process would take the statistics of its own half, and torch's
``SyncBatchNorm`` needs GPUs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from micro import build
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

TASKS = ["cls", "rcm_clsseg"]


def inputs_of(task: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(4, 3, 64, 64, generator=generator)
    stack = torch.randn(4, 4, 3, 64, 64, generator=generator)
    return [image, stack] if task.startswith("rcm") else [image]


def step(model: nn.Module, inputs: list[Tensor]) -> None:
    """One step with the mean loss of the batch; the model stays in evaluation mode."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outputs = model(*inputs)
    sum(y.square().mean() for y in (outputs if isinstance(outputs, tuple) else [outputs])).backward()
    optimizer.step()


def ddp(task: str, inputs: list[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model = DistributedDataParallel(build(task))
    step(model, inputs)
    gradients = {name: parameter.grad for name, parameter in model.module.named_parameters()}
    return gradients, model.module.state_dict()


def fsdp(task: str, inputs: list[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model = build(task)
    encoder = model.encoder
    for part in (encoder.cnn, encoder.transformer, *encoder.fusion.stages, encoder.fusion.pyramid):
        fully_shard(part)
    # The encoder calls this method of the branches, not the branches themselves.
    for branch in (encoder.cnn, encoder.transformer):
        register_fsdp_forward_method(branch, "forward_intermediates")
    # FSDP2 takes no scalars: each process keeps these whole, and their gradients are averaged by hand.
    scalars = {parameter for parameter in model.parameters() if parameter.ndim == 0}
    if scalars:
        with pytest.raises(ValueError, match=r"doesn't support scalar parameters\. Change gamma"):
            fully_shard(build(task))
    fully_shard(model, ignored_params=scalars)
    for parameter in scalars:
        parameter.register_post_accumulate_grad_hook(average_gradient)
    step(model, inputs)
    gradients = {
        name: parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
        for name, parameter in model.named_parameters()
    }
    return gradients, get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))


def average_gradient(parameter: Tensor) -> None:
    dist.all_reduce(parameter.grad)
    parameter.grad /= dist.get_world_size()


KINDS: dict[str, Callable[..., Any]] = {"ddp": ddp, "fsdp": fsdp}


def process(rank: int, kind: str, task: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    half = [x.chunk(2)[rank] for x in inputs_of(task)]
    torch.save(KINDS[kind](task, half), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_two_processes(kind: str, task: str, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(process, (kind, task, tmp_path), nprocs=2)
    alone, inputs = build(task), inputs_of(task)
    step(alone, inputs)
    gradients, state = torch.load(tmp_path / "0.pt", weights_only=True)
    assert gradients.keys() == dict(alone.named_parameters()).keys()
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    plain = build(task, seed=1)
    plain.load_state_dict(state)
    for got, expected in zip(plain(*inputs), alone(*inputs)):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
