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

    Training checkpoints that keep the weights under ``state_dict``, ``model_state_dict`` or ``model`` are unwrapped,
    and the prefix ``module.`` of data-parallel training is removed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or not a checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(
            f"no checkpoint at {path}, it is a folder: give a file, or create_model the name 'local-dir:{path}' for "
            "what save_pretrained wrote"
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
        # Any bytes are instructions to the unpickler, with any error; torch's own advice is to run them unchecked.
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it holds {code[1]}" if code else "it is damaged, or not a file of torch.save"
        raise ValueError(
            f"{path} cannot be read as a checkpoint of tensors: {reason}. A file that you trust can be converted to "
            "safetensors"
        ) from None
    if isinstance(content, dict):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} does not hold a state dict: expected tensors by name")
    return content
