"""The configuration of a saved model: ``config.json`` in timm's form, with a copy inside the weights' file.

A save is complete when its weights are in place, so their copy decides which configuration belongs to them:
``config.json`` is believed if it has the same save id, changes by hand included.
"""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..layers.checks import check_integer
from ..models.variants import Variant, find_variant
from .metadata import check_metadata

__all__ = ["CONFIG_NAME", "METADATA_KEY", "WEIGHTS_NAME", "Config", "dump_config", "parse_config"]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

METADATA_KEY = "mfsf2_config"
"""Entry of a safetensors file's metadata that holds the whole configuration."""

# Arguments of create_model that are not a model's own.
_NOT_SAVED = ("num_classes", "device", "dtype", "cache_dir", "pretrained_backbones")

_MAX_BYTES = 32 << 20

_MAX_FILTER_VALUES = 1 << 20
"""Values of one DCT filter bank, the only tensor of a model's that no shape in the weights' file confirms."""


@dataclass(frozen=True)
class Config:
    """A checked configuration.

    Attributes:
        variant: the model.
        args: arguments of :func:`create_model`, with ``num_classes``.
        cfg: the pretrained configuration, in timm's form.
        save_id: of the save that wrote it; None if unknown.
        sha256: of the weights; None if unknown.
        source: its name in messages.
    """

    variant: Variant
    args: dict[str, Any]
    cfg: dict[str, Any]
    save_id: str | None
    sha256: str | None
    source: str


def parse_config(text: str | bytes, source: str) -> Config:
    """Read and check a configuration.

    Raises:
        ValueError: not a configuration of this library's models; names ``source`` and what is wrong.
    """
    try:
        content = _parse(text)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{source} is not a configuration in timm's form ({type(error).__name__}: {error}): expected JSON with "
            "'architecture' and 'pretrained_cfg'"
        ) from error
    try:
        return _check(content, source)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from error


def dump_config(config: Mapping[str, Any], indent: int | None = None) -> str:
    """A configuration as JSON.

    Raises:
        TypeError, ValueError: names the entry that JSON cannot hold: NaN, infinity, or an object.
    """
    return json.dumps(_plain(config, ""), indent=indent, allow_nan=False)


def _parse(text: str | bytes) -> dict[str, Any]:
    if len(text) > _MAX_BYTES:
        raise ValueError(f"{len(text)} bytes, more than {_MAX_BYTES}")
    content = json.loads(text, parse_constant=_refuse_constant)
    for key, kind in (("architecture", str), ("pretrained_cfg", dict)):
        if not isinstance(content[key], kind):
            raise TypeError(f"{key} is {_short(content[key])}")
    if not isinstance(content.get("model_args", {}), dict):
        raise TypeError(f"model_args is {_short(content['model_args'])}")
    return dict(content)


def _check(content: dict[str, Any], source: str) -> Config:
    variant = find_variant(content["architecture"])
    cfg = {**variant.cfg, **content["pretrained_cfg"], "architecture": variant.name}
    for key in ("num_classes", "label_names"):
        if key in content:
            cfg[key] = content[key]
    args = dict(content.get("model_args", {}))
    for name in _NOT_SAVED:
        if name in args:
            raise ValueError(f"model_args must not have {name!r}")
    num_classes = check_integer(cfg["num_classes"], "num_classes", 0)
    args["num_classes"] = num_classes
    variant.class_args(args)
    _check_filters(args)
    check_metadata(cfg, num_classes, check_integer(args.get("in_chans", 3), "in_chans"))
    for key in ("save_id", "sha256"):
        if not isinstance(content.get(key, cfg.get(key, "")), str):
            raise TypeError(f"{key} is not a string")
    return Config(
        variant, args, cfg, content.get("save_id"), content.get("sha256") or cfg.get("sha256") or None, source
    )


def _check_filters(args: Mapping[str, Any]) -> None:
    """Refuse DCT filters that only fill the memory."""
    frequencies = args.get("frequencies", "top")
    if not isinstance(frequencies, Sequence):
        raise TypeError(f"frequencies is {_short(frequencies)}")
    number = 32 if isinstance(frequencies, str) else len(frequencies)
    size = check_integer(args.get("grid_size", 7), "grid_size")
    if number * size**2 > _MAX_FILTER_VALUES:
        raise ValueError(
            f"{number} frequencies on a grid of {size}x{size}: the filters have more than {_MAX_FILTER_VALUES} values"
        )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has the value {name}")


def _plain(value: Any, path: str) -> Any:
    """The same value of types that JSON can hold; ``path`` names it in errors."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path or CONFIG_NAME} has the key {key!r}: {CONFIG_NAME} can hold strings only")
        return {key: _plain(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, (str, int, float, type(None))) and callable(getattr(value, "item", None)):
        # A scalar of NumPy's or torch's; those with several values are refused below.
        with contextlib.suppress(ValueError, RuntimeError):
            value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}={value} cannot be saved in {CONFIG_NAME}: use a finite number")
    if not isinstance(value, (str, int, float, type(None))):
        raise TypeError(f"{path}={value!r} cannot be saved in {CONFIG_NAME}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
