"""Deployment: fold batch norms, export with dynamic sizes, write ONNX."""

from .export import MIN_EXPORT_SIZE, MIN_EXPORT_TORCH, export_program
from .folding import fold_batch_norm
from .onnx import MAX_OPSET, MIN_OPSET, export_onnx

__all__ = [
    "MAX_OPSET",
    "MIN_EXPORT_SIZE",
    "MIN_EXPORT_TORCH",
    "MIN_OPSET",
    "export_onnx",
    "export_program",
    "fold_batch_norm",
]
