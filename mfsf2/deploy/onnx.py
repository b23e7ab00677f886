"""Write exported programs as ONNX."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ..layers.checks import check_integer
from .export import describe, dimension_names

__all__ = ["MAX_OPSET", "MIN_OPSET", "export_onnx"]

MIN_OPSET = 18
"""The version of the operators that torch writes; it converts to higher ones."""

MAX_OPSET = 23
"""The highest version of the operators that torch says it supports."""


def export_onnx(
    program: ExportedProgram,
    path: str | os.PathLike[str],
    sizes: Mapping[str, int] | None = None,
    opset: int | None = None,
) -> None:
    """Write an exported program as ONNX. It needs the extra ``mfsf2[onnx]``.

    The inputs are called ``image`` and, with two modalities, ``stack``. The outputs are called ``logits`` and
    ``masks``, or ``features`` for a model without a classifier, or ``features_0``, ``features_1``, ... with
    ``features_only``, numbered as in ``out_indices``. The dynamic dimensions are called ``batch``, ``height`` and
    ``width``, those of the stack ``stack_height`` and ``stack_width``.

    The file's metadata (``metadata_props``, JSON values) says what the model's ``pretrained_cfg`` says of
    ``input_size``, ``mean``, ``std``, ``interpolation``, ``crop_pct``, ``crop_mode``, ``license``, and of predictions
    ``label_names`` and ``temperature``.

    The file checks no sizes: ONNX Runtime takes images below the program's minimum, down to that of eager mode, and
    fails below that.

    Names and metadata are part of a program of :func:`export_program`, also after ``torch.export.save`` and ``load``.
    A program of ``torch.export.export`` has none: torch chooses the names.

    Args:
        program: the program.
        path: the file, in a folder that exists. If anything fails, an old file stays as it is.
        sizes: fixed values for some or all dynamic dimensions, for example ``{"batch": 1, "height": 224,
            "width": 224}``. Everything that depends on them alone is computed now.
        opset: version of the ONNX operators, from 18 to 23; None for torch's default.

    Raises:
        ImportError: the extra is not installed.
        TypeError: not an exported program, for example the model itself, or a number that is not an integer.
        ValueError: an unknown dimension, a size below the program's minimum, or an unsupported opset.
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
    """
    if not isinstance(program, ExportedProgram):
        raise TypeError(f"program is a {type(program).__name__}: pass the result of export_program(model)")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder {str(path.parent)!r} does not exist: create it first")
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: pass the path of a file, for example model.onnx")
    if not isinstance(sizes, Mapping | None):
        raise TypeError(f'sizes={sizes!r}: pass values by dimension, for example {{"batch": 1, "height": 224}}')
    symbols = _symbols(program)
    fixed = _check_sizes(program, symbols, dict(sizes or {}))
    if opset is not None and check_integer(opset, "opset", MIN_OPSET) > MAX_OPSET:
        raise ValueError(f"opset={opset} must be at most {MAX_OPSET}")
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("ONNX export needs onnx and onnxscript: pip install 'mfsf2[onnx]'") from error
    description = describe(program)
    onnx_program = torch.onnx.export(
        program,
        dynamo=True,
        input_names=description.get("inputs"),
        output_names=description.get("outputs"),
        opset_version=opset,
        verbose=False,
    )
    if onnx_program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = onnx_program.model
    written = model.opset_imports[""]
    if opset not in (None, written):
        raise ValueError(f"torch cannot write this program with opset={opset}: leave it out for opset {written}")
    _name_dimensions(model, {str(symbol): name for name, symbol in symbols.items()})
    if fixed:
        _fix_dimensions(model, program, {symbols[name]: size for name, size in fixed.items()})
    model.metadata_props.update({key: json.dumps(value) for key, value in description.get("metadata", {}).items()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        onnx_program.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _symbols(program: ExportedProgram) -> dict[str, Any]:
    """Torch's symbols, such as s77, of the dynamic dimensions by name."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    return {
        dimension: values[key].shape[axis].node.expr
        for name, key in zip(describe(program).get("inputs", ()), program.graph_signature.user_inputs)
        for dimension, axis in dimension_names(name).items()
    }


def _check_sizes(program: ExportedProgram, symbols: dict[str, Any], sizes: dict[str, int]) -> dict[str, int]:
    """The sizes as Python integers."""
    for name in sizes:
        if name not in symbols:
            known = ", ".join(symbols) or "none, because export_program did not make it"
            raise ValueError(f"sizes has {name!r}, which is not a dynamic dimension of this program: {known}")
    return {
        name: check_integer(size, f"sizes[{name!r}]", int(program.range_constraints[symbols[name]].lower))
        for name, size in sizes.items()
    }


def _name_dimensions(model: Any, names: dict[str, str]) -> None:
    """Replace torch's symbols by names in all shapes, also within expressions."""
    if not names:
        return
    pattern = re.compile(rf"\b({'|'.join(names)})\b")
    for value in _values(model):
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                value.shape[axis] = pattern.sub(lambda match: names[match[0]], size.value)


def _fix_dimensions(model: Any, program: ExportedProgram, sizes: dict[Any, int]) -> None:
    """Give symbols fixed values, and compute what depends on them alone."""
    from onnxscript import optimizer

    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    signature = program.graph_signature

    def fix(keys: Sequence[Any], graph_values: Sequence[Any]) -> None:
        for key, value in zip(keys, graph_values):
            for axis, size in enumerate(values[key].shape):
                known = size if isinstance(size, int) else size.node.expr.subs(sizes)
                if isinstance(known, int) or known.is_number:
                    value.shape[axis] = int(known)

    fix(signature.user_inputs, model.graph.inputs)
    fix(signature.user_outputs, model.graph.outputs)
    for value in _values(model):
        if value not in [*model.graph.inputs, *model.graph.outputs]:
            # The optimizer infers shapes only where there are none.
            value.shape = None
    optimizer.optimize(model)


def _values(model: Any) -> list[Any]:
    """The values of a graph that have shapes."""
    return [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
