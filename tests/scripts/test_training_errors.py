"""What goes wrong in front of and behind the scripts: clear messages, and nothing lost."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import predict
import pytest
import torch
import train
import visualize
from engine.checkpoint import load_checkpoint, save_checkpoint, write_text
from PIL import Image
from readers import DataError, hash_id
from readers.ham10000 import IMAGE_FOLDERS, MASK_FOLDER, METADATA
from readers.synthetic import write_dataset
from runs import arguments
from safetensors.torch import save_file

import mfsf2


@pytest.fixture
def ham(tmp_path: Path) -> Path:
    return write_dataset("ham10000", tmp_path / "ham", lesions=3)


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that no test changes."""
    return write_dataset("ham10000", tmp_path_factory.mktemp("data") / "ham", lesions=3)


@pytest.fixture(scope="module")
def trained(lesions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train.main(arguments("ham10000_clsseg", lesions, out))
    return out


def check_refused(message: str, *given: Any, config: str = "ham10000_clsseg") -> None:
    """The training ends with a message before it has written anything."""
    out = given[1]
    before = sorted(path.name for path in out.iterdir()) if out.exists() else None
    with pytest.raises(SystemExit, match=message):
        train.main(arguments(config, *given))
    assert (sorted(path.name for path in out.iterdir()) if out.exists() else None) == before


def drop_class(ham: Path) -> None:
    table = ham / METADATA[0]
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.endswith(",df\n")))


def drop_column(ham: Path) -> None:
    table = ham / METADATA[0]
    table.write_text(table.read_text().replace("lesion_id", "lesion", 1))


def drop_mask(ham: Path) -> None:
    next((ham / MASK_FOLDER).iterdir()).unlink()


def shrink_mask(ham: Path) -> None:
    for path in (ham / MASK_FOLDER).iterdir():
        Image.fromarray(np.zeros((5, 7), np.uint8)).save(path)


def darken_masks(ham: Path) -> None:
    for path in (ham / MASK_FOLDER).iterdir():
        with Image.open(path) as mask:
            ones = np.array(mask) // 255
        Image.fromarray(ones).save(path)


def break_image(ham: Path) -> None:
    for path in (ham / IMAGE_FOLDERS[0]).iterdir():
        path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_class, r"no image to train on of df"),
        (drop_column, r"no column lesion_id; it has lesion, image_id, dx"),
        (drop_mask, r"1 of 28 masks are missing"),
        (shrink_mask, r"mask of 7x5 pixels for an image of 120x90"),
        (darken_masks, r"values up to 1; in masks the foreground is above 127"),
        (break_image, r"records cannot be used, the first are\n .*not a readable image"),
    ],
)
def test_bad_data(change: Callable[[Path], None], message: str, ham: Path, tmp_path: Path) -> None:
    change(ham)
    check_refused(message, ham, tmp_path / "out")


def test_a_loss_that_is_no_number_ends_the_training(lesions: Path, tmp_path: Path) -> None:
    given = arguments("ham10000_clsseg", lesions, tmp_path / "out", "--optim.lr", "1e30", "--optim.epochs", "3")
    with pytest.raises(SystemExit, match=r"the loss of epoch \d is .*: try a lower optim\.lr"):
        train.main(given)


def test_folders_and_splits(lesions: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_refused(r"is not the folder of .*it does not exist or is empty", tmp_path / "none", out)
    polyps = write_dataset("kvasir", tmp_path / "polyps", lesions=2)
    split = ["--data.split", str(trained / "split.json")]
    message = "splits the data set ham10000, these images are kvasir"
    check_refused(message, polyps, out, *split, config="kvasir_seg")
    other = write_dataset("ham10000", tmp_path / "other", lesions=2)
    check_refused(r"is of other images: \d+ of its 28 are not here", other, out, *split)
    (tmp_path / "file").touch()
    check_refused("file is not a folder that can be written to", lesions, tmp_path / "file" / "run")
    check_refused("no such split file", lesions, out, "--data.split", str(tmp_path / "none.json"))
    few = write_dataset("kvasir", tmp_path / "few", lesions=1)
    for path in sorted((few / "images").iterdir())[1:]:
        path.unlink()
    check_refused("no image in val, test", few, out, config="kvasir_seg")


def test_resume(lesions: Path, trained: Path, tmp_path: Path) -> None:
    check_refused("holds a run already: give another --out, or --resume true", lesions, trained)
    changed = ["--resume", "true", "--optim.lr", "0.1", "--seed", "3"]
    check_refused(r"another one: optim\.lr was 0\.0003 and is 0\.1, seed was 0 and is 3", lesions, trained, *changed)
    check_refused(r"resume: no last\.pt, config\.yaml, split\.json in", lesions, tmp_path / "none", "--resume", "true")
    for name in ("config.yaml", "split.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / "last.pt").write_bytes((trained / "last.pt").read_bytes()[:10_000])
    check_refused(r"last\.pt cannot be read", lesions, tmp_path, "--resume", "true")
    torch.save({"network": {}}, tmp_path / "last.pt")
    check_refused(r"last\.pt has the format None, expected 'mfsf2-training-1'", lesions, tmp_path, "--resume", "true")
    # A run that is over is only finished again.
    results = train.main(arguments("ham10000_clsseg", lesions, trained, "--resume", "true"))
    assert results == json.loads((trained / "results.json").read_text())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--optim.learning_rate", "1"], "optim.learning_rate"),
        (["--optim.epochs", "many"], "many"),
        (["--optim.epochs", "0"], "optim.epochs=0 must be at least 1"),
        (["--optim.batch_size", "1"], "optim.batch_size=1 must be at least 2"),
        (["--input_size", "16"], "input_size=16 must be at least 29"),
        (["--optim.lr", "-1"], "optim.lr=-1.0 must be above 0"),
        (["--optim.ema_decay", "1"], "optim.ema_decay=1.0 must be from 0 to below 1"),
        (["--augment.scale", "[1.2, 0.8]"], "the smaller one first"),
        (["--augment.mixup", "0.2"], "augment.mixup=0.2 must be 0 for all tasks but cls"),
        (["--optim.lr", ".nan"], "optim.lr=nan must be above 0"),
        (["--optim.weight_decay", ".inf"], "optim.weight_decay=inf must be at least 0"),
        (["--augment.colour", "1.5"], "augment.colour=1.5 must be from 0 to below 1"),
        (["--optim.layer_decay", "0"], "optim.layer_decay=0.0 must be above 0 to 1"),
        (["--model.withhold", "0.5"], "model.withhold=0.5 must be 0 for all tasks but cls"),
        (["--loss.deep", "-1"], "loss.deep=-1.0 must be at least 0"),
        (["--data.name", "kvasir"], "task=clsseg cannot be learned from kvasir"),
        (["--data.name", "isic2020"], "isic2020"),
    ],
)
def test_arguments(
    given: list[str], message: str, lesions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main(arguments("ham10000_clsseg", lesions, tmp_path / "out", *given))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_home_folder(lesions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(lesions.parent))
    train.main(arguments("ham10000_cls", Path("~") / lesions.name, tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: cls\nlearning_rate: 3\n", "learning_rate"),
        ("task: cls\noptim:\n  epoch: 3\n", "epoch"),
        ("task: [cls\n", "config"),
        ("task: classify\n", "classify"),
    ],
)
def test_yaml(text: str, message: str, lesions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(text)
    given = ["--config", str(tmp_path / "a.yaml"), "--data.name", "ham10000", "--data.folder", str(lesions)]
    with pytest.raises(SystemExit, match="2"):
        train.main([*given, "--out", str(tmp_path / "out")])
    assert message in capsys.readouterr().err


def test_weights_that_do_not_fit(lesions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_refused(r"model\.cnn_weights=absent", lesions, out, "--model.cnn_weights", "absent.safetensors")
    save_file({"unrelated": torch.zeros(2)}, tmp_path / "other.safetensors")
    for field in ("cnn_weights", "checkpoint"):
        given = [f"--model.{field}", str(tmp_path / "other.safetensors")]
        check_refused(r"none of its 1 keys|unrelated", lesions, out, *given)
    check_refused(r"model: .*droprate", lesions, out, "--model.args", "{droprate: 1}")


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"x": torch.ones(3)})
    write_text(tmp_path / "a.txt", "old")
    with small_disk(50_000):
        with pytest.raises(DataError, match=r"last\.pt could not be written: .*; the one before it is as it was"):
            save_checkpoint(path, {"x": torch.ones(100_000)})
        with pytest.raises(DataError, match=r"a\.txt could not be written"):
            write_text(tmp_path / "a.txt", "new" * 50_000)
    assert torch.equal(load_checkpoint(path)["x"], torch.ones(3))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "last.pt"]


@pytest.mark.training
def test_disk_that_fills_up_during_a_training(lesions: Path, tmp_path: Path) -> None:
    """The network of 66 MB still fits, the checkpoint with the optimiser's state does not; room is made, it goes on."""
    given = arguments("ham10000_clsseg", lesions, tmp_path / "out", "--optim.epochs", "2")
    with small_disk(100_000_000), pytest.raises(SystemExit, match=r"last\.pt could not be written"):
        train.main(given)
    with small_disk(1_000_000), pytest.raises(SystemExit, match=r"best could not be written"):
        train.main([*given, "--out", str(tmp_path / "other")])
    left = {path.name for folder in ("out", "other") for path in (tmp_path / folder).rglob("*")}
    assert not any(name.endswith(".tmp") for name in left) and "last.pt" not in left
    mfsf2.create_model(f"local-dir:{tmp_path / 'out' / 'best'}")
    assert train.main(given)["epochs"] == 2


def test_evaluate(lesions: Path, trained: Path, tmp_path: Path) -> None:
    fixed = ["--out", str(tmp_path / "out"), "--device", "cpu"]

    def check(message: str, checkpoint: Path, data: str, folder: Path, *more: str) -> None:
        given = ["--checkpoint", str(checkpoint), "--data", data, "--folder", str(folder)]
        with pytest.raises(SystemExit, match=message):
            evaluate.main([*given, *fixed, *more])
        assert not (tmp_path / "out").exists()

    best = trained / "best"
    challenge = write_dataset("isic2019", tmp_path / "isic", lesions=1)
    check("checkpoint .*absent", tmp_path / "absent", "ham10000", lesions)
    check("isic2019 has no masks", best, "isic2019", challenge)
    polyps = write_dataset("kvasir", tmp_path / "polyps", lesions=1)
    check("kvasir has no classes, which this network predicts", best, "kvasir", polyps)
    parts = json.loads((trained / "split.json").read_text())["parts"]
    network: Any = mfsf2.create_model("mfsf2_tiny_cls", num_classes=8)
    mfsf2.save_pretrained(network, tmp_path / "eight", list("abcdefgh"))
    check(
        r"the network tells .*'h'\] apart, isic2019 has the classes \['MEL'", tmp_path / "eight", "isic2019", challenge
    )
    network = mfsf2.create_model("mfsf2_tiny_seg")
    network.pretrained_cfg["trained_on"] = [hash_id(name) for part in parts.values() for name in part]
    mfsf2.save_pretrained(network, tmp_path / "seen")
    check("no image is left to measure", tmp_path / "seen", "ham10000", lesions)
    given = [
        "--checkpoint",
        str(best),
        "--data",
        "ham10000",
        "--folder",
        str(lesions),
        "--out",
        str(lesions / METADATA[0]),
    ]
    with pytest.raises(SystemExit, match="is not a folder that can be written to"):
        evaluate.main(given)
    check("no such split file", best, "ham10000", lesions, "--split", str(tmp_path / "none.json"))
    check("input_size=20 must be at least 29", best, "ham10000", lesions, "--input_size", "20")
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(
            ["--checkpoint", str(best), "--data", "ham10000", "--folder", str(lesions), *fixed, "--fast", "1"]
        )


def test_predict(lesions: Path, trained: Path, tmp_path: Path) -> None:
    def check(message: str, *images: str | Path, more: tuple[str, ...] = ()) -> None:
        given = ["--checkpoint", str(trained / "best"), "--images", *map(str, images), "--device", "cpu"]
        with pytest.raises(SystemExit, match=message):
            predict.main([*given, "--out", str(tmp_path / "out"), *more])
        assert not (tmp_path / "out").exists()

    image = next((lesions / IMAGE_FOLDERS[0]).iterdir())
    (tmp_path / "empty").mkdir()
    check("neither a file nor a folder", tmp_path / "absent")
    check("images: none in", tmp_path / "empty")
    check(f"more than one file is called {image.stem}", image, image)
    check("this network takes one image and no stack", image, more=("--stacks", str(tmp_path)))
    (tmp_path / "text.jpg").write_text("no image")
    check("not a readable image", image, tmp_path / "text.jpg")
    network = mfsf2.create_model("mfsf2_tiny_cls", in_chans=1)
    mfsf2.save_pretrained(network, tmp_path / "grey")
    with pytest.raises(SystemExit, match="its network takes 1 channels, images here have 3"):
        predict.main(["--checkpoint", str(tmp_path / "grey"), "--images", str(image), "--out", str(tmp_path / "out")])


def test_visualize(lesions: Path, trained: Path, tmp_path: Path) -> None:
    image = next((lesions / IMAGE_FOLDERS[0]).iterdir())
    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_cls"), tmp_path / "cls")
    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_seg"), tmp_path / "seg")

    def check(message: str, figure: str, checkpoint: Path, *more: str, out: str = "a.png") -> None:
        given = ["--checkpoints", str(checkpoint), "--images", str(image), "--out", str(tmp_path / out)]
        with pytest.raises(SystemExit, match=message):
            visualize.main([figure, *given, *more])
        assert not (tmp_path / out).exists()

    check("mfsf2_seg predicts no classes", "gradcam", tmp_path / "seg")
    check("mfsf2_cls predicts no masks", "contours", tmp_path / "cls")
    check("the fused maps are 1 to 4", "gradcam", tmp_path / "cls", "--stage", "5")
    check("--masks: 2 for 1 images", "contours", tmp_path / "seg", "--masks", str(image), str(image))
    check("--titles: 2 for 1 networks", "gradcam", tmp_path / "cls", "--titles", "a", "b")
    check(r"figures are files that end in .*\.png", "gradcam", tmp_path / "cls", out="a.xyz")
    check("no such folder", "gradcam", tmp_path / "cls", out="absent/a.png")
    check("2", "explain", tmp_path / "cls")
