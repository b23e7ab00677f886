"""Take a trained network elsewhere: fold its batch norms, export it with dynamic sizes, write ONNX."""

import copy
import os
from pathlib import Path
from typing import TypeVar

import torch
import torch.fx
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .layers.checks import check_integer
from .layers.conv import ConcatConv2d, ConcatConvBnAct, ConvBnAct

__all__ = ["MIN_EXPORT_SIZE", "MIN_EXPORT_TORCH", "export_onnx", "export_program", "fold_batch_norm"]

MIN_EXPORT_SIZE = 61
"""Smallest height and width, in pixels, of an exported network with a PVTv2 branch.

Its first stage reduces the map by 8; up to 60 pixels one position is left, a size that programs with dynamic shapes
treat as a case of its own.
"""

MIN_EXPORT_TORCH = (2, 13)
"""Release of torch from which max pooling exports with heights and widths of any parity."""

_Network = TypeVar("_Network", bound=nn.Module)


def fold_batch_norm(model: _Network) -> _Network:
    """Copy of a network with every batch norm folded into the convolution or linear layer before it.

    The copy computes the same in evaluation mode, with fewer operations. It is for inference only.

    Raises:
        ValueError: the network is in training mode.
        TypeError: no network.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{type(model).__name__} is no network: give a torch.nn.Module in evaluation mode")
    _check_eval(model)
    folded = copy.deepcopy(model)
    modules = dict(folded.named_modules())
    units = (ConvBnAct, ConcatConvBnAct)
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
        model: a network of this library in evaluation mode, or what ``features_only`` returns. Of a network of two
            modalities the program takes both, ``(image, stack)``, each with a height and width of its own.
        min_size: smallest height and width that the program is to take; it refuses smaller images. Networks of other
            backbones may need another value, which the error of ``torch.export`` then names.

    Raises:
        ValueError: the network is in training mode, or ``min_size`` is less than 1.
        TypeError: a model of another library, or a ``min_size`` that is no integer.
        RuntimeError: torch is older than 2.13, which ties the sizes to the example's parity.
    """
    if not callable(getattr(model, "example_inputs", None)):
        raise TypeError(f"{type(model).__name__} is no network of this library: use torch.export.export on it")
    _check_eval(model)
    check_integer(min_size, "min_size")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_EXPORT_TORCH:
        needed = ".".join(map(str, MIN_EXPORT_TORCH))
        raise RuntimeError(f"export with dynamic sizes needs torch {needed} or later, installed is {torch.__version__}")
    inputs: dict[str, Tensor] = model.example_inputs()  # type: ignore[operator]
    batch = Dim("batch", min=1)
    sizes = tuple(
        {0: batch, x.dim() - 2: Dim(f"{name}_height", min=min_size), x.dim() - 1: Dim(f"{name}_width", min=min_size)}
        for name, x in inputs.items()
    )
    with torch.no_grad():
        return torch.export.export(model, tuple(inputs.values()), dynamic_shapes=sizes)


def export_onnx(program: ExportedProgram, path: str | os.PathLike[str]) -> None:
    """Write an exported program as ONNX; batch, height and width stay dynamic. The extra ``mfsf2[onnx]`` is needed.

    Its inputs are called ``image`` and, of a network of two modalities, ``stack``; its output is called ``output``, or
    by the names of the network's named tuple (``logits``, ``masks``). ONNX runtimes do not check sizes: keep to the
    program's minimum.

    Raises:
        ImportError: the extra is not installed.
        TypeError: no exported program, for example the network itself.
    """
    if not isinstance(program, ExportedProgram):
        raise TypeError(f"program is a {type(program).__name__}: give what export_program(model) returns")
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
        raise ValueError("the network is in training mode: call model.eval() first")
