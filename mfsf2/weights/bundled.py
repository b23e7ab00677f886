"""Weights in the package: one folder per tag, written by ``examples/research/release.py``.

The file of a model with both heads also serves the models with one.
"""

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from ..models.variants import VARIANTS
from .config import CONFIG_NAME, WEIGHTS_NAME
from .files import sha256_of
from .read import read_safetensors

__all__ = ["bundled_cfg", "bundled_names", "is_bundled", "read_bundled"]

_FOLDERS = {"ham10000": Path(__file__).parent / "ham10000"}

# Entries about the model that the file was saved from; a model for another task has its own.
_MODEL_KEYS = ("num_classes", "classifier")


def bundled_cfg(tag: str) -> dict[str, Any]:
    """What a tag's configuration adds to that of a model; empty for a tag that is not in the package."""
    folder = _FOLDERS.get(tag)
    if folder is None:
        return {}
    config = _read_config(folder)
    cfg = {key: value for key, value in config["pretrained_cfg"].items() if key not in _MODEL_KEYS}
    return {
        **cfg,
        "label_names": config["label_names"],
        "sha256": config["sha256"],
        "file": str(folder / WEIGHTS_NAME),
    }


def read_bundled(path: Path, foreign_heads: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a file in the package, except heads this model lacks.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not the one that its configuration describes.
    """
    expected = _read_config(path.parent)["sha256"]
    _check_sha256(path, expected, _status(path).st_mtime_ns)
    prefixes = tuple(f"{head}." for head in foreign_heads)
    return {key: value for key, value in read_safetensors(path).tensors.items() if not key.startswith(prefixes)}


def bundled_names() -> list[str]:
    """Names of the models with weights in the package, each with its tag."""
    return [f"{name}.{tag}" for name, variant in VARIANTS.items() for tag in variant.tags if tag in _FOLDERS]


def is_bundled(path: Path) -> bool:
    """Whether a file is in the package."""
    return path.parent in _FOLDERS.values()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    _status(path)
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): reinstall the package") from error
    return config


@cache
def _check_sha256(path: Path, expected: str, mtime_ns: int) -> None:
    """Refuse a damaged file; a file that has passed is not read again unless it has changed since."""
    found = sha256_of(path)
    if found != expected:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is {found}, its configuration says {expected}; reinstall the package"
        )


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: reinstall the package") from error
