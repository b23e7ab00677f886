"""Compilation, export and ONNX of a model as people use it; the gate runs the same tests on micro ones."""

from pathlib import Path

import test_export

NAME = "mfsf2_tiny_clsseg"


def test_compile_to_one_graph() -> None:
    test_export.test_compile_to_one_graph(NAME)


def test_compile_training_step() -> None:
    test_export.test_compile_training_step(NAME)


def test_export_and_onnx(tmp_path: Path) -> None:
    test_export.test_export_and_onnx(NAME, tmp_path)
