"""From a trained model to the folder in which one comes with the package."""

import hashlib
import json
from pathlib import Path
from typing import Any

import micro
import pytest
import release
import torch
from accelerate import Accelerator
from datasets import Data, load_split, make_split, read_dataset, split_text
from datasets.ham10000 import CLASSES
from files import LIST
from inference import predict_samples
from metrics import fit_temperature
from models import load_model
from runs import Run
from safetensors.torch import load_file

import mfsf2

ADDED = {"label_descriptions", "temperature", "description", "input_size", "pool_size"}


def arguments(run: Path, data: Path, out: Path) -> list[str]:
    of_data = ["--data.name", "ham10000", "--data.folder", str(data)]
    return ["--checkpoint", str(run / "best"), *of_data, "--split_file", str(run / "split.json"), "--out", str(out)]


@pytest.mark.training
def test_release(run: Run, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data, out = run("ham10000_clsseg"), folders["ham10000"], tmp_path / "released"
    release.main([*arguments(folder, data, out), "--input_size", "65"])
    assert {path.name for path in out.iterdir()} == {"README.md", "model.safetensors", "config.json", LIST}
    before, after = load_file(folder / "best" / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert after[key].dtype == (torch.float16 if value.is_floating_point() and value.ndim > 1 else value.dtype)
        assert torch.equal(after[key], value.to(after[key].dtype)), key
    sha256 = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    config = json.loads((out / "config.json").read_text())
    assert config["sha256"] == sha256 and sha256 in capsys.readouterr().out
    cfg = config["pretrained_cfg"]
    assert cfg["label_descriptions"] == CLASSES and list(CLASSES) == config["label_names"]
    assert cfg["description"] == "Trained on ham10000. Research only, not a diagnostic device."
    was = json.loads((folder / "best" / "config.json").read_text())["pretrained_cfg"]
    assert {key: value for key, value in cfg.items() if key not in ADDED} == {
        key: value for key, value in was.items() if key not in ADDED
    }
    assert cfg["input_size"] == [3, 65, 65] and cfg["pool_size"] == [3, 3]

    model: Any = load_model(str(out))
    val = load_split(folder / "split.json", read_dataset(Data("ham10000", str(data))))[0]["val"]
    logits = torch.tensor([prediction.logits for prediction in predict_samples(model, val, Accelerator(cpu=True))])
    temperature = fit_temperature(logits, torch.tensor([sample.label for sample in val]))
    assert model.pretrained_cfg["temperature"] == pytest.approx(temperature, rel=1e-3)


@pytest.fixture
def trained(folders: dict[str, Path], tmp_path: Path) -> Path:
    """What release.py reads of a training."""
    model = micro.build("clsseg", num_classes=7)
    model.pretrained_cfg.update(input_size=(3, 32, 32), pool_size=(1, 1))
    mfsf2.save_pretrained(model, tmp_path / "run" / "best", list(CLASSES))
    dataset = read_dataset(Data("ham10000", str(folders["ham10000"])))
    (tmp_path / "run" / "split.json").write_text(split_text(dataset, make_split(dataset)))
    return tmp_path / "run"


def test_only_its_own_files_are_replaced(trained: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    given = arguments(trained, folders["ham10000"], tmp_path / "out")
    assert release.main(given)["pretrained_cfg"] == release.main(given)["pretrained_cfg"]
    for name in release.FILES:
        other = tmp_path / f"with {name}"
        other.mkdir()
        (other / name).write_text("mine")
        with pytest.raises(SystemExit, match=f"{name}: there already and not written by this script"):
            release.main([*given, "--out", str(other)])
        assert [path.name for path in other.iterdir()] == [name] and (other / name).read_text() == "mine"


def test_the_package_is_not_replaced(trained: Path, folders: dict[str, Path]) -> None:
    package = Path(mfsf2.__file__).parent / "weights" / "ham10000"
    before = {path: path.stat().st_mtime_ns for path in package.iterdir()}
    with pytest.raises(SystemExit, match="there already and not written by this script"):
        release.main(arguments(trained, folders["ham10000"], package))
    assert {path: path.stat().st_mtime_ns for path in package.iterdir()} == before


def test_own_images(trained: Path, tmp_path: Path, folders: dict[str, Path]) -> None:
    """Of a data set without descriptions, by the name of its folder."""
    images = tmp_path / "moles"
    for label, name in enumerate(CLASSES):
        (images / name).mkdir(parents=True)
        for number, path in enumerate(sorted(folders["ham10000"].rglob("*.jpg"))[label * 3 : label * 3 + 3]):
            (images / name / f"{number}.jpg").write_bytes(path.read_bytes())
    dataset = read_dataset(Data("folder", str(images)))
    (trained / "split.json").write_text(split_text(dataset, make_split(dataset)))
    given = [*arguments(trained, images, tmp_path / "out"), "--data.name", "folder"]
    cfg = release.main(given)["pretrained_cfg"]
    assert cfg["description"].startswith("Trained on moles. ") and "label_descriptions" not in cfg
    assert cfg["input_size"] == [3, 32, 32] and cfg["pool_size"] == [1, 1]


def test_errors(trained: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "released"
    given = arguments(trained, folders["ham10000"], out)
    mfsf2.save_pretrained(micro.build("clsseg", num_classes=7), tmp_path / "named", list("abcdefg"))
    mfsf2.save_pretrained(micro.build("seg"), tmp_path / "seg")
    (tmp_path / "file").touch()
    for message, more in [
        ("checkpoint .*absent", ["--checkpoint", str(tmp_path / "absent")]),
        ("apart, ham10000 has the classes", ["--checkpoint", str(tmp_path / "named")]),
        ("mfsf2_seg predicts no classes", ["--checkpoint", str(tmp_path / "seg")]),
        ("no such split file", ["--split_file", str(tmp_path / "none.json")]),
        ("is not the folder of HAM10000", ["--data.folder", str(tmp_path)]),
        ("input_size=20 must be at least 29", ["--input_size", "20"]),
        ("is not a folder that can be written to", ["--out", str(tmp_path / "file")]),
    ]:
        with pytest.raises(SystemExit, match=message):
            release.main([*given, *more])
        assert not out.exists()
