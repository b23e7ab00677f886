"""ONNX files as functions of a tensor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["open_onnx"]


def open_onnx(path: Path) -> Callable[[Tensor], Any]:
    """The file in ONNX Runtime, with as many threads as torch: a tensor, or a tuple of several outputs, of an image.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Any:
        outputs = [torch.from_numpy(output) for output in session.run(None, {"image": image.numpy()})]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return run
