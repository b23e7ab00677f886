"""Every configuration, trained on synthetic data in its layout; then evaluate.py and predict.py."""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import predict
import pytest
import torch
import yaml
from accelerate import Accelerator
from datasets import Sample, ham10000, isic2018, isic2019
from datasets.overlap import hash_file, hash_id
from inference import predict_samples, prepare_image
from models import load_model
from PIL import Image
from runs import CONFIGS, SETTINGS, Run, data_of
from torch import Tensor

import mfsf2

FILES = {"config.yaml", "split.json", "environment.json", "log.txt", "curves.png", "results.json", "last.pt", "best"}
Results = dict[str, Any]


def evaluation(config: str, folder: Path, data: Path, out: Path, *more: str) -> Results:
    name = data_of(config)
    fixed = ["--checkpoint", str(folder / "best"), "--data.name", name, "--data.folder", str(data), "--out", str(out)]
    split = [] if "--split_file" in more else ["--split_file", str(folder / "split.json")]
    return evaluate.main([*fixed, *split, "--n_bootstrap", "20", "--device", "cpu", *more])


@pytest.mark.parametrize(
    "config", [pytest.param(name, marks=[] if name == "first_try" else pytest.mark.training) for name in CONFIGS]
)
def test_train_and_evaluate(
    config: str, run: Run, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = run(config), folders[data_of(config)]
    names = {path.name for path in folder.iterdir()}
    assert names >= FILES and not any(name.endswith(".tmp") for name in names)
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["input_size"] == 32 and written["task"] == SETTINGS[config]["task"]
    assert {"torch", "timm", "monai"} <= set(json.loads((folder / "environment.json").read_text()))
    assert "groups (" in (folder / "log.txt").read_text()

    model: Any = mfsf2.create_model(f"local-dir:{folder / 'best'}")
    splits = json.loads((folder / "split.json").read_text())["splits"]
    files = {path.stem: path for path in data.rglob("*.jpg") if path.parent.name != "masks"}
    public = set() if data_of(config) == "psinkd" else {hash_id(name) for name in splits["train"]}
    contents = {hash_file(files[name]) for name in splits["train"]}
    assert model.pretrained_cfg["trained_on"] == sorted(public | contents)
    assert list(model.pretrained_cfg["input_size"]) == [3, 32, 32]

    results = evaluation(config, folder, data, tmp_path)
    assert f"0 of {len(splits['test'])} images left out" in capsys.readouterr().out
    assert results["images"] == len(splits["test"])
    expected = {"seg": {"dice", "iou"}, "clsseg": {"dice", "auc"}}.get(written["task"], {"auc", "macro_f1"})
    assert expected <= set(results["intervals"]) and expected <= set(results)
    for name, (low, high) in results["intervals"].items():
        assert 0 <= low <= high <= 1, name
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))
    drawn = {path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".pdf")}
    both = {f"{name}.{kind}" for name in ("confusion", "reliability") for kind in ("png", "pdf")}
    assert drawn == (set() if written["task"] == "seg" else both)
    if "seg" in written["task"]:
        assert 0.2 < results["fixed_mask_dice"] < 1
    if written["task"] != "seg":
        assert set(results["melanoma"]) == {"sensitivity_at_90%_specificity", "sensitivity_at_95%_specificity"}
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == splits["test"]


@pytest.mark.training
def test_tta_and_another_size(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    """The mean over an image and its mirror images does not change when the image is mirrored."""
    folder = run("ham10000_clsseg")
    model = load_model(str(folder / "best"))
    image = next((folders["ham10000"] / ham10000.IMAGE_FOLDERS[0]).iterdir())
    with Image.open(image) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
        picture.save(tmp_path / "plain.png")
    samples = [Sample(name, tmp_path / f"{name}.png", name) for name in ("plain", "mirrored")]
    seen: dict[bool, list[Tensor]] = {False: [], True: []}
    logits = {}
    for tta, masks in seen.items():
        keep = partial(lambda kept, _sample, mask: kept.append(mask), masks)
        found = predict_samples(model, samples, Accelerator(cpu=True), use_mask=keep, tta=tta)
        logits[tta] = torch.tensor([prediction.logits for prediction in found])
    torch.testing.assert_close(logits[True][0], logits[True][1], atol=1e-4, rtol=1e-4)
    assert (logits[False][0] - logits[False][1]).abs().max() > 1e-3
    views = torch.cat([prepare_image(samples[0].image, model).flip(dims) for dims in ((), (3,), (2,), (2, 3))])
    torch.testing.assert_close(logits[True][0], model(views).logits.mean(0), atol=1e-4, rtol=1e-4)
    assert (seen[True][0] != seen[True][1].flip(1)).float().mean() < 0.01

    data = folders["ham10000"]
    plain = evaluation("ham10000_clsseg", folder, data, tmp_path / "a")
    flipped = evaluation("ham10000_clsseg", folder, data, tmp_path / "b", "--tta", "true")
    larger = evaluation("ham10000_clsseg", folder, data, tmp_path / "c", "--input_size", "64")
    assert (plain["tta"], plain["class_prior"], plain["input_size"]) == (False, False, 32)
    assert (flipped["tta"], flipped["input_size"]) == (True, 32) and flipped["log_loss"] != plain["log_loss"]
    assert (larger["tta"], larger["input_size"]) == (False, 64) and larger["log_loss"] != plain["log_loss"]


@pytest.mark.training
def test_class_prior_of_the_training_split(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    """Probabilities are those of Bayes' rule with the training split's frequencies in place of equal ones."""
    folder, data = run("ham10000_clsseg"), folders["ham10000"]
    splits = json.loads((folder / "split.json").read_text())["splits"]
    labels = {sample.id: sample.label for sample in ham10000.read(data).samples}
    counts = np.bincount([labels[name] for name in splits["train"]], minlength=7)
    assert counts.min() < counts.max()
    plain = evaluation("ham10000_clsseg", folder, data, tmp_path / "a")
    shifted = evaluation("ham10000_clsseg", folder, data, tmp_path / "b", "--class_prior", "true")
    assert shifted["class_prior"] and shifted["temperature"] != plain["temperature"]
    for before, after in zip(predicted(tmp_path / "a"), predicted(tmp_path / "b")):
        expected = counts * np.array([float(before[name]) for name in ham10000.CLASSES])
        found = [float(after[name]) for name in ham10000.CLASSES]
        assert found == pytest.approx(expected / expected.sum(), abs=1e-5)
    with pytest.raises(SystemExit, match="give the --split_file"):
        evaluation("ham10000_clsseg", folder, data, tmp_path / "c", "--split_file", "null", "--class_prior", "true")
    with pytest.raises(SystemExit, match="this model predicts no classes"):
        evaluation("ham10000_seg", run("ham10000_seg"), data, tmp_path / "d", "--class_prior", "true")


@pytest.mark.training
def test_overlap_is_left_out(
    run: Run, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ISIC 2018's synthetic images bear the names of HAM10000's, as some of the real ones do."""
    folder = run("ham10000_seg")
    splits = json.loads((folder / "split.json").read_text())["splits"]
    names = {path.stem for path in (folders["isic2018"] / "ISIC2018_Task1-2_Training_Input").iterdir()}
    shared = names & {*splits["train"], *splits["val"]}
    assert shared and names - shared
    fixed = ["--checkpoint", str(folder / "best"), "--data.name", "isic2018", "--data.folder", str(folders["isic2018"])]
    results = evaluate.main([*fixed, "--out", str(tmp_path), "--n_bootstrap", "5", "--device", "cpu"])
    assert results["images"] == len(names - shared)
    assert f"{len(shared)} of {len(names)} images left out" in capsys.readouterr().out


def predicted(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.training
def test_predict(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    images = sorted((folders["kvasir"] / "images").iterdir())[:3]
    options = ["--out", str(tmp_path / "seg"), "--device", "cpu"]
    predict.main(["--checkpoint", str(run("kvasir_seg") / "best"), "--images", *map(str, images), *options])
    rows = predicted(tmp_path / "seg")
    assert [row["id"] for row in rows] == [image.stem for image in images]
    for image, row in zip(images, rows):
        with Image.open(image) as picture, Image.open(tmp_path / "seg" / f"{image.stem}_mask.png") as mask:
            assert mask.size == picture.size and set(np.unique(np.array(mask))) <= {0, 255}
            assert float(row["foreground"]) == pytest.approx((np.array(mask) > 0).mean(), abs=1e-6)
    source = folders["ham10000"] / ham10000.IMAGE_FOLDERS[0]
    options = ["--out", str(tmp_path / "both"), "--device", "cpu"]
    predict.main(["--checkpoint", str(run("ham10000_clsseg") / "best"), "--images", str(source), *options])
    rows = predicted(tmp_path / "both")
    assert len(rows) == len(list(source.iterdir())) == len(list((tmp_path / "both").glob("*_mask.png")))
    for row in rows:
        probabilities = {name: float(row[name]) for name in ham10000.CLASSES}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(probabilities, key=probabilities.__getitem__)


@pytest.mark.training
def test_predict_with_the_temperature_of_the_model(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    model = load_model(str(run("ham10000_clsseg") / "best"))
    model.pretrained_cfg["temperature"] = 2.0
    mfsf2.save_pretrained(model, tmp_path / "model")
    image = next((folders["ham10000"] / ham10000.IMAGE_FOLDERS[0]).iterdir())
    options = ["--images", str(image), "--out", str(tmp_path / "out"), "--device", "cpu"]
    (prediction,) = predict.main(["--checkpoint", str(tmp_path / "model"), *options])
    expected = (torch.tensor(prediction.logits) / 2).softmax(0)
    (row,) = predicted(tmp_path / "out")
    assert [float(row[name]) for name in ham10000.CLASSES] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.training
def test_predict_with_and_without_stacks(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    data = folders["psinkd"]
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    names = sorted(path.stem for path in (data / "dermoscopy").iterdir())[:2]
    for number in range(1, 5):
        (stacks / f"{names[0]}_{number}.png").write_bytes((data / "rcm" / f"{names[0]}_{number}.png").read_bytes())
    images = [str(data / "dermoscopy" / f"{name}.jpg") for name in names]
    fixed = ["--checkpoint", str(run("psinkd_rcm_cls") / "best"), "--images", *images, "--device", "cpu"]
    predict.main([*fixed, "--out", str(tmp_path / "with"), "--stacks", str(stacks)])
    predict.main([*fixed, "--out", str(tmp_path / "without")])
    both, alone = predicted(tmp_path / "with"), predicted(tmp_path / "without")
    assert both[0] != alone[0] and both[1] == alone[1]
    (stacks / f"{names[0]}_4.png").unlink()
    with pytest.raises(SystemExit, match=rf"stacks: {names[0]} has 3 slices, the model takes 4"):
        predict.main([*fixed, "--out", str(tmp_path / "with"), "--stacks", str(stacks)])


IMAGES = {
    "ham10000_cls": ham10000.IMAGE_FOLDERS[0],
    "isic2019_cls": isic2019.IMAGE_FOLDER,
    "isic2018_seg": isic2018.IMAGE_FOLDER,
    "kvasir_seg": "images",
    "psinkd_rcm_cls": "dermoscopy",
}


@pytest.mark.training
@pytest.mark.parametrize("config", IMAGES)
def test_predict_on_each_data_set(config: str, run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    data, best = folders[data_of(config)], str(run(config) / "best")
    images = sorted((data / IMAGES[config]).iterdir())
    predict.main(["--checkpoint", best, "--images", str(images[0].parent), "--out", str(tmp_path), "--device", "cpu"])
    assert [row["id"] for row in predicted(tmp_path)] == [image.stem for image in images]
