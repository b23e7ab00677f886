"""The example scripts, on a small folder in the published layout of HAM10000."""

import csv
import json
from pathlib import Path
from typing import Any

import ablate
import evaluation
import ham10000
import kvasir
import numpy as np
import overfit
import pytest
import quickstart
import torch
import train
import train_masks
import two_modalities
from augment import augment_with_masks
from images import read_masks
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
        masks = folder / ham10000.MASK_FOLDER
        masks.mkdir(exist_ok=True)
        Image.fromarray(_disc(rng, 36, 48)).save(masks / f"{row['image_id']}_segmentation.png")
    with (folder / ham10000.METADATA).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["lesion_id", "image_id", "dx"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _disc(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A white disc on black."""
    y, x = np.ogrid[:height, :width]
    return (255 * (np.hypot(y - height / 2, x - width / 2) < rng.integers(8, 16))).astype(np.uint8)


def make_kvasir(folder: Path, images: int = 12) -> Path:
    """Images of different sizes with discs as masks, all JPEG."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(images):
        height, width = 40 + index, 52
        mask = _disc(rng, height, width)
        pixels = rng.integers(0, 80, (height, width, 3)) + mask[..., None] // 2
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"p{index}.jpg")
        Image.fromarray(mask).save(folder / "masks" / f"p{index}.jpg")
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


def run_mask_training(data: Path, out: Path, *more: str) -> dict[str, Any]:
    arguments = ["--steps", "2", "--size", "64", "--batch-size", "4", "--evaluations", "1"]
    return train_masks.main(["--data", str(data), "--out", str(out), *arguments, *more])


@pytest.fixture(scope="module")
def masks_trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("masks")
    for task in ("seg", "clsseg"):
        run_mask_training(data, folder / task, "--task", task)
    return {task: folder / task for task in ("seg", "clsseg")}


@pytest.mark.parametrize("task", ["seg", "clsseg"])
def test_train_masks(task: str, masks_trained: dict[str, Path]) -> None:
    out = masks_trained[task]
    assert {"config.json", "model.safetensors", "history.json", "curve.png"} <= {path.name for path in out.iterdir()}
    results = json.loads((out / "results.json").read_text())
    assert results["images"] == {"train": 28, "val": 14, "test": 14} and results["steps"] == 2
    measures = {"dice", "balanced_accuracy"} if task == "clsseg" else {"dice"}
    assert set(results["test"]) == set(results["val"]) == measures
    # Discs in the middle: a fixed mask does well.
    assert 0.7 < results["mean_mask_dice"]["test"] < 1
    model: Any = mfsf2.create_model(f"local-dir:{out}")
    assert model.pretrained_cfg["crop_mode"] == "squash" and list(model.pretrained_cfg["input_size"]) == [3, 64, 64]
    if task == "clsseg":
        assert model.pretrained_cfg["label_names"] == ham10000.LABELS


def test_train_masks_on_kvasir(tmp_path: Path) -> None:
    results = run_mask_training(make_kvasir(tmp_path / "data"), tmp_path / "out", "--dataset", "kvasir")
    assert results["images"] == {"train": 10, "val": 1, "test": 1} and set(results["test"]) == {"dice"}


def test_masks_follow_their_images() -> None:
    """A mask that is the image's own bright part stays so under every geometry."""
    torch.manual_seed(0)
    masks = torch.zeros(16, 1, 60, 80, dtype=torch.uint8)
    masks[:, :, 15:40, 20:50] = 1
    images = (masks * 255).repeat(1, 3, 1, 1)
    x, y = augment_with_masks(images, masks, 48)
    assert x.shape == (16, 3, 48, 48) and y.shape == (16, 1, 48, 48) and set(y.unique().tolist()) == {0.0, 1.0}
    bright = x.mean(1, keepdim=True) > 0.5 * x.amax((1, 2, 3), keepdim=True)
    assert evaluation.dice(bright, y > 0).min() > 0.9
    # Twice as many pixels show the same frame.
    torch.manual_seed(0)
    _, finer = augment_with_masks(images, masks.repeat_interleave(2, 2).repeat_interleave(2, 3), 48)
    assert evaluation.dice(finer > 0, y > 0).min() > 0.9


def test_dice() -> None:
    a = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    b = a.clone()
    a[0, 0, 0, :2] = b[0, 0, 0, 1:4] = a[1] = True
    assert evaluation.dice(a, b).tolist() == [pytest.approx(2 / 5), 0.0, 1.0]
    masks = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    masks[:, 0, 0] = 1
    masks[0, 0, 1, 0] = 1
    assert evaluation.mean_mask_dice(masks, masks[1:]).tolist() == [1, 1, 1]


def test_kvasir_masks_are_jpeg(tmp_path: Path) -> None:
    pairs = kvasir.read_pairs(make_kvasir(tmp_path))
    masks = read_masks([pair.mask for pair in pairs], 20, 26)
    assert masks.dtype == torch.uint8 and set(masks.unique().tolist()) == {0, 1}
    assert all(0.05 < mask.float().mean() < 0.6 for mask in masks)
    split = kvasir.split_pairs(pairs, seed=1)
    assert {name: len(part) for name, part in split.items()} == {"val": 1, "test": 1, "train": 10}
    assert len({pair for part in split.values() for pair in part}) == 12


def test_two_modalities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_modalities, "TEST_PAIRS", 9)
    arguments = ["--steps", "2", "--size", "40", "--batch-size", "4", "--evaluations", "1", "--out", str(tmp_path)]
    results = two_modalities.main(arguments)
    assert set(results["test"]) == {"both", "image_alone", "stack_alone", "a_third_missing_each"}
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert mfsf2.create_model(f"local-dir:{tmp_path}").num_classes == 2


def test_generated_pairs_are_decided_by_both_modalities_together() -> None:
    images, stacks, labels = two_modalities.generate_pairs(900, 8, torch.Generator().manual_seed(0))
    assert images.shape == (900, 3, 8, 8) and stacks.shape == (900, 4, 1, 6, 6)
    assert images.min() >= 0 and images.max() <= 1 and stacks.min() >= 0 and stacks.max() <= 1
    assert labels.bincount().min() > 400
    again = two_modalities.generate_pairs(900, 8, torch.Generator().manual_seed(0))
    assert torch.equal(images, again[0]) and torch.equal(stacks, again[1])


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


def test_quickstart_says_that_it_is_untrained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    results = quickstart.main([str(next((data / ham10000.IMAGE_FOLDERS[0]).iterdir()))])
    assert quickstart.UNTRAINED in capsys.readouterr().out and len(results) == 1
    assert (tmp_path / "quickstart.png").is_file()


@pytest.mark.parametrize("task", ["seg", "clsseg"])
def test_quickstart_draws_predicted_and_true_masks(
    task: str, data: Path, masks_trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((data / ham10000.IMAGE_FOLDERS[0]).iterdir())[:2]
    masks = [data / ham10000.MASK_FOLDER / f"{image.stem}_segmentation.png" for image in images]
    arguments = [*map(str, images), "--checkpoint", str(masks_trained[task]), "--figure", str(tmp_path / "a.png")]
    results = quickstart.main(arguments)
    assert len(results) == (2 if task == "clsseg" else 0)
    quickstart.main([*arguments[:-1], str(tmp_path / "b.png"), "--masks", *map(str, masks)])
    assert quickstart.UNTRAINED not in capsys.readouterr().out
    with Image.open(tmp_path / "a.png") as one_row, Image.open(tmp_path / "b.png") as two_rows:
        assert two_rows.height > 1.5 * one_row.height
        pixels = np.array(two_rows.convert("RGB")).astype(int)
    green = (pixels[..., 1] > 200) & (pixels[..., 0] < 60) & (pixels[..., 2] < 60)
    assert not green[: len(green) // 2].any() and green[len(green) // 2 :].any()


def test_quickstart_errors(data: Path, tmp_path: Path) -> None:
    image = str(next((data / ham10000.IMAGE_FOLDERS[0]).iterdir()))
    (tmp_path / "text.jpg").write_text("no image")
    for arguments in ([str(tmp_path / "text.jpg")], [str(tmp_path / "absent.jpg")]):
        with pytest.raises(SystemExit, match=r"not a readable image"):
            quickstart.main(arguments)
    with pytest.raises(SystemExit, match=r"--masks: 2 masks for 1 images"):
        quickstart.main([image, "--masks", image, image])
    with pytest.raises(SystemExit, match=r"--figure .*no such folder"):
        quickstart.main([image, "--figure", str(tmp_path / "absent" / "a.png")])
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


def test_mask_errors(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no images/\*\.jpg"):
        run_mask_training(tmp_path, tmp_path / "out", "--dataset", "kvasir")
    polyps = make_kvasir(tmp_path / "polyps")
    with pytest.raises(SystemExit, match="kvasir has none: use --task seg"):
        run_mask_training(polyps, tmp_path / "out", "--dataset", "kvasir", "--task", "clsseg")
    (polyps / "masks" / "p3.jpg").write_text("no image")
    with pytest.raises(SystemExit, match=r"p3\.jpg: not a readable image"):
        run_mask_training(polyps, tmp_path / "out", "--dataset", "kvasir")
    (polyps / "masks" / "p3.jpg").unlink()
    with pytest.raises(SystemExit, match=r"1 of 12 masks are missing.*p3\.jpg"):
        run_mask_training(polyps, tmp_path / "out", "--dataset", "kvasir")
    lesions = make_folder(tmp_path / "lesions", lesions=3)
    next((lesions / ham10000.MASK_FOLDER).iterdir()).unlink()
    with pytest.raises(SystemExit, match=rf"1 of 42 masks are missing from {ham10000.MASK_FOLDER}"):
        run_mask_training(lesions, tmp_path / "out")
    with pytest.raises(SystemExit, match=r"--steps and --evaluations must be at least 1"):
        run_mask_training(lesions, tmp_path / "out", "--evaluations", "0")
    assert not (tmp_path / "out").exists()


def test_training_errors(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no HAM10000_metadata\.csv"):
        run_training(tmp_path, tmp_path / "out")
    with pytest.raises(SystemExit, match=r"--weights .*no such file"):
        run_training(data, tmp_path / "out", "--weights", "absent.safetensors")
    save_file({"unrelated": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(SystemExit, match=r"none of its 1 keys"):
        run_training(data, tmp_path / "out", "--weights", str(tmp_path / "other.safetensors"))
    assert not (tmp_path / "out").exists()
