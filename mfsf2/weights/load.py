"""Load a state dict into a model: strictly, or not at all."""

import os
from typing import Any, Literal

from torch import Tensor, nn

from .adapt import adapt_head, adapt_stems, keep_own, num_classes_of
from .check import check_fit, check_tensors, check_values, optional_keys
from .convert import convert_keys
from .read import read_state_dict

__all__ = ["Strict", "check_model", "check_shapes", "check_strict", "load_checkpoint", "load_weights"]

Strict = Literal[True, "encoder"]
"""What must fit: everything, or the encoder."""


def load_checkpoint(
    model: nn.Module, path: str | os.PathLike[str], strict: Strict = True, entry: str | None = None
) -> None:
    """Load a checkpoint file into a model of this library.

    The file is safetensors or a ``torch.save`` of tensors, with this library's keys or those of the authors' code. The
    model may be part of a larger one (``model.``, ``module.``, ``net.``, ...), or an entry of a training checkpoint.
    Every key must be there, in the right shape, with three exceptions, all logged by key: a classifier for another
    number of classes and a head this model lacks are skipped, and three-channel stems are adapted to the model's
    ``in_chans``. Batch norms' ``num_batches_tracked`` may be missing.

    Args:
        model: a model created by :func:`mfsf2.create_model`.
        path: the file.
        strict: ``True``, or ``"encoder"`` to start from a model for another task: the encoder must fit, heads and the
            stem of a second modality are loaded where they fit and left as they are elsewhere, which is logged.
        entry: which of several models in the file to load, by its key (``"state_dict"``) or prefix (``"teacher"``).
            None for averaged weights (EMA) if there are any, as in timm.

    Raises:
        FileNotFoundError: no such file.
        TypeError: a model of another library, or one with ``features_only``.
        ValueError: a damaged file, tensors that would be cast from integers, or keys that do not fit, all of which are
            listed (20 of each kind). The model keeps its weights.

    Warns:
        UserWarning: NaN or infinite weights, by key.
    """
    if isinstance(path, nn.Module):
        raise TypeError("the model comes first, then the file: load_checkpoint(model, path)")
    check_model(model)
    check_strict(strict)
    load_weights(model, read_state_dict(path, entry), str(path), strict=strict)


def load_weights(
    model: Any,
    state: dict[str, Tensor],
    source: str,
    num_classes: int | None = None,
    strict: Strict = True,
    is_known: bool = False,
) -> None:
    """Load a state dict as :func:`load_checkpoint` does.

    Args:
        model: the model.
        state: tensors by name.
        source: its name in messages.
        num_classes: the number of classes that it must have; None if unknown.
        strict: as for :func:`load_checkpoint`.
        is_known: the values are those of the package, and need not be looked through.
    """
    target = model.state_dict()
    if any(value.is_meta for value in target.values()):
        raise ValueError(f"{source} cannot be loaded into a model on the meta device: use model.to_empty(device=...)")
    state = convert_keys(state)
    is_ours = any(key.startswith("encoder.fusion.") for key in state)
    headline = f"{source} does not fit the model, which keeps its weights"
    check_tensors(state, target, headline)
    _check_classes(model, state, source, num_classes)
    for head in model.heads:
        adapt_head(model, head, state, target, source)
    adapt_stems(model, state, target, source)
    if strict == "encoder":
        keep_own(state, target, source)
    state.update({key: target[key] for key in optional_keys(target, state)})
    try:
        check_fit(state, target, headline, ("checkpoint", "model"))
    except ValueError as error:
        if strict is True and _encoder_fits(state, target):
            raise ValueError(
                f"{error}\nThe encoder fits: load_checkpoint or load_pretrained with strict='encoder' starts from it"
            ) from None
        if not is_ours:
            raise ValueError(f"{error}\nThe checkpoint is not of a model of this library") from None
        raise
    if not is_known:
        check_values(state, source)
    model.load_state_dict(state, strict=True)


def check_shapes(twin: Any, state: dict[str, Tensor], source: str, num_classes: int) -> None:
    """Check that a file holds every tensor of the model that its configuration describes, before that is built.

    Args:
        twin: the model, on the meta device.
        state: tensors by name.
        source: its name in messages.
        num_classes: the number of classes in the configuration.
    """
    target = twin.state_dict()
    state = {key: value for key, value in convert_keys(state).items() if key in target}
    _check_classes(twin, state, source, num_classes)
    check_fit(state, target, f"{source} does not fit its configuration", ("weights", "configuration"))


def check_model(model: Any) -> None:
    """Check that a model is one of this library.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(getattr(model, "model_args", None), dict):
        raise TypeError(
            f"{type(model).__name__} is not a model of this library: use a model from mfsf2.create_model; with "
            "features_only, pass checkpoint_path to create_model"
        )


def check_strict(strict: Any) -> None:
    """Check an argument ``strict``.

    Raises:
        ValueError: an unknown value.
    """
    if strict is not True and strict != "encoder":
        raise ValueError(f"strict={strict!r}: use True, or 'encoder' if only the encoder must fit")


def _encoder_fits(state: dict[str, Tensor], target: dict[str, Tensor]) -> bool:
    encoder = {key: value.shape for key, value in target.items() if key.startswith("encoder.")}
    return all(key in state and state[key].shape == shape for key, shape in encoder.items())


def _check_classes(model: Any, state: dict[str, Tensor], source: str, num_classes: int | None) -> None:
    have = num_classes_of(model, state)
    if num_classes is not None and have != num_classes:
        raise ValueError(
            f"{source} has {have} classes, but its configuration says {num_classes}: they do not belong together"
        )
