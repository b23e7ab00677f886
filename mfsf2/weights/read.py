"""Read a checkpoint file into a state dict."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_state_dict"]

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read ``.safetensors``, or a file of ``torch.save`` without running code from it (``weights_only=True``).

    Training checkpoints with the weights under ``state_dict``, ``model_state_dict`` or ``model`` are unwrapped, and the
    prefix ``module.`` of data-parallel training is removed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, damaged, or not a checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(
            f"no checkpoint at {path}, which is a folder: pass a file, or use create_model('local-dir:{path}') for a "
            "folder written by save_pretrained"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    prefix = "module."
    if state and all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}): copy or download it again") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        # The unpickler may raise anything, and torch's message advises loading the file unchecked.
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it contains {code[1]}" if code else "it is damaged, or was not written by torch.save"
        raise ValueError(
            f"{path} cannot be read as a checkpoint of tensors: {reason}. If you trust the file, convert it to "
            "safetensors"
        ) from None
    if isinstance(content, dict):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} is not a state dict: expected tensors by name")
    return content
