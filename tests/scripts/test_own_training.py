"""One's own data from images to predictions: every command of docs/own_data.md, and what they leave."""

import csv
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import predict
import pytest
import torch
import train
from datasets.synthetic import write_dataset
from PIL import Image
from runs import EXAMPLES, forget_accelerator

import mfsf2

pytestmark = pytest.mark.training

TABLE = "predictions.csv"
PAGE = EXAMPLES.parent / "docs" / "own_data.md"
QUICK = [
    "--optim.epochs",
    "1",
    "--input_size",
    "32",
    "--optim.batch_size",
    "8",
    "--data.workers",
    "0",
    "--device",
    "cpu",
]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run_command(line: str) -> None:
    """One command of the page, in this process and in small."""
    _, script, *argv = shlex.split(line)
    name = Path(script).stem
    more = {"train": QUICK, "evaluate": ["--n_bootstrap", "5"]}.get(name, [])
    importlib.import_module(name).main([*argv, *more])
    forget_accelerator()


def test_every_command_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) > 15 and all(line.startswith("python examples/") for line in commands)
    for line in commands:
        run_command(line)
    runs = tmp_path / "runs"
    expected = [
        "confusion.png",
        "confusion.pdf",
        "reliability.png",
        "reliability.pdf",
        "results.json",
        TABLE,
    ]
    assert all((runs / "own" / "test" / name).is_file() for name in expected)
    assert (runs / "own" / "gradcam.png").is_file() and (runs / "masks" / "contours.png").is_file()
    assert len(list((runs / "masks" / "predictions").glob("*_mask.png"))) == 40
    with (runs / "own" / "predictions" / TABLE).open() as file:
        assert len(list(csv.DictReader(file))) == 60
    assert "split by image" in (runs / "own" / "log.txt").read_text()
    assert "split by image" not in (runs / "by_patient" / "log.txt").read_text()
    one, two = (mfsf2.create_model(f"local-dir:{runs / name / 'best'}").state_dict() for name in ("table", "stacks"))
    # Trained on for one epoch: near, but not the same.
    key = "encoder.cnn.layer4.0.conv1.weight"
    assert 0 < (one[key] - two[key]).abs().max() < 0.1 * one[key].abs().max()
    folds = json.loads((runs / "fold0" / "split.json").read_text())["splits"]
    assert len(folds["test"]) == 12 and len(folds["val"]) == 12
    (code,) = blocks("python")
    exec(code, {})  # noqa: S102
    assert (runs / "own" / "model.onnx").stat().st_size > 1_000_000


def trained(tmp_path: Path, *given: str) -> tuple[Path, Any]:
    """A short training; its folder and model."""
    out = tmp_path / "run"
    train.main([*given, *QUICK, "--model.pretrained", "false", "--out", str(out)])
    forget_accelerator()
    return out, mfsf2.create_model(f"local-dir:{out / 'best'}").eval()


@pytest.mark.parametrize("names", [["striped"], ["striped", "brown"]])
def test_several_labels_at_once(names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one label alone, which has one logit: a sigmoid, not a softmax that is 1 for every image."""
    images = write_dataset("folder", tmp_path / "images", lesions=10)
    rows = [f"{path.name},{index % 2},{index % 3 // 2}" for index, path in enumerate(sorted(images.rglob("*.jpg")))]
    (images / "labels.csv").write_text("image,striped,brown\n" + "\n".join(rows) + "\n")
    given = ["--data.name", "table", "--data.folder", str(images), "--data.label_column", f"[{', '.join(names)}]"]
    out, model = trained(tmp_path, *given)
    assert model.num_classes == len(names) and model.pretrained_cfg["label_names"] == names
    assert model.pretrained_cfg["multi_label"] is True
    results = evaluate.main(["--run", str(out), "--n_bootstrap", "5", "--device", "cpu"])
    assert set(results["per_class"]) == set(names) and {"exact_match", "auc", "macro_f1"} <= set(results)
    assert {path.name for path in (out / "test").glob("*.p*")} >= {"confusion.png", "reliability.pdf"}
    forget_accelerator()
    (prediction, *_) = predict.main(
        ["--checkpoint", str(out / "best"), "--images", str(images), "--out", str(tmp_path / "p"), "--device", "cpu"]
    )
    with (tmp_path / "p" / TABLE).open() as file:
        row = next(csv.DictReader(file))
    expected = torch.tensor(prediction.logits).sigmoid().tolist()
    assert [float(row[name]) for name in names] == pytest.approx(expected, abs=1e-6)
    assert row["predicted"] == "; ".join(name for name, value in zip(names, expected) if value > 0.5)
    assert all(0 < value < 1 for value in expected)


def test_masks_of_several_classes(tmp_path: Path) -> None:
    """Half of each spot is another class, a corner belongs to none: from masks with palettes to predicted ones."""
    images = write_dataset("masks", tmp_path / "images", lesions=4)
    for path in (images / "masks").iterdir():
        indices = (np.array(Image.open(path)) > 0).astype(np.uint8)
        indices[:, 60:] *= 2
        indices[:10, :10] = 255
        mask = Image.fromarray(indices)
        mask.putpalette([0, 0, 0, 10, 10, 10, 255, 0, 0, *[200] * 759])
        mask.save(path)
    names = ["background", "left", "right"]
    given = ["--data.name", "masks", "--data.folder", str(images), "--data.mask_names", f"[{', '.join(names)}]"]
    out, model = trained(tmp_path, *given, "--data.ignore_index", "255", "--data.license", "CC BY 4.0")
    assert model.mask_classes == 3 and model.pretrained_cfg["mask_names"] == names
    assert model.pretrained_cfg["ignore_index"] == 255 and model.pretrained_cfg["license"] == "cc-by-4.0"
    results = evaluate.main(["--run", str(out), "--n_bootstrap", "5", "--device", "cpu"])
    assert {"dice", "iou", "left dice", "right iou"} <= set(results["intervals"])
    assert results["dice"] == pytest.approx((results["left dice"] + results["right dice"]) / 2)
    forget_accelerator()
    source = images / "images"
    found = predict.main(
        ["--checkpoint", str(out / "best"), "--images", str(source), "--out", str(tmp_path / "p"), "--device", "cpu"]
    )
    for prediction in found:
        with Image.open(tmp_path / "p" / f"{prediction.id}_mask.png") as mask:
            assert mask.mode == "P" and mask.size == (120, 90)
            indices = np.array(mask)
            assert np.array_equal(
                np.array(mask.convert("RGB")), np.array(Image.open(tmp_path / "p" / f"{prediction.id}_colored.png"))
            )
        assert prediction.shares == pytest.approx([(indices == 1).mean(), (indices == 2).mean()], abs=1e-6)


def test_given_splits_and_a_test_set_with_some_of_the_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_dataset("folder", tmp_path / "all", lesions=12)
    for number, path in enumerate(sorted(images.rglob("*.jpg"))):
        split = "test" if number % 4 == 0 else "train"
        if split == "train" or path.parent.name != "violet":
            place = tmp_path / "images" / split / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    out, _ = trained(tmp_path, "--data.name", "folder", "--data.folder", str(tmp_path / "images"))
    splits = json.loads((out / "split.json").read_text())["splits"]
    assert {name.split("/")[0] for name in splits["test"]} == {"test"} and splits["val"]
    assert {name.split("/")[0] for name in splits["train"] + splits["val"]} == {"train"}
    results = evaluate.main(["--run", str(out), "--n_bootstrap", "5", "--device", "cpu"])
    assert results["per_class"]["violet"]["images"] == 0 and results["images"] == 6
    forget_accelerator()
    given = ["--checkpoint", str(out / "best"), "--data.name", "folder", "--device", "cpu", "--n_bootstrap", "5"]
    alone = evaluate.main([*given, "--data.folder", str(tmp_path / "images" / "test"), "--out", str(tmp_path / "t")])
    assert list(alone["per_class"]) == ["brown", "pink", "violet"]
    assert alone["per_class"]["pink"] == results["per_class"]["pink"]
    assert alone["temperature"] == 1.0 and alone["temperature_from"] == "none"
    forget_accelerator()
    # Copies under other names are told by their content; other images under the same names are not left out.
    (tmp_path / "copies" / "pink").mkdir(parents=True)
    for number, name in enumerate(splits["train"][:5] + splits["test"][:3]):
        copy = (tmp_path / "images" / name).read_bytes()
        (tmp_path / "copies" / "pink" / f"img_{number}.jpg").write_bytes(copy)
    capsys.readouterr()
    kept = evaluate.main([*given, "--data.folder", str(tmp_path / "copies"), "--out", str(tmp_path / "c")])
    assert kept["images"] == 3 and "5 of 8 images left out" in capsys.readouterr().out
    assert kept["auc"] is None and json.loads((tmp_path / "c" / "results.json").read_text())["auc"] is None
    forget_accelerator()
    others = write_dataset("folder", tmp_path / "others", lesions=12, seed=9)
    kept = evaluate.main([*given, "--data.folder", str(others), "--out", str(tmp_path / "o")])
    assert kept["images"] == 36


def test_unreadable_files_are_skipped_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_dataset("folder", tmp_path / "images", lesions=2)
    broken = sorted(images.rglob("*.jpg"))[1]
    broken.write_bytes(broken.read_bytes()[:200])
    (images / "notes.txt").touch()
    (images / "brown" / "._p0000_000.jpg").write_bytes(b"of a Mac")
    out, fixed = tmp_path / "out", ["--checkpoint", "mfsf2_tiny_clsseg.ham10000", "--device", "cpu"]
    for _ in range(2):
        # The second time its own masks lie among the images.
        with pytest.raises(SystemExit, match="1 of 6 images could not be read"):
            predict.main([*fixed, "--images", str(images), "--out", str(images)])
        forget_accelerator()
    printed = capsys.readouterr().out
    assert "; skipped: 1 not images;" in printed and f"not readable: {broken}" in printed
    assert "; skipped: 6 written by these scripts, 1 not images;" in printed
    with pytest.raises(SystemExit, match=r"images: none in .*; skipped: 6 written by these scripts"):
        predict.main(
            [*fixed, "--images", *map(str, images.rglob("*_mask.png")), str(images / TABLE), "--out", str(out)]
        )
    with (images / TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and sum(row["predicted"] == "" for row in rows) == 1
    with pytest.raises(SystemExit, match="not a readable image"):
        predict.main([*fixed, "--images", str(images), "--out", str(out), "--strict"])
    forget_accelerator()
    found = predict.main([*fixed, "--images", str(images / "*" / "*_000.jpg"), "--out", str(out)])
    assert [prediction.id for prediction in found] == ["p0000_000", "p2000_000", "p1000_000"]


def test_true_masks_beside_the_images_are_kept(tmp_path: Path) -> None:
    """The folder that holds images and masks is also the one for the results."""
    images = write_dataset("masks", tmp_path / "images", lesions=1)
    folder = tmp_path / "D"
    folder.mkdir()
    for path in sorted((images / "images").iterdir())[:2]:
        (folder / f"a ({path.stem}).jpg").write_bytes(path.read_bytes())
        mask = images / "masks" / f"{path.stem}_mask.png"
        (folder / f"a ({path.stem})_mask.png").write_bytes(mask.read_bytes())
    before = {path: path.read_bytes() for path in folder.iterdir()}
    given = [
        "--checkpoint",
        "mfsf2_tiny_seg.ham10000",
        "--images",
        str(folder),
        "--out",
        str(folder),
        "--device",
        "cpu",
    ]
    with pytest.raises(SystemExit, match=r"_mask\.png.*: there already and not written by this script"):
        predict.main(given)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    forget_accelerator()
    found = predict.main([*given[:-3], str(tmp_path / "out"), "--device", "cpu"])
    # The masks are no images to predict.
    assert len(found) == 2 and len(list((tmp_path / "out").glob("*_mask.png"))) == 2


@pytest.mark.parametrize("name", ["table", "folder"])
def test_resume_and_dice_of_a_table_with_everything(name: str, tmp_path: Path) -> None:
    """A table of classes, masks and slices trains all of them by default; a folder its classes."""
    data = write_dataset(name, tmp_path / "data", lesions=6)
    given = [
        "--data.name",
        name,
        "--data.folder",
        str(data),
        "--model.pretrained",
        "false",
        "--out",
        str(tmp_path / "r"),
    ]
    results = train.main([*given, *QUICK])
    assert results["model"] == {"table": "mfsf2_tiny_rcm_clsseg", "folder": "mfsf2_tiny_cls"}[name]
    assert set(results["best"]) == {"epoch", "loss", "balanced_accuracy"} | ({"dice"} if name == "table" else set())
    forget_accelerator()
    again = train.main([*given, *QUICK, "--resume", "true"])
    assert again == results
