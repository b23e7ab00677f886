"""Export with dynamic batch, height and width."""

import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..layers.checks import check_integer
from .folding import check_eval

__all__ = ["MIN_EXPORT_SIZE", "MIN_EXPORT_TORCH", "describe", "dimension_names", "export_program"]

MIN_EXPORT_SIZE = 61
"""Minimum height and width, in pixels, for an exported model with a PVTv2 branch.

Its first stage reduces the map by 8. Up to 60 pixels, a single position is left, and programs with dynamic shapes treat
size 1 as a special case.
"""

MIN_EXPORT_TORCH = (2, 13)
"""The first release of torch that exports max pooling for both even and odd sizes."""

# The entry of a program's metadata that torch.export.save keeps, and our entry in it.
_CUSTOM, _KEY = "custom", "mfsf2"

_PREPROCESSING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
_LABELS = ("label_names", "temperature")


def export_program(model: nn.Module, min_size: int = MIN_EXPORT_SIZE) -> ExportedProgram:
    """``torch.export`` with dynamic batch, height and width.

    The program returns what the model returns, with a plain tuple ``(logits, masks)`` for two heads, and has the
    model's names of parameters and buffers. ``torch.export.save`` writes it, and ``torch.export.load`` reads it where
    this library is not installed. What :func:`export_onnx` needs stays with it: the names of the outputs and the
    metadata, in ``program.graph_module.meta["custom"]["mfsf2"]``.

    Args:
        model: a model of this library in evaluation mode, also with ``features_only``. With two modalities, the program
            takes both, ``(image, stack)``, each with its own height and width.
        min_size: minimum height and width, at most those of ``model.example_inputs()``; the program rejects smaller
            images. Models with other backbones may need another value, which the error of ``torch.export`` names.

    Raises:
        ValueError: the model is in training mode, or ``min_size`` is too large or below one.
        TypeError: a model of another library, a compiled model, or a ``min_size`` that is not an integer.
        RuntimeError: torch is older than 2.13, which fixes the parity of the sizes to that of the example.
    """
    if not callable(getattr(model, "example_inputs", None)):
        raise TypeError(f"{type(model).__name__} is not a model of this library: use torch.export.export instead")
    check_eval(model)
    inputs: dict[str, Tensor] = model.example_inputs()  # type: ignore[operator]
    min_size = check_integer(min_size, "min_size")
    largest = min(size for x in inputs.values() for size in x.shape[-2:])
    if min_size > largest:
        raise ValueError(f"min_size={min_size} must be at most {largest}, the smallest size of the example inputs")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_EXPORT_TORCH:
        needed = ".".join(map(str, MIN_EXPORT_TORCH))
        raise RuntimeError(f"export with dynamic sizes needs torch {needed} or later; {torch.__version__} is installed")
    # One object per name: the batch is the same in both inputs.
    dims = {name: Dim(name, min=1 if name == "batch" else min_size) for key in inputs for name in dimension_names(key)}
    shapes = tuple(
        {axis % x.dim(): dims[name] for name, axis in dimension_names(key).items()} for key, x in inputs.items()
    )
    with torch.no_grad():
        program = torch.export.export(_with_plain_outputs(model), tuple(inputs.values()), dynamic_shapes=shapes)
    description = {"inputs": list(inputs), "outputs": _output_names(model), "metadata": _metadata(model)}
    # As JSON has it, so that a program is the same before and after it is saved.
    program.graph_module.meta[_CUSTOM] = {_KEY: json.loads(json.dumps(description))}
    return program


def dimension_names(name: str) -> dict[str, int]:
    """Names and axes of the dynamic dimensions of an input."""
    prefix = "" if name == "image" else f"{name}_"
    return {"batch": 0, f"{prefix}height": -2, f"{prefix}width": -1}


def describe(program: ExportedProgram) -> dict[str, Any]:
    """Inputs, outputs and metadata of a program; empty for a program that another function made."""
    description: dict[str, Any] = program.graph_module.meta.get(_CUSTOM, {}).get(_KEY, {})
    return description


def _with_plain_outputs(model: nn.Module) -> nn.Module:
    """The model with a tuple in place of a named one, whose class is unknown where this library is not installed."""
    plain = copy.copy(model)
    forward: Callable[..., Any] = model.forward

    # The inputs keep their names.
    @functools.wraps(forward)
    def plain_forward(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        return tuple(outputs) if isinstance(outputs, tuple) else outputs

    # Not a wrapper with the model inside, which would change the names of parameters.
    plain.forward = plain_forward
    return plain


def _output_names(model: Any) -> list[str]:
    if hasattr(model, "out_indices"):
        return [f"features_{index}" for index in model.out_indices]
    names = []
    if model.head is not None:
        # Another module may have taken the head's place.
        names.append("logits" if getattr(model.head, "num_classes", 0) else "features")
    if model.mask_head is not None:
        names.append("masks")
    return names or ["features"]


def _metadata(model: Any) -> dict[str, Any]:
    """What users of the program need of the model's configuration: preprocessing, license, meaning of the outputs."""
    cfg: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    keys: tuple[str, ...] = (*_PREPROCESSING, "license")
    if not any(name.startswith("features") for name in _output_names(model)):
        keys += _LABELS
    metadata = {key: cfg[key] for key in keys if cfg.get(key) is not None}
    if "input_size" in metadata:
        metadata["input_size"] = [model.in_chans, *metadata["input_size"][1:]]
    return metadata
