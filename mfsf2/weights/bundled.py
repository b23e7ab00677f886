"""Weights that come with the package: a folder a tag, as ``examples/release.py`` writes it.

One file of a network of classes and masks serves the networks of each alone too.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from .read import read_state_dict
from .save import CONFIG_NAME, WEIGHTS_NAME

__all__ = ["bundled_cfg", "is_bundled", "read_bundled"]

_FOLDERS = {"ham10000": Path(__file__).parent / "ham10000"}

# What the configuration says of the network that the file was saved from; that of another task has its own.
_NETWORK_KEYS = ("num_classes", "classifier")


def bundled_cfg(tag: str) -> dict[str, Any]:
    """What a tag's configuration adds to that of a network; empty for a tag that does not come with the package."""
    folder = _FOLDERS.get(tag)
    if folder is None:
        return {}
    config = _read_config(folder)
    cfg = {key: value for key, value in config["pretrained_cfg"].items() if key not in _NETWORK_KEYS}
    return {**cfg, "label_names": config["label_names"], "file": str(folder / WEIGHTS_NAME)}


def read_bundled(path: Path, foreign_heads: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a file that comes with the package, in single precision, but for the heads that a network has not.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not the one that its configuration was written for.
    """
    _check_sha256(path, _read_config(path.parent)["pretrained_cfg"]["sha256"])
    prefixes = tuple(f"{head}." for head in foreign_heads)
    state = {key: value for key, value in read_state_dict(path).items() if not key.startswith(prefixes)}
    # Before anything is computed with them: stems adapted to other channels are sums of the stored numbers.
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def is_bundled(path: Path) -> bool:
    """Whether a file comes with the package."""
    return path.parent in _FOLDERS.values()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    content = _read_bytes(path)
    try:
        config: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): install the package again") from error
    return config


def _check_sha256(path: Path, expected: str) -> None:
    found = hashlib.sha256(_read_bytes(path)).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is {found}, its configuration says {expected}; install the package again"
        )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: install the package again") from error
