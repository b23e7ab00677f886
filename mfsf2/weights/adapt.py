"""Fit a checkpoint to a model of another kind: other classes, other heads, other channels. All of it is logged."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["adapt_head", "adapt_stems", "classifier_keys", "keep_own", "num_classes_of"]

_logger = logging.getLogger(__name__)

_SLICES = "stem.slices"
"""The stem of the second modality."""


def adapt_head(model: Any, head: str, state: dict[str, Tensor], target: dict[str, Tensor], source: str) -> None:
    """Skip weights of a head: all if the model lacks this head, else those for another number of classes."""
    if model.heads[head] is None:
        foreign = [key for key in state if key.startswith(f"{head}.")]
        if foreign:
            _logger.warning("%s: not loaded, because the model has no such head: %s.* (%d)", source, head, len(foreign))
        for key in foreign:
            del state[key]
        return
    if not any(key.startswith(f"{head}.") for key in target):
        _drop(state, [key for key in state if key.startswith(f"{head}.")], source, "the model's head is empty")
        return
    keys, fresh = _class_keys(model, state, head), _class_keys(model, target, head)
    needs_more = any(key.startswith(f"{head}.") and key not in fresh for key in target)
    if needs_more and not any(key.startswith(f"{head}.") for key in state):
        # The checkpoint has nothing of this head: all its keys are reported as missing, not its classes.
        return
    num_have, num_want = _rows(keys, state), _rows(fresh, target)
    if num_have == num_want or not _differ_in_rows(keys, state, target):
        return
    reason = f"the checkpoint has {num_have} classes and the model {num_want}"
    _drop(state, keys, source, reason)
    if fresh and not num_have:
        _logger.warning("%s: left untrained, because %s: %s", source, reason, ", ".join(fresh))
    state.update({key: target[key] for key in fresh})


def keep_own(state: dict[str, Tensor], target: dict[str, Tensor], source: str) -> None:
    """Leave everything outside the encoder as the model has it where the checkpoint has nothing that fits."""
    parts = {key.partition(".")[0] for key in [*state, *target]} - {"encoder"}
    for part in sorted(parts):
        own = {key: value for key, value in target.items() if key.startswith(f"{part}.")}
        theirs = {key: value for key, value in state.items() if key.startswith(f"{part}.")}
        if own.keys() == theirs.keys() and all(own[key].shape == theirs[key].shape for key in own):
            continue
        if theirs and own:
            _logger.warning("%s: %s.* has other names or shapes there, left unchanged", source, part)
        elif own:
            _logger.warning("%s: %s.* is not in the checkpoint, left unchanged", source, part)
        else:
            _logger.warning("%s: %s.* is not part of the model, not loaded", source, part)
        for key in theirs:
            del state[key]
        state.update(own)


def num_classes_of(model: Any, state: dict[str, Tensor]) -> int:
    """Classes of the first head's weights in a state dict; 0 if there are none."""
    return _rows(classifier_keys(model, state), state)


def classifier_keys(model: Any, state: dict[str, Tensor]) -> list[str]:
    """Keys of the first head's layers with one output per class."""
    first = next((name for name, head in model.heads.items() if head is not None), "")
    return _class_keys(model, state, first)


def adapt_stems(model: nn.Module, state: dict[str, Tensor], target: dict[str, Tensor], source: str) -> None:
    """Adapt the first convolution of both branches to another number of input channels, as timm does.

    The stem of a second modality follows, so that its output has the channels that the branch now takes.
    """
    from timm.models import adapt_input_conv

    for branch in ("cnn", "transformer"):
        backbone = model.get_submodule(f"encoder.{branch}")
        first = backbone.default_cfg["first_conv"]  # type: ignore[index]
        for name in (first,) if isinstance(first, str) else tuple(first or ()):
            key = f"encoder.{branch}.{name}.weight"
            have, want = state.get(key), target.get(key)
            if have is None or want is None or want.dim() != 4 or want.shape[1] == 3:
                continue
            if have.shape != (want.shape[0], 3, *want.shape[2:]):
                # Reported as of the wrong shape.
                continue
            _logger.warning("%s: adapted from 3 to %d channels: %s", source, want.shape[1], key)
            # Not in the precision of the file: the new numbers are sums or products of those in it.
            state[key] = adapt_input_conv(want.shape[1], have.to(want.dtype))
    _adapt_slices(model, state, target, source)


def _adapt_slices(model: Any, state: dict[str, Tensor], target: dict[str, Tensor], source: str) -> None:
    from timm.models import adapt_input_conv

    weight, bias = f"{_SLICES}.weight", f"{_SLICES}.bias"
    have, want = state.get(weight), target.get(weight)
    if have is None or want is None or bias not in state or have.shape == want.shape:
        return
    slices = model.stem.slices.num_slices
    if have.shape not in [(3, slices * chans, 3, 3) for chans in (1, 3)] or state[bias].shape != (3,):
        # Reported as of the wrong shape.
        return
    have_chans, want_chans = have.shape[1] // slices, want.shape[1] // slices
    _logger.warning("%s: adapted from 3 to %d channels: %s, %s", source, want.shape[0], weight, bias)
    # Input channels: as timm adapts a first convolution, slice by slice.
    kernel = have.to(want.dtype).unflatten(1, (slices, have_chans))
    if have_chans == 3 and want_chans != 3:
        by_slice = adapt_input_conv(want_chans, kernel.flatten(0, 1))
        kernel = by_slice.unflatten(0, (3, slices))
    # Output channels: those that the branch's adapted convolution repeats, or their mean where it sums them.
    order = torch.arange(want.shape[0]) % 3
    for key, value in ((weight, kernel.flatten(1, 2)), (bias, state[bias].to(want.dtype))):
        state[key] = value.mean(0, keepdim=True) if want.shape[0] == 1 else value[order]


def _class_keys(model: Any, state: dict[str, Tensor], head: str) -> list[str]:
    """Keys of a head's layers with one output per class."""
    layers = () if model.heads.get(head) is None else model.heads[head].classifier_names
    prefixes = tuple(f"{head}.{layer}." for layer in layers)
    return [key for key in state if key.startswith(prefixes)]


def _rows(keys: list[str], state: dict[str, Tensor]) -> int:
    """Rows of the first of these weights; 0 if there is none."""
    shapes = [state[key].shape for key in keys if key.endswith(".weight")]
    return shapes[0][0] if shapes and shapes[0] else 0


def _differ_in_rows(keys: list[str], state: dict[str, Tensor], target: dict[str, Tensor]) -> bool:
    """Whether weights could be those of another number of classes; others are reported as of the wrong shape."""
    pairs = [(state[key].shape, target[key].shape) for key in keys if key in target]
    return all(have[:1] > (0,) and have[1:] == want[1:] for have, want in pairs)


def _drop(state: dict[str, Tensor], keys: list[str], source: str, reason: str) -> None:
    if keys:
        _logger.warning("%s: not loaded, because %s: %s", source, reason, ", ".join(keys))
    for key in keys:
        del state[key]
