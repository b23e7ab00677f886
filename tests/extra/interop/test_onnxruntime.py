"""ONNX Runtime in a process that cannot import torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mfsf2
from mfsf2.deploy import export_onnx, export_program

INFER = """
import sys

sys.modules["torch"] = sys.modules["timm"] = sys.modules["mfsf2"] = None
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
for index in range(2):
    outputs = session.run(None, {session.get_inputs()[0].name: np.load(f"input{index}.npy")})
    np.savez(f"output{index}.npz", *outputs)
"""


@torch.no_grad()
def test_process_without_torch(tmp_path: Path) -> None:
    model: Any = mfsf2.create_model("mfsf2_tiny_clsseg", pretrained=True).eval()
    export_onnx(export_program(model), tmp_path / "model.onnx")
    inputs = [torch.randn(1, 3, 128, 128), torch.randn(3, 3, 96, 160)]
    for index, x in enumerate(inputs):
        np.save(tmp_path / f"input{index}.npy", x.numpy())
    subprocess.run([sys.executable, "-c", INFER], cwd=tmp_path, check=True)
    for index, x in enumerate(inputs):
        for got, expected in zip(np.load(tmp_path / f"output{index}.npz").values(), model(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-4, atol=1e-4)
