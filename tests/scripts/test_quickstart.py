"""The quickstart and the image that it generates."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quickstart
import torch
from datasets.ham10000 import CLASSES, IMAGE_FOLDERS, MASK_FOLDER
from datasets.images import open_rgb
from datasets.masks import open_mask
from datasets.synthetic import write_dataset
from figures import Cell, draw_grid
from inference import prepare_image
from lesion import generate_lesion
from PIL import Image

import mfsf2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset("ham10000", tmp_path_factory.mktemp("data") / "ham", lesions=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each task, untrained, as a training saves it."""
    root = tmp_path_factory.mktemp("models")
    for task in ("cls", "seg", "rcm_cls"):
        model: Any = mfsf2.create_model(f"mfsf2_tiny_{task}", **({} if task == "seg" else {"num_classes": 7}))
        model.pretrained_cfg.update(input_size=(3, 64, 64), crop_pct=1.0, crop_mode="squash")
        mfsf2.save_pretrained(model, root / task, None if task == "seg" else list(CLASSES))
    return {task: root / task for task in ("cls", "seg", "rcm_cls")}


def images_of(data: Path, number: int = 2) -> list[Path]:
    return sorted((data / IMAGE_FOLDERS[0]).iterdir())[:number]


def test_without_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A generated image and the weights that come with the package."""
    monkeypatch.chdir(tmp_path)
    (view,) = quickstart.main([])
    printed = capsys.readouterr().out
    assert "generated, of no patient" in printed and "not a diagnostic device" in printed
    assert all(f"{label:<6} {description}" in printed for label, description in CLASSES.items())
    assert set(view.probabilities) == set(CLASSES) and sum(view.probabilities.values()) == pytest.approx(1, abs=1e-5)
    truth = torch.from_numpy(np.array(generate_lesion(quickstart.SEED)[1])) > 127
    assert view.mask is not None and view.mask.shape == truth.shape
    assert view.mask.max() == 1 and 2 * (view.mask * truth).sum() / (view.mask.sum() + truth.sum()) > 0.8
    assert len(view.gates) == 4 and all(0 <= gate.min() <= gate.max() <= 1 for gate in view.gates)
    with Image.open(tmp_path / "quickstart.png") as figure:
        assert figure.width > 4 * figure.height > 400


@pytest.mark.parametrize("task", ["cls", "rcm_cls"])
def test_classes(
    task: str, data: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(path) for path in images_of(data)]
    figure = tmp_path / "a.png"
    views = quickstart.main([*images, "--checkpoint", str(models[task]), "--figure", str(figure)])
    printed = capsys.readouterr().out
    assert all(image in printed for image in images) and "not a diagnostic device" in printed
    assert len(views) == 2 and figure.is_file()
    for view in views:
        assert set(view.probabilities) == set(CLASSES) and view.mask is None
        assert list(view.probabilities.values()) == sorted(view.probabilities.values(), reverse=True)


@pytest.mark.parametrize("classes", [0, 1, 7])
def test_without_names_of_classes(classes: int, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the number of classes is, no disease is named that the model was not told of."""
    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_clsseg", num_classes=classes), tmp_path / "net")
    given = ["--checkpoint", str(tmp_path / "net"), "--figure", str(tmp_path / "a.png")]
    (view,) = quickstart.main([str(images_of(data)[0]), *given])
    assert set(view.probabilities) == {f"class {index}" for index in range(classes)}
    printed = capsys.readouterr().out
    assert "Melano" not in printed and "of it is predicted to be foreground" in printed


def test_temperature(tmp_path: Path) -> None:
    model: Any = mfsf2.create_model("mfsf2_tiny_cls").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        model.pretrained_cfg["temperature"] = 2.0
        expected = (model(x) / 2).softmax(1)[0]
        found = quickstart.classify(model, x)
    torch.testing.assert_close(torch.tensor([found[f"class {index}"] for index in range(7)]), expected)


@pytest.mark.parametrize("cfg", [{}, {"multi_label": True}])
def test_probabilities_of_labels(cfg: dict[str, Any], data: Path, tmp_path: Path) -> None:
    """One logit, or labels of which several may hold, have sigmoids."""
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", num_classes=3 if cfg else 1).eval()
    model.pretrained_cfg.update(input_size=(3, 64, 64), crop_pct=1.0, crop_mode="squash", **cfg)
    labels = ["streaks", "veil", "globules"] if cfg else ["malignant"]
    mfsf2.save_pretrained(model, tmp_path / "model", labels)
    given = ["--checkpoint", str(tmp_path / "model"), "--figure", str(tmp_path / "a.png")]
    (view,) = quickstart.main([str(images_of(data)[0]), *given])
    with torch.inference_mode():
        x = prepare_image(images_of(data)[0], model)
        expected = dict(zip(labels, model(x)[0].sigmoid().tolist()))
    assert view.probabilities == pytest.approx(expected, abs=0.01)
    assert list(view.probabilities.values()) == sorted(view.probabilities.values(), reverse=True)


def test_gates_are_those_of_the_formula(models: dict[str, Path]) -> None:
    model: Any = mfsf2.create_model(f"local-dir:{models['seg']}").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        gates = quickstart.gate_maps(model, x)
        stage = model.encoder.fusion.stages[1]
        cnn_maps, transformer_maps = model.encoder(x)
        r, p = stage.align(cnn_maps[1], transformer_maps[1])
        both = torch.cat([stage.mffe_cnn(r), stage.mffe_transformer(p)], 1)
        attn = stage.gate.attn
        hidden = attn.bn(torch.nn.functional.conv2d(both, attn.conv.weight, attn.conv.bias)).relu()
        expected = stage.gate.attn_out(hidden).sigmoid()[0, 0]
    torch.testing.assert_close(gates[1], expected)
    assert not any(stage.gate._forward_pre_hooks for stage in model.encoder.fusion.stages)


def test_predicted_and_true_outlines(data: Path, models: dict[str, Path], tmp_path: Path) -> None:
    images = images_of(data)
    masks = [data / MASK_FOLDER / f"{image.stem}_segmentation.png" for image in images]
    given = [*map(str, images), "--checkpoint", str(models["seg"]), "--figure", str(tmp_path / "a.png")]
    assert [view.probabilities for view in quickstart.main(given)] == [{}, {}]
    quickstart.main([*given[:-1], str(tmp_path / "b.png"), "--masks", *map(str, masks)])
    with Image.open(tmp_path / "a.png") as without, Image.open(tmp_path / "b.png") as figure:
        assert figure.width > 1.15 * without.width and figure.height > 200
        pixels = np.array(figure.convert("RGB")).astype(int)
    green = (pixels[..., 1] > 200) & (pixels[..., 0] < 60) & (pixels[..., 2] < 60)
    sixth = green.shape[1] // 6
    rows = np.array_split(green, 2)
    assert all(row[:, sixth : 2 * sixth].any() and not row[:, :sixth].any() for row in rows)


def test_several_mask_classes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Cell] = []

    def keep(rows: list[list[Cell]], *args: Any) -> None:
        kept.extend(rows[0])
        draw_grid(rows, *args)

    monkeypatch.setattr(quickstart, "draw_grid", keep)
    names = ["background", "epidermis", "dermis"]
    model: Any = mfsf2.create_model("mfsf2_tiny_seg", num_classes=3)
    model.pretrained_cfg.update(input_size=(3, 64, 64), mask_names=names, ignore_index=255)
    mfsf2.save_pretrained(model, tmp_path / "model")
    (image,) = images_of(data, 1)
    with Image.open(image) as opened:
        indices = np.zeros((opened.height, opened.width), np.uint8)
    indices[10:40, 10:60], indices[50:70, 10:60], indices[:5] = 1, 2, 255
    Image.fromarray(indices).save(tmp_path / "mask.png")
    given = ["--checkpoint", str(tmp_path / "model"), "--figure", str(tmp_path / "a.pdf")]
    (view,) = quickstart.main([str(image), *given, "--masks", str(tmp_path / "mask.png")])
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert view.mask is not None and view.mask.shape == indices.shape and view.mask.max() <= 2
    shares = [(view.mask == index).float().mean() for index in (1, 2)]
    printed = capsys.readouterr().out
    assert all(f"{share:6.1%}  of it is predicted to be {name}" in printed for share, name in zip(shares, names[1:]))
    predicted, truth = kept[0].outlines, kept[1].outlines
    assert [outline.label for outline in predicted] == [outline.label for outline in truth] == names[1:]
    assert all(outline.is_dashed for outline in predicted) and not any(outline.is_dashed for outline in truth)
    assert [int(outline.mask.sum()) for outline in truth] == [1500, 1000]
    assert all(torch.equal(outline.mask, view.mask == index) for index, outline in enumerate(predicted, 1))

    kept.clear()
    quickstart.main(given)
    assert len(kept) == 5 and kept[0].label == quickstart.GENERATED


def test_figures_replace_only_figures(data: Path, models: dict[str, Path], tmp_path: Path) -> None:
    figure = tmp_path / "a.png"
    figure.write_bytes(b"of somebody")
    given = [str(images_of(data)[0]), "--checkpoint", str(models["cls"]), "--figure", str(figure)]
    with pytest.raises(SystemExit, match="not written by this script"):
        quickstart.main(given)
    assert figure.read_bytes() == b"of somebody"
    figure.unlink()
    quickstart.main(given)
    first = figure.read_bytes()
    quickstart.main([str(images_of(data)[1]), *given[1:]])
    assert figure.read_bytes() != first


def test_packages_of_the_examples_extra_suffice(models: dict[str, Path], tmp_path: Path) -> None:
    """The README installs no more than that."""
    others = ["accelerate", "jsonargparse", "monai", "onnxruntime", "torchmetrics"]
    given = ["--checkpoint", str(models["cls"]), "--figure", str(tmp_path / "a.png")]
    code = f"import sys; sys.modules.update(dict.fromkeys({others})); import quickstart; quickstart.main({given})"
    subprocess.run([sys.executable, "-c", code], cwd=Path(quickstart.__file__).parent, check=True, timeout=300)
    assert (tmp_path / "a.png").is_file()


def test_errors(data: Path, models: dict[str, Path], tmp_path: Path) -> None:
    image = str(images_of(data)[0])
    (tmp_path / "text.jpg").write_text("no image")
    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_cls", in_chans=4), tmp_path / "four")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    Image.new("L", (10, 10), 255).save(tmp_path / "small.png")
    mask = str(tmp_path / "small.png")
    content = Path(image).read_bytes()
    for message, given in [
        (r"not a readable image", [str(tmp_path / "text.jpg")]),
        (r"not a readable image", [str(tmp_path / "absent.jpg")]),
        (r"--masks: 2 masks for 1 images", [image, "--masks", image, image]),
        (r"--masks: 1 masks for 0 images; give the images first", ["--masks", image]),
        (r"not a readable image: Image size \(200000000 pixels\)", [str(tmp_path / "bomb.png")]),
        (r"small\.png: not a usable mask: mask of 10x10 pixels for an image of", [image, "--masks", mask]),
        (r"--figure .*one of the images or masks", [image, "--figure", image]),
        (r"--figure .*one of the images or masks", [image, "--masks", mask, "--figure", mask]),
        (r"--figure .*this is a folder", [image, "--figure", str(tmp_path)]),
        (r"--figure .*figures are files that end in", [image, "--figure", str(tmp_path / "a.pgf")]),
        (r"--checkpoint .*or one of mfsf2_tiny_cls\.ham10000", [image, "--checkpoint", "mfsf2_tiny_cls"]),
        (r"--figure .*text\.jpg: there already and not written", [image, "--figure", str(tmp_path / "text.jpg")]),
        (r"--figure .*no such folder", [image, "--figure", str(tmp_path / "absent" / "a.png")]),
        (r"--figure .*figures are files that end in", [image, "--figure", str(tmp_path / "a.xyz")]),
        (r"--checkpoint .*config\.json", [image, "--checkpoint", str(tmp_path)]),
        (r"give the folder", [image, "--checkpoint", str(models["cls"] / "model.safetensors")]),
        (r"takes 4 channels, images here have 3", [image, "--checkpoint", str(tmp_path / "four")]),
    ]:
        with pytest.raises(SystemExit, match=message):
            quickstart.main(given)
    assert Path(image).read_bytes() == content and (tmp_path / "text.jpg").read_text() == "no image"


def test_a_typo_prints_the_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        quickstart.main(["--figur", "a.png", "--mask"])
    error = capsys.readouterr().err
    assert "--mask" in error and "usage" not in error


def test_names_that_look_like_formulas_and_extreme_shapes(models: dict[str, Path], tmp_path: Path) -> None:
    for name, size in (("dollar_$5_$x.png", (40, 30)), ("high.png", (1, 300)), ("wide.png", (900, 2))):
        Image.new("RGB", size, "tan").save(tmp_path / name)
        figure = tmp_path / "a.png"
        quickstart.main(
            [str(tmp_path / name), "--checkpoint", str(models["seg"]), "--figure", str(figure)],
        )
        with Image.open(figure) as drawn:
            assert drawn.width < 2000 and 150 < drawn.height < 1200, name


def test_images_as_viewers_show_them(tmp_path: Path) -> None:
    """Cameras store an image turned and say so."""
    image = Image.effect_noise((60, 40), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.array(open_rgb(tmp_path / "turned.png")), np.array(image))
    mask = Image.fromarray((np.arange(2400).reshape(40, 60) > 700).astype(np.uint8) * 255)
    mask.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "mask.png", exif=exif)
    assert np.array_equal(open_mask(tmp_path / "mask.png", tmp_path / "turned.png") * 255, np.array(mask))


def test_generated_lesions() -> None:
    image, mask = generate_lesion(3, (150, 100))
    again = generate_lesion(3, (150, 100))
    assert image.size == mask.size == (150, 100) and image.mode == "RGB"
    assert np.array_equal(np.array(image), np.array(again[0])) and np.array_equal(np.array(mask), np.array(again[1]))
    for seed in range(20):
        image, mask = generate_lesion(seed, (150, 100))
        inside, pixels = np.array(mask) > 127, np.array(image).astype(float)
        assert 0.04 < inside.mean() < 0.5, seed
        assert pixels[inside].mean() < 0.75 * pixels[~inside].mean(), seed
