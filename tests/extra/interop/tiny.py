"""The models that most of these tests run on, those of the tiny size, and inputs for them."""

from typing import Any

import micro
import pytest
import torch
from micro import TASKS
from torch import Tensor

import mfsf2

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
