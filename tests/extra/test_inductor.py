"""The default compiler on a whole network: too slow for every run."""

from typing import Any

import pytest
import torch

import mfsf2


@pytest.mark.parametrize("name", ["mfsf2_tiny_clsseg", "mfsf2_tiny_rcm_cls"])
def test_inductor_on_other_tasks(name: str) -> None:
    torch.manual_seed(0)
    model: Any = mfsf2.create_model(name).eval()
    inputs = [torch.randn(2, 3, 96, 64), torch.randn(2, 4, 3, 64, 80)][: 2 if "rcm" in name else 1]
    with torch.no_grad():
        expected, actual = model(*inputs), torch.compile(model, fullgraph=True)(*inputs)
    if isinstance(expected, torch.Tensor):
        expected, actual = [expected], [actual]
    for a, e in zip(actual, expected, strict=True):
        assert (a - e).abs().max() <= 1e-4


@pytest.mark.parametrize("training", [False, True])
def test_inductor(training: bool) -> None:
    torch.manual_seed(0)
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", drop_rate=0.0, drop_path_rate=0.0).train(training)
    x = torch.randn(2, 3, 96, 64)
    results = []
    for network in (model, torch.compile(model, fullgraph=True)):
        # Each pass with its gradient at once: the other pass updates the norms' statistics in place.
        output = network(x)
        gradients = torch.autograd.grad(output.square().sum(), list(model.parameters())) if training else ()
        results.append((output.detach(), gradients))
    (expected, plain), (actual, fused) = results
    assert (actual - expected).abs().max() <= 1e-4
    # Biases before a batch norm have no gradient but rounding: the absolute part is measured by the whole gradient.
    total = torch.stack([a.norm() for a in plain]).norm() if training else torch.zeros(())
    for (name, _), a, b in zip(model.named_parameters(), plain, fused):
        assert (a - b).norm() <= 1e-2 * a.norm() + 1e-5 * total, name
