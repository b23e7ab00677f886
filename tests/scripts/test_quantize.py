"""quantize.py on a micro model and synthetic data: its files are what it says they are."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import onnx
import pytest
import quantize
import torch
from datasets import Data, Dataset, make_split, read_dataset, split_text
from datasets.records import Sample
from files import LIST
from inference import Prediction
from metrics import auc
from onnxruntime.quantization.quant_utils import QuantType

import mfsf2

GIVEN = ["--checkpoint=a", "--data.name=kvasir", "--data.folder=b", "--split_file=c"]


@pytest.mark.parametrize("name", ["calibration", "rounds"])
def test_numbers(name: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"{name}=0 must be at least 1"):
        quantize.main([*GIVEN, f"--out={tmp_path}", f"--{name}=0"])


def write_split(path: Path, dataset: Dataset, **changed: Any) -> dict[str, list[Sample]]:
    splits = {**make_split(dataset), **changed}
    path.write_text(split_text(dataset, splits))
    return splits


def test_errors(folders: dict[str, Path], tmp_path: Path) -> None:
    ham = folders["ham10000"]
    for task in ("seg", "rcm_cls"):
        mfsf2.save_pretrained(micro.build(task), tmp_path / task)
    dataset = read_dataset(
        Data(
            "ham10000",
            str(ham),
        ),
        masks=True,
    )
    write_split(tmp_path / "no_test.json", dataset, test=[])
    write_split(tmp_path / "no_train.json", dataset, train=[])
    out = tmp_path / "out"
    given = [f"--checkpoint={tmp_path / 'seg'}", "--data.name=ham10000", f"--data.folder={ham}", f"--out={out}"]
    for message, split, more in [
        ("mfsf2_rcm_cls takes two modalities", "no_test", [f"--checkpoint={tmp_path / 'rcm_cls'}"]),
        ("no image in test", "no_test", []),
        ("no image in train", "no_train", []),
        ("no such split file", "absent", []),
        ("checkpoint absent", "no_test", ["--checkpoint=absent"]),
        ("isic2019 has no masks", "no_test", ["--data.name=isic2019", f"--data.folder={folders['isic2019']}"]),
    ]:
        with pytest.raises(SystemExit, match=message):
            quantize.main([*given, f"--split_file={tmp_path / split}.json", *more])
        assert not out.exists()
    out.mkdir()
    (out / "static.onnx").write_text("mine")
    with pytest.raises(SystemExit, match=r"static\.onnx: there already and not written by this script"):
        quantize.main([*given, f"--split_file={tmp_path / 'no_test.json'}"])
    assert [path.name for path in out.iterdir()] == ["static.onnx"]


def test_calibration_images_are_spread(folders: dict[str, Path]) -> None:
    samples = read_dataset(Data("ham10000", str(folders["ham10000"]))).samples
    for number in (1, 7, len(samples), len(samples) + 1):
        chosen = quantize.spread(samples, number)
        assert len({sample.id for sample in chosen}) == len(chosen) == min(number, len(samples))
    # HAM10000 is in the order of its classes here.
    assert [sample.label for sample in quantize.spread(samples, 7)] == list(range(7))
    assert not quantize.spread([], 3)


def test_metrics_of_several_classes_and_masks(tmp_path: Path) -> None:
    logits = torch.tensor([[2.0, -1.0], [1.0, 1.0], [-1.0, 3.0], [0.0, 2.0]])
    labels = torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0]])
    predictions = [
        Prediction("", row, dice=[1.0, dice], iou=[1.0, dice])
        for row, dice in zip(logits.tolist(), [0.5, float("nan"), 0.7, 0.6])
    ]
    samples = [Sample("", tmp_path, "", labels=tuple(row)) for row in labels.tolist()]
    dataset = Dataset("", samples, {"a": "", "b": ""}, multi_label=True)
    expected = [auc(logits[:, column].sigmoid(), labels[:, column]) or 0.0 for column in (0, 1)]
    found = quantize.metrics_of(predictions, samples, dataset)
    assert found == {"auc": pytest.approx(sum(expected) / 2), "dice": pytest.approx((1 + 0.6) / 2)}
    one = replace(dataset, multi_label=False)
    alone = [replace(sample, labels=(), label=index % 2) for index, sample in enumerate(samples)]
    without = [replace(prediction, dice=(), iou=()) for prediction in predictions]
    assert quantize.metrics_of(without, alone, one) == {"balanced_accuracy": pytest.approx((0.5 + 0.5) / 2)}


@pytest.mark.compile
def test_quantize(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = read_dataset(Data("ham10000", str(folders["ham10000"])), masks=True)
    splits = write_split(tmp_path / "split.json", dataset)
    model = micro.build("clsseg")
    model.pretrained_cfg["input_size"] = (3, 64, 96)
    mfsf2.save_pretrained(model, tmp_path / "model")
    out = tmp_path / "int8"
    command: dict[str, Any] = {"checkpoint": tmp_path / "model", "data.name": "ham10000"}
    command |= {"data.folder": folders["ham10000"], "split_file": tmp_path / "split.json", "out": out}
    command |= {"calibration": 4, "rounds": 2}
    results = quantize.main([f"--{key}={value}" for key, value in command.items()])
    assert results == json.loads((out / "results.json").read_text())
    assert results["images"] == len(splits["test"])
    assert {path.name for path in out.iterdir()} == {*quantize.MODELS, "results.json", LIST}
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
