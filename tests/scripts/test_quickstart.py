"""The quickstart and the image that it generates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quickstart
import torch
from engine.lesion import generate_lesion
from PIL import Image
from readers.ham10000 import CLASSES, IMAGE_FOLDERS, MASK_FOLDER
from readers.images import open_mask, open_rgb
from readers.synthetic import write_dataset

import mfsf2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset("ham10000", tmp_path_factory.mktemp("data") / "ham", lesions=1)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network of each task, untrained, as a training saves it."""
    root = tmp_path_factory.mktemp("networks")
    for task in ("cls", "seg", "rcm_cls"):
        network: Any = mfsf2.create_model(f"mfsf2_tiny_{task}", **({} if task == "seg" else {"num_classes": 7}))
        network.pretrained_cfg.update(input_size=(3, 64, 64), crop_pct=1.0, crop_mode="squash")
        mfsf2.save_pretrained(network, root / task, None if task == "seg" else list(CLASSES))
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
    assert 2 * (view.mask & truth).sum() / (view.mask.sum() + truth.sum()) > 0.8
    assert len(view.gates) == 4 and all(0 <= gate.min() <= gate.max() <= 1 for gate in view.gates)
    with Image.open(tmp_path / "quickstart.png") as figure:
        assert figure.width > 4 * figure.height > 400


@pytest.mark.parametrize("task", ["cls", "rcm_cls"])
def test_classes(
    task: str, data: Path, networks: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(path) for path in images_of(data)]
    figure = tmp_path / "a.png"
    views = quickstart.main([*images, "--checkpoint", str(networks[task]), "--figure", str(figure)])
    printed = capsys.readouterr().out
    assert all(image in printed for image in images) and "not a diagnostic device" in printed
    assert len(views) == 2 and figure.is_file()
    for view in views:
        assert set(view.probabilities) == set(CLASSES) and view.mask is None
        assert list(view.probabilities.values()) == sorted(view.probabilities.values(), reverse=True)


@pytest.mark.parametrize("classes", [0, 1, 7])
def test_without_names_of_classes(classes: int, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the number of classes is, no disease is named that the network was not told of."""
    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_clsseg", num_classes=classes), tmp_path / "net")
    given = ["--checkpoint", str(tmp_path / "net"), "--figure", str(tmp_path / "a.png")]
    (view,) = quickstart.main([str(images_of(data)[0]), *given])
    assert set(view.probabilities) == {f"class {index}" for index in range(classes)}
    printed = capsys.readouterr().out
    assert "Melano" not in printed and "of it is predicted to be foreground" in printed


def test_temperature(tmp_path: Path) -> None:
    network: Any = mfsf2.create_model("mfsf2_tiny_cls").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        network.pretrained_cfg["temperature"] = 2.0
        expected = (network(x) / 2).softmax(1)[0]
        found = quickstart.classify(network, x)
    torch.testing.assert_close(torch.tensor([found[f"class {index}"] for index in range(7)]), expected)


def test_gates_are_those_of_the_formula(networks: dict[str, Path]) -> None:
    network: Any = mfsf2.create_model(f"local-dir:{networks['seg']}").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        gates = quickstart.gate_maps(network, x)
        stage = network.encoder.fusion.stages[1]
        cnn_maps, transformer_maps = network.encoder(x)
        r, p = stage.align(cnn_maps[1], transformer_maps[1])
        both = torch.cat([stage.mffe_cnn(r), stage.mffe_transformer(p)], 1)
        attn = stage.gate.attn
        hidden = attn.bn(torch.nn.functional.conv2d(both, attn.conv.weight, attn.conv.bias)).relu()
        expected = stage.gate.attn_out(hidden).sigmoid()[0, 0]
    torch.testing.assert_close(gates[1], expected)
    assert not any(stage.gate._forward_pre_hooks for stage in network.encoder.fusion.stages)


def test_predicted_and_true_outlines(data: Path, networks: dict[str, Path], tmp_path: Path) -> None:
    images = images_of(data)
    masks = [data / MASK_FOLDER / f"{image.stem}_segmentation.png" for image in images]
    given = [*map(str, images), "--checkpoint", str(networks["seg"]), "--figure", str(tmp_path / "a.png")]
    assert [view.probabilities for view in quickstart.main(given)] == [{}, {}]
    quickstart.main([*given[:-1], str(tmp_path / "b.png"), "--masks", *map(str, masks)])
    with Image.open(tmp_path / "a.png") as without, Image.open(tmp_path / "b.png") as figure:
        assert figure.width > 1.15 * without.width and figure.height > 200
        pixels = np.array(figure.convert("RGB")).astype(int)
    green = (pixels[..., 1] > 200) & (pixels[..., 0] < 60) & (pixels[..., 2] < 60)
    sixth = green.shape[1] // 6
    rows = np.array_split(green, 2)
    assert all(row[:, sixth : 2 * sixth].any() and not row[:, :sixth].any() for row in rows)


def test_errors(data: Path, networks: dict[str, Path], tmp_path: Path) -> None:
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
        (r"small\.png: mask of \(10, 10\) pixels for an image of", [image, "--masks", mask]),
        (r"--figure .*one of the images or masks", [image, "--figure", image]),
        (r"--figure .*one of the images or masks", [image, "--masks", mask, "--figure", mask]),
        (r"--figure .*this is a folder", [image, "--figure", str(tmp_path)]),
        (r"--figure .*figures are files that end in", [image, "--figure", str(tmp_path / "a.pgf")]),
        (r"--checkpoint .*or one of mfsf2_tiny_cls\.ham10000", [image, "--checkpoint", "mfsf2_tiny_cls"]),
        (r"--figure .*no such folder", [image, "--figure", str(tmp_path / "absent" / "a.png")]),
        (r"--figure .*figures are files that end in", [image, "--figure", str(tmp_path / "a.xyz")]),
        (r"--checkpoint .*config\.json", [image, "--checkpoint", str(tmp_path)]),
        (r"give the folder", [image, "--checkpoint", str(networks["cls"] / "model.safetensors")]),
        (r"takes 4 channels, images here have 3", [image, "--checkpoint", str(tmp_path / "four")]),
    ]:
        with pytest.raises(SystemExit, match=message):
            quickstart.main(given)
    assert Path(image).read_bytes() == content


def test_names_that_look_like_formulas_and_extreme_shapes(networks: dict[str, Path], tmp_path: Path) -> None:
    for name, size in (("dollar_$5_$x.png", (40, 30)), ("high.png", (1, 300)), ("wide.png", (900, 2))):
        Image.new("RGB", size, "tan").save(tmp_path / name)
        figure = tmp_path / "a.png"
        quickstart.main(
            [str(tmp_path / name), "--checkpoint", str(networks["seg"]), "--figure", str(figure)],
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
    assert open_mask(tmp_path / "turned.png").size == image.size


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
