"""The DCT filters are constants that no state dict holds: wherever weights come from, the filters are right too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from micro import build
from torch import Tensor, nn

import mfsf2

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
NAN = float("nan")


def banks(model: nn.Module) -> list[Tensor]:
    return [module.bank for module in model.modules() if isinstance(module, mfsf2.MFFE)]


def reinit_non_persistent_buffers(model: nn.Module) -> int:
    """As timm and transformers do; returns how many modules took part."""
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "init_non_persistent_buffers")]
    for module in modules:
        module.init_non_persistent_buffers()
    return len(modules)


def spoil(model: nn.Module) -> nn.Module:
    """What ``to_empty`` may leave: memory of anything."""
    for bank in banks(model):
        bank.fill_(NAN)
    return model


@pytest.fixture(scope="module")
def trained() -> Any:
    return build()


def test_no_state_dict_holds_them(trained: Any) -> None:
    assert len(banks(trained)) == 8
    assert not [name for name in trained.state_dict() if name.endswith("bank")]
    assert len([name for name, _ in trained.named_buffers() if name.endswith("bank")]) == 8


def test_they_are_converted_as_weights_are() -> None:
    exact = mfsf2.MFFE(16, dtype=torch.float64)
    assert torch.equal(mfsf2.MFFE(16).bank, exact.bank.float())
    block = mfsf2.MFFE(16).bfloat16().double()
    assert torch.equal(block.bank, exact.bank.bfloat16().double())
    block.init_non_persistent_buffers()
    assert torch.equal(block.bank, exact.bank)


FILL: dict[str, Callable[[Any], Any]] = {
    "init_non_persistent_buffers": lambda block: block.init_non_persistent_buffers(),
    "reset_parameters": lambda block: block.reset_parameters(),
    "load_state_dict": lambda block: block.load_state_dict(mfsf2.MFFE(16, dtype=torch.float64).state_dict()),
}


@pytest.mark.parametrize("fill", FILL)
@pytest.mark.parametrize("way", ["built on meta", "moved to meta"])
def test_after_empty_memory(fill: str, way: str) -> None:
    exact = mfsf2.MFFE(16, dtype=torch.float64)
    block = mfsf2.MFFE(16, dtype=torch.float64, device="meta" if way == "built on meta" else None).to("meta")
    assert block.bank.is_meta
    spoil(block.to_empty(device="cpu"))
    FILL[fill](block)
    assert torch.equal(block.bank, exact.bank)


def test_every_bank_is_found() -> None:
    model = spoil(build())
    assert reinit_non_persistent_buffers(model) == 8
    assert all(bank.isfinite().all() for bank in banks(model))


@pytest.mark.parametrize("assign", [False, True])
def test_a_network_from_the_meta_device(trained: Any, assign: bool) -> None:
    with torch.device("meta"):
        model = build()
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    if not assign:
        spoil(model.to_empty(device="cpu"))
    model.load_state_dict({key: value.clone() for key, value in trained.state_dict().items()}, assign=assign)
    assert torch.equal(model.eval()(X), trained(X))
    model.train()(X).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_assigned_weights_of_another_dtype(trained: Any) -> None:
    with torch.device("meta"):
        model = build()
    state = {k: v.double() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    model.load_state_dict(state, assign=True)
    assert {bank.dtype for bank in banks(model)} == {torch.float64}
    torch.testing.assert_close(model.eval()(X.double()).float(), trained(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["cls", "clsseg"])
@pytest.mark.parametrize("move", ["to", "float", "cpu", "nothing"])
def test_training_after_an_evaluation_in_inference_mode(task: str, move: str) -> None:
    model = build(task)
    moves = {"to": lambda: model.to("cpu"), "float": model.float, "cpu": model.cpu, "nothing": lambda: model}
    with torch.inference_mode():
        moves[move]().eval()(X)
    outputs = model.train()(X)
    sum(y.sum() for y in ([outputs] if isinstance(outputs, Tensor) else outputs)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_training_after_loading_in_inference_mode(trained: Any) -> None:
    model = build()
    with torch.inference_mode():
        model.load_state_dict(trained.state_dict())
        assert torch.equal(model.eval()(X), trained(X))
    model.train()(X).sum().backward()
