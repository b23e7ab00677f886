"""Deployment: fold batch norms, export with dynamic sizes, write ONNX."""

import copy
import os
from pathlib import Path
from typing import TypeVar

import torch
import torch.fx
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .layers.conv import ConcatConv2d, ConcatConvNormAct, ConvNormAct

__all__ = ["MIN_EXPORT_SIZE", "MIN_EXPORT_TORCH", "export_onnx", "export_program", "fold_batch_norm"]

MIN_EXPORT_SIZE = 61
"""Minimum height and width, in pixels, for an exported model with a PVTv2 branch.

Its first stage reduces the map by 8. Up to 60 pixels, a single position is left, and programs with dynamic shapes treat
size 1 as a special case.
"""

MIN_EXPORT_TORCH = (2, 13)
"""The first release of torch that exports max pooling for both even and odd sizes."""

_Model = TypeVar("_Model", bound=nn.Module)


def fold_batch_norm(model: _Model) -> _Model:
    """Copy a model with every batch norm folded into the convolution or linear layer before it.

    The copy gives the same outputs with fewer operations. It is for inference only.

    Raises:
        ValueError: the model is in training mode.
    """
    _check_eval(model)
    folded = copy.deepcopy(model)
    modules = dict(folded.named_modules())
    units = (ConvNormAct, ConcatConvNormAct)
    pairs = {(f"{name}.conv", f"{name}.bn") for name, module in modules.items() if isinstance(module, units)}
    for node in torch.fx.symbolic_trace(folded).graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(before, torch.fx.Node) and before.op == "call_module" and len(before.users) == 1:
            pairs.add((str(before.target), str(node.target)))
    for first, norm in sorted(pairs):
        layer, bn = modules[first], modules[norm]
        if isinstance(layer, (nn.Conv2d, ConcatConv2d)) and isinstance(bn, nn.BatchNorm2d):
            folded.set_submodule(first, fuse_conv_bn_eval(layer, bn))  # type: ignore[type-var]
        elif isinstance(layer, nn.Linear) and isinstance(bn, nn.BatchNorm1d):
            folded.set_submodule(first, fuse_linear_bn_eval(layer, bn))
        else:
            continue
        folded.set_submodule(norm, nn.Identity())
    return folded


def export_program(model: nn.Module, min_size: int = MIN_EXPORT_SIZE) -> ExportedProgram:
    """``torch.export`` with dynamic batch, height and width.

    Args:
        model: a model of this library in evaluation mode, also with ``features_only``. With two modalities, the program
            takes both, ``(image, stack)``, each with its own height and width.
        min_size: minimum height and width; the program rejects smaller images. Models with other backbones may need
            another value, which the error of ``torch.export`` names.

    Raises:
        ValueError: the model is in training mode.
        TypeError: a model of another library.
        RuntimeError: torch is older than 2.13, which fixes the parity of the sizes to that of the example.
    """
    if not callable(getattr(model, "example_inputs", None)):
        raise TypeError(f"{type(model).__name__} is not a model of this library: use torch.export.export instead")
    _check_eval(model)
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_EXPORT_TORCH:
        needed = ".".join(map(str, MIN_EXPORT_TORCH))
        raise RuntimeError(f"export with dynamic sizes needs torch {needed} or later; {torch.__version__} is installed")
    inputs: dict[str, Tensor] = model.example_inputs()  # type: ignore[operator]
    batch = Dim("batch", min=1)
    sizes = tuple(
        {0: batch, x.dim() - 2: Dim(f"{name}_height", min=min_size), x.dim() - 1: Dim(f"{name}_width", min=min_size)}
        for name, x in inputs.items()
    )
    with torch.no_grad():
        return torch.export.export(model, tuple(inputs.values()), dynamic_shapes=sizes)


def export_onnx(program: ExportedProgram, path: str | os.PathLike[str]) -> None:
    """Write an exported program as ONNX, with dynamic batch, height and width. It needs the extra ``mfsf2[onnx]``.

    The inputs are called ``image`` and, with two modalities, ``stack``. The output is called ``output``; a model with
    two heads has ``logits`` and ``masks``. ONNX runtimes do not check sizes, so do not go below the program's minimum.

    Raises:
        ImportError: the extra is not installed.
        TypeError: not an exported program, for example the model itself.
    """
    if not isinstance(program, ExportedProgram):
        raise TypeError(f"program is a {type(program).__name__}: pass the result of export_program(model)")
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("ONNX export needs onnx and onnxscript: pip install 'mfsf2[onnx]'") from error
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    inputs, outputs = _names(program)
    onnx_program = torch.onnx.export(program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
    if onnx_program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    try:
        onnx_program.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _names(program: ExportedProgram) -> tuple[list[str], list[str]]:
    """Names of a program's inputs and outputs for ONNX."""
    inputs, outputs = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    fields = list(getattr(program.call_spec.out_spec.context, "_fields", ()))
    names = (
        fields or ["output"] if len(outputs) == max(1, len(fields)) else [f"output_{i}" for i in range(len(outputs))]
    )
    return ["image", "stack"][: len(inputs)], names


def _check_eval(model: nn.Module) -> None:
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
