"""The example scripts, on a small folder in the published layout of HAM10000."""

import csv
import json
from pathlib import Path
from typing import Any

import ablate
import ham10000
import numpy as np
import overfit
import pytest
import quickstart
import torch
import train
from PIL import Image
from safetensors.torch import save_file
from timm import create_model

import mfsf2


def make_folder(folder: Path, lesions: int = 4) -> Path:
    """Two images a lesion, each class of its own colour."""
    rng = np.random.default_rng(0)
    rows = []
    for label, name in enumerate(ham10000.LABELS):
        for lesion in range(lesions):
            for image in range(2):
                rows.append({"lesion_id": f"L{label}{lesion}", "image_id": f"I{label}{lesion}{image}", "dx": name})
    for row in rows:
        part = folder / ham10000.IMAGE_FOLDERS[rows.index(row) % 2]
        part.mkdir(parents=True, exist_ok=True)
        colour = 30 * ham10000.LABELS.index(row["dx"]) + rng.integers(0, 20, (36, 48, 3))
        Image.fromarray(colour.astype(np.uint8)).save(part / f"{row['image_id']}.jpg")
    with (folder / ham10000.METADATA).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["lesion_id", "image_id", "dx"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("ham10000"))


def run_training(data: Path, out: Path, *more: str) -> dict[str, Any]:
    arguments = ["--steps", "3", "--size", "32", "--batch-size", "8", "--evaluations", "1"]
    return train.main(["--data", str(data), "--out", str(out), *arguments, *more])


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_file(create_model("resnet18", num_classes=0).state_dict(), folder / "resnet18.safetensors")
    run_training(data, folder / "out", "--weights", str(folder / "resnet18.safetensors"))
    return folder / "out"


def test_split_keeps_lesions_together(data: Path) -> None:
    records = ham10000.read_records(data)
    split = ham10000.split_by_lesion(records, seed=3)
    lesions = [{record.lesion for record in split[part]} for part in ham10000.PARTS]
    assert [len(group) for group in lesions] == [14, 7, 7]
    assert not (lesions[0] & lesions[1] or lesions[0] & lesions[2] or lesions[1] & lesions[2])
    assert sum(len(part) for part in split.values()) == len(records) == 56
    for part in split.values():
        assert {record.label for record in part} == set(range(7))
    assert ham10000.split_by_lesion(records, seed=3) == split
    assert ham10000.split_by_lesion(records, seed=4) != split


def test_train(trained: Path) -> None:
    files = {"config.json", "model.safetensors", "history.json", "results.json", "curve.png"}
    assert files <= {path.name for path in trained.iterdir()}
    results = json.loads((trained / "results.json").read_text())
    assert results["steps"] == 3 and results["images"] == {"train": 28, "val": 14, "test": 14}
    assert 0 <= results["test_balanced_accuracy"] <= 1
    model: Any = mfsf2.create_model(f"local-dir:{trained}")
    assert model.pretrained_cfg["label_names"] == ham10000.LABELS
    assert list(model.pretrained_cfg["input_size"]) == [3, 32, 32]
    with Image.open(trained / "curve.png") as picture:
        assert picture.width > 400


def test_training_is_reproducible(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_training(data, tmp_path / name)
    a, b = (mfsf2.create_model(f"local-dir:{tmp_path / name}").state_dict() for name in ("a", "b"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_ablate(data: Path, trained: Path) -> None:
    results = ablate.main(["--data", str(data), "--checkpoint", str(trained)])
    expected = json.loads((trained / "results.json").read_text())["test_balanced_accuracy"]
    assert results["all"]["balanced_accuracy"] == pytest.approx(expected)
    assert all(row["log_loss"] > 0 for row in results.values())
    assert set(results) == {"all", "without r4", "without p4", "without P"}
    assert json.loads((trained / "ablation.json").read_text()) == results


def test_overfit(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "overfit.json"
    arguments = ["--steps", "2", "--images", "16", "--size", "32", "--batch-size", "8", "--out", str(out)]
    results = overfit.main(["--data", str(data), *arguments])
    assert results["images"] == 16 and results["ratio"] == results["loss_after"] / results["loss_before"]
    assert json.loads(out.read_text()) == results


def test_quickstart(data: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(path) for path in sorted((data / ham10000.IMAGE_FOLDERS[0]).iterdir())[:2]]
    results = quickstart.main([*images, "--checkpoint", str(trained)])
    printed = capsys.readouterr()
    assert quickstart.UNTRAINED not in printed.out + printed.err
    assert all(image in printed.out for image in images) and "not a diagnostic device" in printed.out
    assert len(results) == 2
    for probabilities in results:
        assert set(probabilities) == set(ham10000.LABELS)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)


def test_quickstart_says_that_it_is_untrained(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickstart.main([str(next((data / ham10000.IMAGE_FOLDERS[0]).iterdir()))])
    assert quickstart.UNTRAINED in capsys.readouterr().out


def test_quickstart_errors(data: Path, tmp_path: Path) -> None:
    image = str(next((data / ham10000.IMAGE_FOLDERS[0]).iterdir()))
    (tmp_path / "text.jpg").write_text("no image")
    for arguments in ([str(tmp_path / "text.jpg")], [str(tmp_path / "absent.jpg")]):
        with pytest.raises(SystemExit, match=r"not a readable image"):
            quickstart.main(arguments)
    with pytest.raises(SystemExit, match=r"--checkpoint .*config\.json"):
        quickstart.main([image, "--checkpoint", str(tmp_path)])


def test_reader_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no HAM10000_metadata\.csv"):
        ham10000.read_records(tmp_path)
    data = make_folder(tmp_path / "data", lesions=1)
    table = data / ham10000.METADATA
    text = table.read_text()
    image = next((data / ham10000.IMAGE_FOLDERS[0]).iterdir())
    content = image.read_bytes()
    image.unlink()
    with pytest.raises(ValueError, match=rf"1 of 14 images are missing.*{image.stem}"):
        ham10000.read_records(data)
    image.write_bytes(content[:60])
    with pytest.raises(ValueError, match=rf"{image.name}: not a readable image"):
        ham10000.load_images(ham10000.read_records(data), 32)
    table.write_text(text.replace("dx", "diagnosis"))
    with pytest.raises(ValueError, match=r"no column dx"):
        ham10000.read_records(data)
    table.write_text(text.replace("akiec", "unheard-of"))
    with pytest.raises(ValueError, match=r"unknown labels \['unheard-of'\]"):
        ham10000.read_records(data)
    table.write_text("lesion_id,image_id,dx\n")
    with pytest.raises(ValueError, match=r"0 rows"):
        ham10000.read_records(data)


def test_training_errors(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no HAM10000_metadata\.csv"):
        run_training(tmp_path, tmp_path / "out")
    with pytest.raises(SystemExit, match=r"--weights .*no such file"):
        run_training(data, tmp_path / "out", "--weights", "absent.safetensors")
    save_file({"unrelated": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(SystemExit, match=r"none of its 1 keys"):
        run_training(data, tmp_path / "out", "--weights", str(tmp_path / "other.safetensors"))
    assert not (tmp_path / "out").exists()
