"""Does a state dict fit a model? Everything is checked before the first tensor is copied."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .convert import strip_wrapper

__all__ = ["check_fit", "check_modules", "check_tensors", "check_values", "optional_keys"]

_COUNTER = ".num_batches_tracked"

_MAX_LISTED = 20
"""Lines of each kind in an error."""

# Of torch's and timm's layers, by name, because importing timm takes seconds.
_TRAINING_ONLY = ("Dropout", "Dropout2d", "DropPath")


def optional_keys(target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Keys of batch norms' counters that a checkpoint lacks."""
    return [key for key in target if key.endswith(_COUNTER) and key not in state]


def check_tensors(state: Mapping[str, Any], target: Mapping[str, Tensor], headline: str) -> None:
    """Refuse tensors that cannot be copied, or whose numbers would not be the same.

    Args:
        state: the tensors; those that are not in ``target`` are not looked at.
        target: those that they are for.
        headline: the beginning of the error.

    Raises:
        ValueError: lists them.
    """
    bad = [f"{key} ({why})" for key in target if key in state and (why := _objection(state[key], target[key]))]
    if bad:
        raise ValueError("\n".join([f"{headline}: tensors of the wrong kind ({len(bad)}):", *_listed(bad)]))


def check_fit(state: Mapping[str, Tensor], target: Mapping[str, Tensor], headline: str, sides: tuple[str, str]) -> None:
    """Compare names and shapes. Batch norms' counters may be missing, as torch allows.

    Args:
        state: the tensors.
        target: what is expected.
        headline: the beginning of the error.
        sides: what the error calls the two.

    Raises:
        ValueError: lists everything that does not fit.
    """
    groups = {
        "missing": [key for key in target if key not in state and not key.endswith(_COUNTER)],
        "unexpected": [key for key in state if key not in target],
        "wrong shape": [
            f"{key} ({sides[0]} {list(state[key].shape)}, {sides[1]} {list(target[key].shape)})"
            for key in target
            if key in state and state[key].shape != target[key].shape
        ],
    }
    if not any(groups.values()):
        return
    lines = [f"{headline}:"]
    for name, keys in groups.items():
        if keys:
            lines.append(f"{name} ({len(keys)}):")
            lines.extend(_listed(keys))
    raise ValueError("\n".join(lines))


def check_modules(model: nn.Module, twin: nn.Module, headline: str) -> None:
    """Check that a model computes what another one computes with the same weights, as far as its layers show.

    Raises:
        ValueError: lists layers of another type or with other settings.
    """
    own = {strip_wrapper(name): module for name, module in model.named_modules() if not hasattr(module, "_orig_mod")}
    differing = [
        f"{name} ({own.get(name)}, expected {module})"
        for name, module in twin.named_modules()
        if not any(module.children()) and not _computes_the_same(own.get(name), module)
    ]
    if type(model).forward is not type(twin).forward:
        differing.insert(0, f"forward of {type(model).__name__}")
    if differing:
        raise ValueError("\n".join([f"{headline}: other layers than in its configuration:", *_listed(differing)]))


def check_values(state: Mapping[str, Tensor], source: str) -> None:
    """Warn of weights that are NaN or infinite."""
    bad = [key for key, value in state.items() if value.is_floating_point() and not _is_finite(value)]
    if bad:
        warnings.warn(f"{source} has NaN or infinite values in: {', '.join(bad)}", UserWarning, stacklevel=2)


def _computes_the_same(module: Any, twin: nn.Module) -> bool:
    """Whether a layer is the same in evaluation mode; keys and shapes of weights are compared elsewhere."""
    if type(twin).__name__ in _TRAINING_ONLY:
        return type(module).__name__ in (*_TRAINING_ONLY, "Identity")
    if hasattr(twin, "running_mean"):
        # Also a synchronized or frozen norm; its momentum is for training only.
        return hasattr(module, "running_mean") and module.eps == twin.eps
    return type(module) is type(twin) and module.extra_repr() == twin.extra_repr()


def _listed(items: list[str]) -> list[str]:
    more = [f"  ... and {len(items) - _MAX_LISTED} more"] if len(items) > _MAX_LISTED else []
    return [*(f"  {item}" for item in items[:_MAX_LISTED]), *more]


def _objection(value: Any, target: Tensor) -> str:
    """Why a tensor cannot be copied into another one; empty if it can."""
    if not isinstance(value, Tensor):
        return f"{type(value).__name__}: expected a tensor"
    kinds = {
        "quantized": value.is_quantized,
        "nested": value.is_nested,
        str(value.layout): value.layout != torch.strided,
        "on the meta device": value.is_meta,
    }
    for kind, applies in kinds.items():
        if applies:
            return f"{kind}: expected a dense tensor with values"
    same_kind = value.is_floating_point() if target.is_floating_point() else not value.is_complex()
    return "" if same_kind else f"{value.dtype}: expected {target.dtype} or another floating-point type"


def _is_finite(value: Tensor) -> bool:
    # A sum of a tensor's values is finite only if they all are, and ten times as fast; an overflow is looked into.
    return bool(value.sum(dtype=torch.float32).isfinite()) or bool(value.float().isfinite().all())
