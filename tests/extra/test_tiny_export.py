"""Compilation, export and ONNX of a model as people use it; the gate runs the same tests on a few micro ones."""

from pathlib import Path

import pytest
import test_export

NAME = "mfsf2_tiny_clsseg"


@pytest.mark.parametrize("name", [NAME, "clsseg", "rcm_cls", "rcm_seg"])
def test_compile_to_one_graph(name: str) -> None:
    test_export.test_compile_to_one_graph(name)


def test_compile_training_step() -> None:
    test_export.test_compile_training_step(NAME)


def test_export_and_onnx(tmp_path: Path) -> None:
    test_export.test_export_and_onnx(NAME, tmp_path)
