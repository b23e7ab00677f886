"""Load a state dict into a model: strictly, or not at all."""

import logging
import os
from typing import Any

from torch import Tensor, nn

from .convert import convert_authors_keys, convert_older_keys
from .read import read_state_dict

__all__ = ["load_checkpoint", "load_weights"]

_logger = logging.getLogger(__name__)


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a checkpoint file into a model of this library.

    The file is safetensors or a ``torch.save`` of tensors, with this library's keys or those of the authors' code.
    Every key must be there, in the right shape, with three exceptions, all logged by key: a classifier for another
    number of classes and a head this model lacks are skipped, and three-channel stems are adapted to the model's
    ``in_chans``.

    Args:
        model: a model created by :func:`mfsf2.create_model`.
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        TypeError: a model of another library, or one with ``features_only``.
        ValueError: a damaged file, or keys that do not fit, all of which are listed. The model keeps its weights.
    """
    if isinstance(path, nn.Module):
        raise TypeError("the model comes first, then the file: load_checkpoint(model, path)")
    _check_model(model)
    load_weights(model, read_state_dict(path), str(path))


def load_weights(model: Any, state: dict[str, Tensor], source: str, num_classes: int | None = None) -> None:
    """Load a state dict as :func:`load_checkpoint` does.

    Args:
        model: the model.
        state: tensors by name.
        source: its name in messages.
        num_classes: the number of classes that it must have; None if unknown.
    """
    _check_model(model)
    target = model.state_dict()
    state = convert_older_keys(convert_authors_keys(state))
    first = next((name for name, head in model.heads.items() if head is not None), "")
    have = _num_classes(_class_keys(model, state, first), state)
    if num_classes is not None and have != num_classes:
        raise ValueError(
            f"{source} has {have} classes, but its configuration says {num_classes}: they do not belong together"
        )
    for head in model.heads:
        _adapt_head(model, head, state, target, source)
    _adapt_stems(model, state, target, source)
    _check_keys(state, target, source)
    model.load_state_dict(state, strict=True)


def _check_model(model: Any) -> None:
    if not isinstance(getattr(model, "model_args", None), dict):
        raise TypeError(
            f"{type(model).__name__} is not a model of this library: use a model from mfsf2.create_model; with "
            "features_only, pass checkpoint_path to create_model"
        )


def _adapt_head(model: Any, head: str, state: dict[str, Tensor], target: dict[str, Tensor], source: str) -> None:
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
    num_have, num_want = _num_classes(keys, state), _num_classes(fresh, target)
    if num_have == num_want:
        return
    reason = f"the checkpoint has {num_have} classes and the model {num_want}"
    _drop(state, keys, source, reason)
    if fresh and not num_have:
        _logger.warning("%s: left untrained, because %s: %s", source, reason, ", ".join(fresh))
    state.update({key: target[key] for key in fresh})


def _class_keys(model: Any, state: dict[str, Tensor], head: str) -> list[str]:
    """Keys of a head's layers with one output per class."""
    layers = () if model.heads.get(head) is None else model.heads[head].classifier_names
    prefixes = tuple(f"{head}.{layer}." for layer in layers)
    return [key for key in state if key.startswith(prefixes)]


def _num_classes(keys: list[str], state: dict[str, Tensor]) -> int:
    """Rows of the first of these weights; 0 if there is none."""
    weights = [state[key] for key in keys if key.endswith(".weight")]
    return len(weights[0]) if weights else 0


def _drop(state: dict[str, Tensor], keys: list[str], source: str, reason: str) -> None:
    if keys:
        _logger.warning("%s: not loaded, because %s: %s", source, reason, ", ".join(keys))
    for key in keys:
        del state[key]


def _adapt_stems(model: nn.Module, state: dict[str, Tensor], target: dict[str, Tensor], source: str) -> None:
    """Adapt the first convolution of both branches to another number of input channels, as timm does."""
    from timm.models import adapt_input_conv

    for branch in ("cnn", "transformer"):
        backbone = model.get_submodule(f"encoder.{branch}")
        first = backbone.default_cfg["first_conv"]  # type: ignore[index]
        for name in (first,) if isinstance(first, str) else tuple(first or ()):
            key = f"encoder.{branch}.{name}.weight"
            have, want = state.get(key), target.get(key)
            if have is None or want is None or have.dim() != 4 or have.shape[1] != 3 or want.shape[1] == 3:
                continue
            _logger.warning("%s: adapted from 3 to %d channels: %s", source, want.shape[1], key)
            # Not in the precision of the file: the new numbers are sums or products of those in it.
            state[key] = adapt_input_conv(want.shape[1], have.to(want.dtype))


def _check_keys(state: dict[str, Tensor], target: dict[str, Tensor], source: str) -> None:
    """Compare names and shapes; a single error lists everything that does not fit."""
    groups = {
        "missing": [key for key in target if key not in state],
        "unexpected": [key for key in state if key not in target],
        "wrong shape": [
            f"{key} (checkpoint {list(state[key].shape)}, model {list(target[key].shape)})"
            for key in target
            if key in state and state[key].shape != target[key].shape
        ],
    }
    if not any(groups.values()):
        return
    lines = [f"{source} does not fit the model, which keeps its weights:"]
    for name, keys in groups.items():
        if keys:
            lines.append(f"{name} ({len(keys)}):")
            lines.extend(f"  {key}" for key in keys)
    raise ValueError("\n".join(lines))
