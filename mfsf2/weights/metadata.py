"""Checks of a pretrained configuration's entries, the same when it is written and when it is read."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..layers.checks import check_integer

__all__ = ["NAME_KEYS", "check_label_names", "check_metadata"]

NAME_KEYS = ("label_names", "label_descriptions")
"""Entries that describe the classes."""

_MAX_SIZE = 65_536
"""Largest height or width of an image, in pixels, that a configuration may name."""

_MAX_NUMBER = 1e9
"""Limit of mean, std, temperature and the like."""

_SIZES = {"input_size": 3, "test_input_size": 3, "min_input_size": 3, "pool_size": 2, "test_pool_size": 2}


def check_metadata(cfg: Mapping[str, Any], num_classes: int, in_chans: int) -> None:
    """Check what a pretrained configuration says of its model's classes and images.

    Args:
        cfg: entries in timm's form; absent ones and None are not checked.
        num_classes: classes of the model.
        in_chans: channels of its image.

    Raises:
        TypeError, ValueError: names the entry, its value and what is allowed.
    """
    cfg = {key: value for key, value in cfg.items() if value is not None}
    if "label_names" in cfg:
        check_label_names(cfg["label_names"], num_classes)
    if "label_descriptions" in cfg:
        _check_descriptions(cfg["label_descriptions"])
    for key in ("mean", "std"):
        if key in cfg:
            _check_statistics(cfg[key], key, in_chans)
    for key, length in _SIZES.items():
        if key in cfg:
            _check_size(cfg[key], key, length)
    if "input_size" in cfg and cfg["input_size"][0] != in_chans:
        raise ValueError(f"input_size={list(cfg['input_size'])} has {cfg['input_size'][0]} channels, not {in_chans}")
    for key in ("temperature", "crop_pct"):
        if key in cfg and not (_is_number(cfg[key]) and cfg[key] > 0):
            raise ValueError(f"{key}={cfg[key]!r} must be a positive number")
    for key in ("crop_mode", "interpolation", "license", "description"):
        if key in cfg and not isinstance(cfg[key], str):
            raise TypeError(f"{key}={cfg[key]!r} must be a string")
    for key in ("metrics", "training"):
        if key in cfg and not isinstance(cfg[key], Mapping):
            raise TypeError(f"{key}={cfg[key]!r} must be a mapping from name to value")
    for key in ("trained_on", "chosen_on"):
        if key in cfg:
            _check_strings(cfg[key], key)


def check_label_names(label_names: Any, num_classes: int) -> None:
    """Check that there is a name for every class, and no name twice."""
    _check_strings(label_names, "label_names", " in the order of the classes")
    seen: set[str] = set()
    for name in label_names:
        if not name.strip():
            raise ValueError(f"label_names has the empty name {name!r}: every class needs a name")
        if name in seen:
            raise ValueError(f"label_names has {name!r} twice: every class needs its own name")
        seen.add(name)
    if len(label_names) != num_classes:
        names = "1 name" if len(label_names) == 1 else f"{len(label_names)} names"
        raise ValueError(f"label_names has {names}, but the model has {num_classes} classes")


def _check_strings(values: Any, key: str, note: str = "") -> None:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{key} must be a list of strings{note}, got {type(values)}: {values!r}")
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f"{key} must be a list of strings, got {value!r} at position {index}")


def _check_descriptions(descriptions: Any) -> None:
    if not isinstance(descriptions, Mapping):
        raise TypeError(f"label_descriptions must be a mapping from name to description, got {type(descriptions)}")
    _check_strings([*descriptions, *descriptions.values()], "label_descriptions")


def _check_statistics(values: Any, key: str, in_chans: int) -> None:
    """Mean or std: one for all channels, one each, or those of RGB images, as other channels had in version 0.1."""
    if not isinstance(values, Sequence) or not all(_is_number(value) for value in values):
        raise ValueError(f"{key}={values!r} must be a list of finite numbers")
    if len(values) not in (1, 3, in_chans):
        raise ValueError(f"{key}={list(values)} has {len(values)} numbers, expected {in_chans}, one for each channel")
    if key == "std" and min(values) <= 0:
        raise ValueError(f"std={list(values)} must be positive")


def _check_size(size: Any, key: str, length: int) -> None:
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != length:
        raise ValueError(f"{key}={size!r} must be a list of {length} integers")
    for value in size:
        check_integer(value, key)
    if max(size) > _MAX_SIZE:
        raise ValueError(f"{key}={list(size)} is larger than {_MAX_SIZE}")


def _is_number(value: Any) -> bool:
    # NaN is below nothing.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER
