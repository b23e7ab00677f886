"""Read a checkpoint file into a state dict."""

import argparse
import logging
import os
import re
import reprlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .convert import strip_prefix, strip_wrappers

__all__ = ["WeightsFile", "read_safetensors", "read_state_dict"]

_logger = logging.getLogger(__name__)

# Where trainers keep the weights in a checkpoint, averaged ones (EMA) first, as in timm; `ema` and `network` are those
# of this library's training script before version 0.2.
_ENTRIES = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "network")

_MAX_DEPTH = 8


@dataclass(frozen=True)
class WeightsFile:
    """The contents of a safetensors file: its metadata, and its tensors by name."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]


def read_state_dict(path: str | os.PathLike[str], entry: str | None = None) -> dict[str, Tensor]:
    """Read ``.safetensors``, or a file of ``torch.save`` without running code from it (``weights_only=True``).

    The names are those of the model itself, without prefixes of trainers and wrappers.

    Args:
        path: the file.
        entry: which of several models to read, by its key in a training checkpoint or by its prefix; None for averaged
            weights (EMA) if there are any, as in timm, else for the first known key. The choice is logged.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, damaged, or not a checkpoint, or has no such entry.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(
            f"no checkpoint at {path}, which is a folder: pass a file, or use create_model('local-dir:{path}') for a "
            "folder written by save_pretrained"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    _check_kind(path)
    if path.suffix == ".safetensors":
        return strip_prefix(strip_wrappers(read_safetensors(path).tensors), str(path), entry)
    content = _plain_dict(_load_torch(path))
    if entry is not None and isinstance(content.get(entry), dict):
        content, entry = content[entry], None
    entries = tuple(key for key, value in content.items() if isinstance(key, str) and isinstance(value, dict))
    return strip_prefix(strip_wrappers(_tensors_of(content, path, entry is None)), str(path), entry, entries)


def read_safetensors(path: Path) -> WeightsFile:
    """Read metadata and tensors.

    Raises:
        ValueError: the file is truncated or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return WeightsFile(file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}): copy or download it again") from error


def _check_kind(path: Path) -> None:
    """Refuse a file that its name or its place tells to be something else than it is."""
    with path.open("rb") as file:
        start = file.read(48)
    is_torch = start[:2] in (b"PK", b"\x80\x02")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of Git LFS in place of the file: run git lfs pull")
    if path.suffix == ".safetensors" and is_torch:
        raise ValueError(f"{path} is not a safetensors file, but one of torch.save: rename it to .pth")
    if path.suffix != ".safetensors" and not is_torch and start[8:10] == b'{"':
        raise ValueError(f"{path} is a safetensors file: rename it to .safetensors")


def _load_torch(path: Path) -> Any:
    _check_archive(path)
    try:
        # Command lines, as timm's training script keeps one beside the weights. As in timm: holds values, runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        # The unpickler may raise anything, and torch's message advises loading the file unchecked.
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it contains {code[1]}" if code else "it is damaged, or was not written by torch.save"
        raise ValueError(
            f"{path} cannot be read as a checkpoint of tensors: {reason}. If you trust the file, convert it to "
            "safetensors; a file of torch.save(model.state_dict(), ...) has tensors only"
        ) from None


def _check_archive(path: Path) -> None:
    """Refuse a compressed archive, which ``torch.save`` never writes: it may need far more memory than its size."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist())
    except (zipfile.BadZipFile, ValueError):
        # Reported by torch.
        return
    if compressed:
        raise ValueError(f"{path} cannot be read as a checkpoint of tensors: it is a compressed archive")


def _tensors_of(content: Any, path: Path, log_choice: bool) -> dict[str, Tensor]:
    """The state dict inside a checkpoint."""
    for _ in range(_MAX_DEPTH):
        content = _plain_dict(content)
        there = [name for name in _ENTRIES if isinstance(content.get(name), dict)]
        if not there:
            break
        if len(there) > 1 and log_choice:
            _logger.warning(
                "%s: loaded the entry %r; it also has %s (choose with load_checkpoint(..., entry=...))",
                path,
                there[0],
                ", ".join(map(repr, there[1:])),
            )
        content = content[there[0]]
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        entries = [reprlib.repr(key) for key, value in content.items() if isinstance(value, dict)][:10]
        hint = (
            f"; choose one of its entries with load_checkpoint(..., entry=...): {', '.join(entries)}" if entries else ""
        )
        raise ValueError(f"{path} is not a state dict: expected tensors by name{hint}")
    for key in content:
        if not isinstance(key, str):
            raise ValueError(f"{path} is not a state dict: its key {reprlib.repr(key)} is not a string")
    # Without attributes that a file may give to tensors in the place of their methods.
    return {key: Tensor.detach(value) for key, value in content.items()}


def _plain_dict(content: Any) -> dict[Any, Any]:
    """The entries of a dict, whatever attributes a file may give to it in the place of its methods."""
    return dict(dict.items(content)) if isinstance(content, dict) else {}
