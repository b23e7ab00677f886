"""Figures, and visualize.py: class activation maps and outlines."""

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import charts
import drawing
import figures
import numpy as np
import pytest
import torch
import visualize
from charts import draw_confusion, draw_label_confusions, draw_reliability
from datasets import DataError, MaskFormat
from datasets.ham10000 import CLASSES, IMAGE_FOLDERS, MASK_FOLDER
from datasets.synthetic import write_dataset
from figures import Cell, ColorBar, check_figure, draw_grid
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import mfsf2

EXAMPLES = Path(visualize.__file__).parent
TRAINED = "mfsf2_tiny_clsseg.ham10000"
LAYERS = ["background", "epidermis", "dermis"]
LONG = "actinic keratosis / intraepithelial carcinoma_of_a_name_that_no_cell_can_hold_in_one_line $5 $x"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset("ham10000", tmp_path_factory.mktemp("data") / "ham", lesions=1)


@pytest.fixture(scope="module")
def images(data: Path) -> list[Path]:
    return sorted((data / IMAGE_FOLDERS[0]).iterdir())


@pytest.fixture(scope="module")
def masks(data: Path, images: list[Path]) -> list[str]:
    return [str(data / MASK_FOLDER / f"{image.stem}_segmentation.png") for image in images]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of untrained models, by name."""
    root = tmp_path_factory.mktemp("models")
    made: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[str] | None]] = {
        "cls": ("cls", {}, {}, list(CLASSES)),
        "clsseg": ("clsseg", {}, {}, list(CLASSES)),
        "seg": ("seg", {}, {}, None),
        "rcm_cls": ("rcm_cls", {"num_classes": 3}, {}, None),
        "layers": ("seg", {"num_classes": 3}, {"mask_names": LAYERS, "ignore_index": 255}, None),
        "one": ("cls", {"num_classes": 1}, {}, ["malignant"]),
        "several": ("cls", {"num_classes": 3}, {"multi_label": True}, ["streaks", "veil", "globules"]),
    }
    for name, (task, args, cfg, labels) in made.items():
        torch.manual_seed(0)
        model: Any = mfsf2.create_model(f"mfsf2_tiny_{task}", **args)
        model.pretrained_cfg.update(input_size=(3, 64, 64), **cfg)
        mfsf2.save_pretrained(model, root / name / "best", labels)
    return {name: str(root / name / "best") for name in made}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    kept: list[Figure] = []

    def keep(figure: Figure, path: Path) -> None:
        kept.append(figure)
        drawing.save(figure, path)

    for module in (charts, figures):
        monkeypatch.setattr(module, "save", keep)
    return kept


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[list[Cell]], list[str], str]]:
    """Cells, titles and captions of the grids that visualize.py draws."""
    kept: list[tuple[list[list[Cell]], list[str], str]] = []

    def keep(rows: Any, titles: Any, caption: str, path: Path, bar: ColorBar | None = None) -> None:
        kept.append((rows, titles, caption))
        draw_grid(rows, titles, caption, path, bar)

    monkeypatch.setattr(visualize, "draw_grid", keep)
    return kept


def texts_of(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def check_apart(figure: Figure) -> None:
    """No two upright texts overlap; slanted ones have no tight box."""
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts_of(figure) if text.get_rotation() in (0, 90)]
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, down) < 1, (first, second)


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB")).astype(int)


def has_color(pixels: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels - color).max(-1) < 30).any())


def test_palette() -> None:
    for number in (1, 2, 3, 8, 9, 256):
        colors = figures.palette(number)
        assert len(colors) == len(set(colors)) == number and colors[0] == (0, 0, 0)
        assert all(type(value) is int and 0 <= value <= 255 for color in colors for value in color)
        assert colors[:8] == list(figures.PALETTE[:number])


def test_scripts_that_draw_nothing_load_no_matplotlib() -> None:
    code = "import sys, figures, visualize; sys.exit('matplotlib' in sys.modules or 'accelerate' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, check=True, timeout=300)


def test_confusion(tmp_path: Path, drawn: list[Figure]) -> None:
    matrix = torch.tensor([[3, 1, 0], [0, 0, 0], [2, 10_000, 998]])
    draw_confusion(matrix, ["a", LONG, "c"], tmp_path / "a.png")
    shown = [text.get_text() for text in texts_of(drawn[0])]
    assert [text for text in shown if text.split("\n")[0].isdigit()] == [
        *("3\n75%", "1\n25%", "0\n0%", "0", "0", "0"),
        *("2\n0%", "10000\n91%", "998\n9%"),
    ]
    assert {"predicted class", "true class", "share of true class"} <= set(shown)
    check_apart(drawn[0])
    draw_confusion(torch.eye(100).long(), [f"class {index}" for index in range(100)], tmp_path / "many.png")
    assert max(pixels_of(tmp_path / "many.png").shape) < 5000


def test_confusions_of_labels(tmp_path: Path, drawn: list[Figure]) -> None:
    matrices = torch.arange(24).view(6, 2, 2)
    draw_label_confusions(matrices, [LONG, *"bcdef"], tmp_path / "a.pdf")
    panels = drawn[0].axes
    assert len(panels) == 6 and panels[5].get_title() == "f"
    assert [text.get_text() for text in panels[5].texts] == ["20\n49%", "21\n51%", "22\n49%", "23\n51%"]
    check_apart(drawn[0])


def test_reliability(tmp_path: Path, drawn: list[Figure]) -> None:
    curves = {"a": [(0.05, 0.2, 1), (0.5, 0.4, 3), (1.0, 0.9, 4)], "b": [(0.7, 0.7, 5)]}
    draw_reliability(curves, tmp_path / "a.png")
    upper, lower = drawn[0].axes
    assert [line.get_label() for line in upper.lines] == ["calibrated", "a", "b"]
    assert np.array(upper.lines[1].get_xydata()).tolist() == [[0.05, 0.2], [0.5, 0.4], [1.0, 0.9]]
    shares: Any = lower.patches[0]
    values, edges, _ = shares.get_data()
    assert values[[0, 7, 14]].tolist() == [0.125, 0.375, 0.5] and values.sum() == 1 and len(edges) == 16
    assert upper.get_xlim() == lower.get_xlim() == (0, 1)
    assert upper.get_position().x0 == lower.get_position().x0 and upper.get_position().x1 == lower.get_position().x1
    check_apart(drawn[0])


def test_texts_of_a_grid_do_not_overlap(tmp_path: Path, drawn: list[Figure]) -> None:
    picture, other = torch.full((3, 30, 40), 200, dtype=torch.uint8), torch.zeros(3, 50, 40, dtype=torch.uint8)
    heat = torch.rand(3, 3)
    outlines = figures.outlines_of(torch.arange(1200).view(30, 40) // 400, MaskFormat(("a", LONG, "c")), True)
    rows = [[Cell(picture, note=LONG, label=LONG), Cell(other, heat=heat, note=f"{LONG}\n{LONG}"), Cell(picture)]] * 3
    rows[1] = [Cell(picture, outlines=outlines), Cell(other, note="short", label="$broken"), Cell(picture, note=LONG)]
    draw_grid(rows, [LONG, "b", "$c"], f"$F_2$; {LONG}", tmp_path / "a.png", ColorBar(LONG))
    assert len(drawn[0].axes) == 10
    check_apart(drawn[0])
    shown = "".join(text.get_text() for text in texts_of(drawn[0]))
    assert "actinic" in shown and "…" in shown and "$broken" in shown and "short" in shown


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("text", ["", "a", LONG, "x" * 200, "a\nb", "\udcff bytes", "中文"])
def test_wrapped_text(text: str) -> None:
    lines = drawing.wrap(text, 1.0, 8, 3).split("\n")
    assert len(lines) <= 3 and all(drawing.text_width(line, 8) <= 1.0 for line in lines)
    whole = drawing.wrap(text, 1.0, 8, 1000)
    kept = re.sub(r"\s", "", text.encode(errors="replace").decode())
    assert re.sub(r"\s", "", whole) == kept and (("…" in lines[-1]) == (len(whole.split("\n")) > 3))


@pytest.mark.parametrize("size", [53, 64, 128, 224])
def test_the_default_map_is_the_finest(size: int, images: list[Path], tmp_path: Path, grids: list[Any]) -> None:
    """It has 14 x 14 cells at least."""
    model: Any = mfsf2.create_model("mfsf2_tiny_cls")
    model.pretrained_cfg.update(input_size=(3, size, size), crop_pct=1.0, crop_mode="squash")
    mfsf2.save_pretrained(model, tmp_path / "model")
    given = ["--checkpoints", str(tmp_path / "model"), "--images", str(images[0]), "--out", str(tmp_path / "a.png")]
    visualize.main(["gradcam", *given])
    (((_, cell), *_), _, caption) = grids[0]
    side = -(-size // 4)
    assert cell.heat.shape == (side, side) and side >= 14 and caption.startswith("Grad-CAM on $F_1$")


@pytest.mark.parametrize(("stage", "size"), [(2, 64), (4, 96)])
def test_class_activation_is_the_gradient(stage: int, size: int, images: list[Path]) -> None:
    """Against the definition: finite differences of the logit along each channel of the fused map."""
    model = visualize.load_with("mfsf2_tiny_cls.ham10000", "head").double()
    model.pretrained_cfg["input_size"] = (3, size, size)
    x = visualize.prepare_image(images[0], model).double()
    heat, label, probability = visualize.class_activation(model, x, stage)
    fusion = model.encoder.fusion.stages[stage - 1]
    assert heat.any() and not fusion._forward_hooks
    kept: list[torch.Tensor] = []
    with fusion.register_forward_hook(lambda _m, _i, output: kept.append(output)), torch.inference_mode():
        logits = model(x)
    assert label == logits[0].argmax()
    assert probability == pytest.approx((logits / model.pretrained_cfg["temperature"]).softmax(1).max().item())
    weights = []
    for channel in range(kept[0].shape[1]):
        change = torch.zeros_like(kept[0])
        change[:, channel] = 1e-5
        moved = fusion.register_forward_hook(lambda _m, _i, output, c=change: output + c)
        with moved, torch.inference_mode():
            weights.append((model(x)[0, label] - logits[0, label]).item() / 1e-5)
    expected = (torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1) * kept[0][0]).sum(0).relu()
    torch.testing.assert_close(heat, expected / expected.amax(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("suffix", ["png", "PNG", "pdf", "svg", "jpg", "tif"])
def test_formats(suffix: str, models: dict[str, str], images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / f"a.{suffix}"
    given = ["--checkpoints", models["cls"], "--images", str(images[0]), "--out", str(out)]
    visualize.main(["gradcam", *given])
    content = out.read_bytes()
    if suffix in ("pdf", "svg"):
        assert content.startswith({"pdf": b"%PDF", "svg": b"<?xml"}[suffix]) and b"Type3" not in content
    else:
        with Image.open(out) as image:
            assert image.width > 700 and image.format == {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, "PNG")


def test_gradcam(
    models: dict[str, str],
    images: list[Path],
    tmp_path: Path,
    grids: list[Any],
    drawn: list[Figure],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A row of two groups: the image with its true class, and what each of two models sees."""
    labels = [*CLASSES][: len(images)]
    out = tmp_path / "a.png"
    visualize.main(
        [
            *("gradcam", "--checkpoints", TRAINED, models["clsseg"], "--images", *map(str, images)),
            *("--labels", *labels, "--columns", "2", "--out", str(out)),
        ]
    )
    assert capsys.readouterr().out == f"{out}\n"
    ((rows, titles, caption),) = grids
    assert titles == ["input", TRAINED, "clsseg"] * 2 and caption.startswith("Grad-CAM on $F_1$; research")
    assert [len(row) for row in rows] == [6] * (len(images) // 2) + [3] * (len(images) % 2)
    cells = [cell for row in rows for cell in row]
    assert [cell.label for cell in cells[::3]] == [image.stem for image in images]
    assert [cell.note for cell in cells[::3]] == [f"true: {label}" for label in labels]
    assert all(re.match(rf"predicted: ({'|'.join(CLASSES)}) \((0\.\d\d|1\.00)\)", cell.note) for cell in cells[1::3])
    assert [tuple(cell.heat.shape) for cell in cells[1:3]] == [(32, 32), (16, 16)]
    bars = [axis for axis in drawn[0].axes if "relative" in axis.get_ylabel()]
    assert len(bars) == 1
    check_apart(drawn[0])


def test_stage(models: dict[str, str], images: list[Path], tmp_path: Path, grids: list[Any]) -> None:
    given = ["--checkpoints", models["cls"], "--images", str(images[0]), "--out", str(tmp_path / "a.png")]
    for stage in (1, 3):
        visualize.main(["gradcam", *given, "--stage", str(stage)])
    assert [tuple(rows[0][1].heat.shape) for rows, _, _ in grids] == [(16, 16), (4, 4)]
    assert [caption.split(";")[0] for _, _, caption in grids] == ["Grad-CAM on $F_1$", "Grad-CAM on $F_3$"]


@pytest.mark.parametrize("name", ["one", "several", "rcm_cls"])
def test_classes_of_other_models(
    name: str, models: dict[str, str], images: list[Path], tmp_path: Path, grids: list[Any]
) -> None:
    """One logit and several classes at once have sigmoids; classes without names are numbered."""
    given = ["--checkpoints", models[name], "--images", str(images[0]), "--out", str(tmp_path / "a.png")]
    visualize.main(["gradcam", *given, "--labels", "whatever the user calls it"])
    model: Any = mfsf2.create_model(f"local-dir:{models[name]}").eval()
    with torch.inference_mode():
        logits = model(visualize.prepare_image(images[0], model))[0]
    best = int(logits.argmax())
    if name == "rcm_cls":
        expected = f"predicted: class {best} ({logits.softmax(0)[best]:.2f})"
    else:
        expected = f"{model.pretrained_cfg['label_names'][best]} ({logits[best].sigmoid():.2f})"
    assert grids[0][0][0][1].note.split("\n")[0] == expected
    assert grids[0][0][0][0].note == "true: whatever the user calls it"


def test_nothing_speaks_for_a_class(
    models: dict[str, str], images: list[Path], tmp_path: Path, grids: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visualize, "class_activation", lambda *_: (torch.zeros(4, 4), 1, 0.5))
    given = ["--checkpoints", models["cls"], "--images", str(images[0]), "--out", str(tmp_path / "a.png")]
    visualize.main(["gradcam", *given])
    assert grids[0][0][0][1].note == f"predicted: {[*CLASSES][1]} (0.50)\nno evidence on this map"


def test_contours(
    models: dict[str, str], images: list[Path], masks: list[str], tmp_path: Path, grids: list[Any], drawn: list[Figure]
) -> None:
    given = ["--images", *map(str, images[:2]), "--out", str(tmp_path / "a.png")]
    checkpoints = ["--checkpoints", TRAINED, "mfsf2_tiny_seg.ham10000"]
    visualize.main(["contours", *checkpoints, *given, "--masks", *masks[:2], "--titles", "both", "one"])
    ((rows, titles, _),) = grids
    assert titles == ["input", "both", "one"]
    notes = [cell.note for row in rows for cell in row]
    assert notes[0] == notes[3] == "" and all(re.fullmatch(r"Dice [01]\.\d{3}", note) for note in notes[1:3])
    pixels = pixels_of(tmp_path / "a.png")
    green = (pixels[..., 1] > 200) & (pixels[..., 0] < 60) & (pixels[..., 2] < 60)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    # Without the legend.
    thirds = [np.array_split(color[: int(0.85 * len(pixels))], 3, axis=1) for color in (green, red)]
    assert all(third.any() for third in thirds[0])
    assert [bool(third.any()) for third in thirds[1]] == [False, True, True]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["true", "predicted"]
    check_apart(drawn[0])


@pytest.fixture
def layered(images: list[Path], tmp_path: Path) -> list[str]:
    """A mask of three classes, with pixels of no class."""
    with Image.open(images[0]) as image:
        mask = np.zeros((image.height, image.width), np.uint8)
    mask[20:70, 20:90], mask[30:60, 40:70], mask[:10] = 1, 2, 255
    Image.fromarray(mask).save(tmp_path / "layers.png")
    return [str(tmp_path / "layers.png")]


def test_several_mask_classes(
    models: dict[str, str],
    images: list[Path],
    layered: list[str],
    tmp_path: Path,
    grids: list[Any],
    drawn: list[Figure],
) -> None:
    given = ["--checkpoints", models["layers"], "--images", str(images[0]), "--out", str(tmp_path / "a.png")]
    visualize.main(["contours", *given, "--masks", *layered])
    (row,) = grids[0][0]
    truth = [outline for outline in row[1].outlines if not outline.is_dashed]
    assert [outline.label for outline in truth] == LAYERS[1:] and [int(o.mask.sum()) for o in truth] == [2600, 900]
    assert [outline.label for outline in row[1].outlines if outline.is_dashed] == LAYERS[1:]
    assert row[1].note.startswith("mean Dice 0.") and row[0].outlines == truth
    legend = drawn[0].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [*LAYERS[1:], "true", "predicted"]
    assert [line.get_linestyle() for line in legend.get_lines()] == ["-", "-", "-", "--"]
    pixels = pixels_of(tmp_path / "a.png")
    # The input's cell.
    left = pixels[: int(0.6 * len(pixels)), : pixels.shape[1] // 2]
    first, second, third = figures.palette(4)[1:]
    assert has_color(left, first) and has_color(left, second) and not has_color(left, third)

    visualize.main(["contours", *given, "--columns", "3"])
    assert [text.get_text() for text in drawn[1].legends[0].get_texts()] == [*LAYERS[1:], "predicted"]
    assert grids[1][0][0][0].outlines == [] and len(grids[1][1]) == 2


def test_folders_of_images_without_earlier_figures(
    models: dict[str, str], images: list[Path], tmp_path: Path, grids: list[Any]
) -> None:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "more/c.png"):
        with Image.open(images[0]) as image:
            image.save(folder / name)
    (folder / "notes.txt").write_text("text")
    for name in ("figure.png", "figure.png", "other.png"):
        given = ["--images", str(folder), str(images[1]), "--out", str(folder / name)]
        visualize.main(["gradcam", "--checkpoints", models["cls"], *given])
    expected = ["a", "b", "c", images[1].stem]
    assert [[row[0].label for row in rows] for rows, _, _ in grids] == [expected] * 3


def test_figures_replace_only_figures(models: dict[str, str], images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    given = ["gradcam", "--checkpoints", models["cls"], "--images", str(images[0]), "--out", str(out)]
    out.write_bytes(b"of somebody")
    for _ in range(2):
        with pytest.raises(SystemExit, match=r"a\.png: there already and not written by this script"):
            visualize.main(given)
        assert out.read_bytes() == b"of somebody"
    out.unlink()
    visualize.main(given)
    first = out.read_bytes()
    visualize.main([*given, "--stage", "4"])
    assert out.read_bytes() != first
    out.write_bytes(first + b"edited")
    with pytest.raises(SystemExit, match="changed since"):
        visualize.main(given)
    assert out.read_bytes() == first + b"edited"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mfsf2-written", "a.png"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: draw_confusion(torch.eye(2).long(), "ab", path),
        lambda path: draw_label_confusions(torch.ones(1, 2, 2).long(), "a", path),
        lambda path: draw_reliability({"a": [(0.5, 0.5, 1)]}, path),
        lambda path: draw_grid([[Cell(torch.zeros(3, 4, 4, dtype=torch.uint8))]], ["a"], "", path),
    ],
)
def test_all_figures_spare_files_of_others(draw: Callable[[Path], None], tmp_path: Path) -> None:
    out = tmp_path / "a.pdf"
    out.write_bytes(b"of somebody")
    with pytest.raises(DataError, match="not written by this script"):
        draw(out)
    assert out.read_bytes() == b"of somebody"
    draw(tmp_path / "b.pdf")
    draw(tmp_path / "b.pdf")
    assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF")


def test_check_figure(tmp_path: Path) -> None:
    (tmp_path / "image.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "image.png")
    for message, path, inputs in [
        ("no such folder", tmp_path / "absent" / "a.png", []),
        ("this is a folder", tmp_path, []),
        ("one of the images or masks", tmp_path / "image.png", [tmp_path / "image.png"]),
        ("one of the images or masks", tmp_path / "link.png", [tmp_path / "image.png"]),
        (r"figures are files that end in .*\.pdf, \.png", tmp_path / "a.eps", []),
        (r"figures are files that end in", tmp_path / "a", []),
        ("not written by this script", tmp_path / "image.png", []),
    ]:
        with pytest.raises(DataError, match=message):
            check_figure(path, inputs)
    check_figure(tmp_path / "new.png", [tmp_path / "image.png"])


def test_errors(
    models: dict[str, str], images: list[Path], masks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(message: str, figure: str, model: str, *more: str, out: str = "a.png") -> None:
        given = ["--checkpoints", models.get(model, model), "--images", str(images[0]), "--out", str(tmp_path / out)]
        with pytest.raises(SystemExit, match=message):
            visualize.main([figure, *given, *more])
        assert not (tmp_path / out).exists()

    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_cls", num_classes=0), tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("no image")
    with Image.open(masks[0]) as mask:
        mask.point(lambda value: 100 if value else 0).save(tmp_path / "hundred.png")
    (tmp_path / "many").mkdir()
    for index in range(101):
        (tmp_path / "many" / f"{index}.jpg").touch()
    image = str(images[0])
    check("mfsf2_seg predicts no classes", "gradcam", "seg")
    check("mfsf2_cls predicts no classes", "gradcam", str(tmp_path / "none"))
    check("mfsf2_cls predicts no masks", "contours", "cls")
    check("the fused maps are 1 to 4", "gradcam", "cls", "--stage", "5")
    check("the fused maps are 1 to 4", "gradcam", "cls", "--stage", "0")
    check("--masks: 2 for 1 images", "contours", "seg", "--masks", image, image)
    check("--titles: 2 for 1 models", "gradcam", "cls", "--titles", "a", "b")
    check("--labels: 2 for 1 images", "gradcam", "cls", "--labels", "nv", "nv")
    check(r"--labels: nevus is not one of the classes akiec, bcc", "gradcam", "cls", "--labels", "nevus")
    check("--columns 0 must be at least 1", "gradcam", "cls", "--columns", "0")
    check(r"figures are files that end in .*\.png", "gradcam", "cls", out="a.xyz")
    check("no such folder", "gradcam", "cls", out="absent/a.png")
    check("checkpoint .*absent", "gradcam", str(tmp_path / "absent"))
    check("show different classes", "contours", "seg", "--checkpoints", models["seg"], models["layers"])
    check("neither a file nor a folder", "gradcam", "cls", "--images", str(tmp_path / "absent.jpg"))
    check("no images in", "gradcam", "cls", "--images", str(tmp_path / "empty"))
    check("101 are too many for a figure", "gradcam", "cls", "--images", str(tmp_path / "many"))
    check("not a readable image", "gradcam", "cls", "--images", str(tmp_path / "text.jpg"))
    check("not a usable mask", "contours", "seg", "--masks", str(tmp_path / "text.jpg"))
    check("values 0, 100, expected 0 to 2", "contours", "layers", "--masks", str(tmp_path / "hundred.png"))
    content = images[0].read_bytes()
    with pytest.raises(SystemExit, match="one of the images or masks, which would be lost"):
        visualize.main(["gradcam", "--checkpoints", models["cls"], "--images", image, "--out", image])
    assert images[0].read_bytes() == content
    capsys.readouterr()
    check("2", "explain", "cls")
    check("2", "gradcam", "cls", "--stge", "1")
    error = capsys.readouterr().err
    assert "stge" in error and "usage" not in error
