"""What a pretrained configuration says of particular weights, and when that is no longer true."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import Parameter

from .adapt import classifier_keys
from .bundled import is_bundled
from .metadata import NAME_KEYS

__all__ = ["Origin", "remember_origin", "without_stale_claims"]

_CLAIMS = ("temperature", "metrics", "training", "description", "sha256")
"""Entries about exactly the weights that were loaded. ``trained_on`` and ``chosen_on`` are not among them: images stay
seen."""


@dataclass(frozen=True)
class Origin:
    """The weights that a model was created with.

    Attributes:
        path: their file.
        name: what others can load them by; None for a folder.
        cfg: the claims and names in the pretrained configuration.
        classifier: the tensors of the classifier, by key of the model's state dict.
    """

    path: Path
    name: str | None
    cfg: Mapping[str, Any]
    classifier: Mapping[str, Tensor]


def remember_origin(model: Any, path: Path) -> None:
    """Note what a model's pretrained configuration says of the weights that have just been loaded."""
    cfg = {key: model.pretrained_cfg[key] for key in (*_CLAIMS, *NAME_KEYS) if key in model.pretrained_cfg}
    is_tag = is_bundled(path) and bool(model.pretrained_cfg.get("tag"))
    name = f"{model.pretrained_cfg['architecture']}.{model.pretrained_cfg['tag']}" if is_tag else None
    # Without claims there is nothing to compare with later.
    if cfg or name:
        state = model.state_dict()
        classifier = {key: state[key].detach().cpu().clone() for key in classifier_keys(model, state)}
        model.origin = Origin(path, name, cfg, classifier)


def without_stale_claims(model: Any, state: Mapping[str, Any], has_names: bool) -> dict[str, Any]:
    """The model's pretrained configuration, except entries that were true of the weights it was created with only.

    Values that the user has set since then are kept. The names of the classes belong to the classifier: a warning says
    when they go, unless there are new ones (``has_names``).
    """
    cfg = dict(getattr(model, "pretrained_cfg", {}))
    origin: Origin | None = getattr(model, "origin", None)
    if origin is None:
        return cfg
    inherited = {key for key, value in origin.cfg.items() if _same(cfg.get(key), value)}
    has_classifier = all(key in state and _equal(state[key], value) for key, value in origin.classifier.items())
    if not has_classifier:
        if "label_names" in inherited and not has_names:
            warnings.warn(
                f"label_names={list(cfg['label_names'])} belong to the classifier that was loaded, which has changed "
                "since then, and are not saved: pass label_names=[...], also if the classes are still the same",
                UserWarning,
                stacklevel=6,
            )
        stale = inherited
    elif (origin.name or any(key in _CLAIMS for key in inherited)) and not _is_unchanged(state, origin.path):
        stale = inherited.difference(NAME_KEYS)
    else:
        return cfg
    started_from = {"base_model": origin.name} if origin.name else {}
    return {**{key: value for key, value in cfg.items() if key not in stale}, **started_from}


def _is_unchanged(state: Mapping[str, Any], path: Path) -> bool:
    """Whether a file still holds these tensors; no if it is gone or cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            keys = set(file.keys())
            return all(key in keys and _equal(value, file.get_tensor(key)) for key, value in state.items())
    except (OSError, SafetensorError):
        return False


def _equal(value: Any, loaded: Tensor) -> bool:
    """Whether two tensors are equal, in the precision of the first."""
    return (
        # Subclasses, as of quantized weights, may lack the comparison.
        type(value) in (Tensor, Parameter)
        and value.shape == loaded.shape
        and torch.equal(value.detach().cpu(), loaded.to(value.dtype))
    )


def _same(value: Any, other: Any) -> bool:
    return (list(value) if isinstance(value, tuple) else value) == (list(other) if isinstance(other, tuple) else other)
