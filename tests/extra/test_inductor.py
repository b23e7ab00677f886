"""The default compiler on a whole network: too slow for every run."""

from typing import Any

import pytest
import torch

import mfsf2


@pytest.mark.parametrize("training", [False, True])
def test_inductor(training: bool) -> None:
    torch.manual_seed(0)
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", drop_rate=0.0, drop_path_rate=0.0).train(training)
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(2, 3, 96, 64)
    expected = model(x)
    actual = compiled(x)
    assert (actual - expected).abs().max() <= 1e-4
    if training:
        plain = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
        fused = torch.autograd.grad(actual.square().sum(), list(model.parameters()))
        for (name, _), a, b in zip(model.named_parameters(), plain, fused, strict=True):
            assert (a - b).norm() <= 1e-2 * a.norm() + 1e-5, name
