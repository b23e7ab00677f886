"""quantize.py on a micro network and synthetic data: its files are what it says they are."""

import json
from pathlib import Path

import micro
import onnx
import pytest
import quantize
import torch
from onnxruntime.quantization.quant_utils import QuantType
from readers import make_split, read_dataset, save_split

import mfsf2


@pytest.mark.parametrize("name", ["calibration", "rounds"])
def test_numbers(name: str, tmp_path: Path) -> None:
    command = ["--checkpoint=a", "--data=kvasir", "--folder=b", "--split=c", f"--out={tmp_path}", f"--{name}=0"]
    with pytest.raises(SystemExit, match=f"{name}=0 must be at least 1"):
        quantize.main(command)


@pytest.mark.compile
def test_quantize(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = read_dataset("ham10000", folders["ham10000"], masks=True)
    parts = make_split(dataset)
    save_split(tmp_path / "split.json", dataset, parts)
    model = micro.build("clsseg")
    model.pretrained_cfg["input_size"] = (3, 64, 96)
    mfsf2.save_pretrained(model, tmp_path / "model")
    out = tmp_path / "int8"
    command = {"checkpoint": tmp_path / "model", "data": "ham10000", "folder": folders["ham10000"]}
    command |= {"split": tmp_path / "split.json", "out": out, "calibration": 4, "rounds": 2}
    results = quantize.main([f"--{key}={value}" for key, value in command.items()])
    assert results == json.loads((out / "results.json").read_text())
    assert results["images"] == len(parts["test"])
    assert {path.name for path in out.iterdir()} == {"float32.onnx", "dynamic.onnx", "static.onnx", "results.json"}
    kinds = {name: [node.op_type for node in onnx.load(out / f"{name}.onnx").graph.node] for name in list(results)[1:]}
    assert "Conv" in kinds["float32"] and "QuantizeLinear" not in kinds["float32"]
    assert "DynamicQuantizeLinear" in kinds["dynamic"] and "ConvInteger" not in kinds["dynamic"]
    assert kinds["static"].count("QuantizeLinear") > kinds["static"].count("Conv") > 0

    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
    outputs = {name: quantize.Session(out / f"{name}.onnx", model)(x) for name in kinds}
    for part in (0, 1):
        torch.testing.assert_close(outputs["float32"][part], expected[part], atol=1e-4, rtol=0)
        for name in ("dynamic", "static"):
            # Quantized, and still about the same.
            error = (outputs[name][part] - expected[part]).abs().max()
            assert 0 < error < 0.5 * expected[part].std() + 0.05, (name, part, error)
    assert capsys.readouterr().out.count("dice") == 3
    weights = {tensor.data_type for tensor in onnx.load(out / "static.onnx").graph.initializer}
    assert QuantType.QInt8.tensor_type in weights
