"""Read a checkpoint file into a state dict."""

import os
import pickle
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
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint of tensors ({error}): it is damaged or holds more; convert "
            "it to safetensors where you trust it"
        ) from error
    if isinstance(content, dict):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} does not hold a state dict: expected tensors by name")
    return content
