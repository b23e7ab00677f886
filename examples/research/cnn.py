"""Trained weights of the CNN branch alone."""

from typing import Any

from datasets import DataError
from torch import nn

__all__ = ["load_cnn"]


def load_cnn(model: Any, path: str) -> None:
    """Start the CNN branch from a safetensors file of timm's keys; it may be partial.

    timm starts the last norm of a block at 0, so that a fresh block is its shortcut; fresh blocks on trained ones would
    then hardly be seen by the heads, so these norms start at 1.

    Raises:
        DataError: no such file, or none of its keys fits.
    """
    from safetensors.torch import load_file

    try:
        state = load_file(path)
        result = model.encoder.cnn.load_state_dict(state, strict=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"CNN weights {path}: {error}") from error
    if len(result.unexpected_keys) == len(state):
        raise DataError(f"CNN weights {path}: none of its {len(state)} keys is one of the CNN branch")
    for name, parameter in model.encoder.cnn.named_parameters():
        if name in result.missing_keys and parameter.ndim == 1 and name.endswith((".bn2.weight", ".bn3.weight")):
            nn.init.ones_(parameter)
    print(f"CNN branch: {len(state)} tensors from {path}, {len(result.missing_keys)} start afresh", flush=True)
