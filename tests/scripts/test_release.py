"""From a trained network to the folder in which one comes with the package."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import release
import torch
from accelerate import Accelerator
from engine.inference import predict_records
from engine.measures import fit_temperature
from engine.network import load_network
from readers import load_split, read_dataset
from runs import Run
from safetensors.torch import load_file

import mfsf2


def arguments(run: Path, data: Path, out: Path) -> list[str]:
    fixed = ["--data", "ham10000", "--folder", str(data), "--split", str(run / "split.json"), "--out", str(out)]
    return ["--checkpoint", str(run / "best"), *fixed]


@pytest.mark.training
def test_release(run: Run, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data, out = run("ham10000_clsseg"), folders["ham10000"], tmp_path / "released"
    release.main([*arguments(folder, data, out), "--input_size", "64"])
    assert {path.name for path in out.iterdir()} == {"README.md", "model.safetensors", "config.json"}
    before, after = load_file(folder / "best" / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert after[key].dtype == (torch.float16 if value.is_floating_point() and value.ndim > 1 else value.dtype)
        assert torch.equal(after[key], value.to(after[key].dtype)), key
    sha256 = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    config = json.loads((out / "config.json").read_text())
    assert config["sha256"] == sha256 and sha256 in capsys.readouterr().out
    assert list(config["pretrained_cfg"]["label_descriptions"]) == config["label_names"]
    was = json.loads((folder / "best" / "config.json").read_text())["pretrained_cfg"]
    added = {"label_descriptions", "temperature", "description", "input_size"}
    assert {key: value for key, value in config["pretrained_cfg"].items() if key not in added} == {
        key: value for key, value in was.items() if key not in added
    }
    assert config["pretrained_cfg"]["input_size"] == [3, 64, 64]

    network: Any = load_network(str(out))
    dataset = read_dataset("ham10000", data, masks=False)
    records = load_split(folder / "split.json", dataset)["val"]
    logits = torch.tensor([p.logits for p in predict_records(network, records, Accelerator(cpu=True))])
    temperature = fit_temperature(logits, torch.tensor([record.label for record in records]))
    assert network.pretrained_cfg["temperature"] == pytest.approx(temperature, rel=1e-3)


def test_errors(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    folder, data, out = run("ham10000_clsseg"), folders["ham10000"], tmp_path / "released"
    given = arguments(folder, data, out)
    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_clsseg"), tmp_path / "named", list("abcdefg"))
    for message, more in [
        ("checkpoint .*absent", ["--checkpoint", str(tmp_path / "absent")]),
        ("apart, ham10000 has the classes", ["--checkpoint", str(tmp_path / "named")]),
        ("no such split file", ["--split", str(tmp_path / "none.json")]),
        ("is not the folder of HAM10000", ["--folder", str(tmp_path)]),
        ("input_size=20 must be at least 29", ["--input_size", "20"]),
    ]:
        with pytest.raises(SystemExit, match=message):
            release.main([*given, *more])
        assert not out.exists()
