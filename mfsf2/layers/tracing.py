"""The circumstances of a call on which the fastest form depends: compilation, export, transforms, determinism."""

from collections.abc import Callable

import torch

__all__ = ["is_compiling", "is_exporting", "is_transformed", "may_overwrite", "must_be_deterministic"]

# TorchScript, which timm's tests apply to traced models, skips code only behind exactly `not torch.jit.is_scripting()`.
# It reads type comments even there, and knows none with two codes.
_is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]


def is_compiling() -> bool:
    """Whether ``torch.compile``, ``torch.export`` or ``torch.jit.trace`` follows the code.

    They choose layouts and memory themselves, and a program must not depend on those of the example.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        compiling: bool = torch.compiler.is_compiling() or _is_tracing()
        return compiling
    return False


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` is active, under which sizes and layouts are not those of the data."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        transformed: bool = torch._C._are_functorch_transforms_active()
        return transformed
    return False


def is_exporting() -> bool:
    """Whether ``torch.export`` traces the code, whose sizes may then be symbols."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        exporting: bool = torch.compiler.is_exporting()
        return exporting
    return False


def must_be_deterministic() -> bool:
    """Whether ``torch.use_deterministic_algorithms`` is set."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        deterministic: bool = torch.are_deterministic_algorithms_enabled()
        return deterministic
    return False


def may_overwrite() -> bool:
    """Whether a result that nothing else needs may be overwritten: nobody keeps track of it for later.

    New memory for a large map may take as long to get as the map to compute.
    """
    return not (torch.is_grad_enabled() or is_transformed() or is_compiling())
