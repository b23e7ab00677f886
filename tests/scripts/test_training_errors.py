"""What goes wrong in front of and behind the scripts: clear messages, and nothing lost."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import predict
import pytest
import torch
import train
from datasets import DataError
from datasets.ham10000 import IMAGE_FOLDERS, MASK_FOLDER, METADATA
from datasets.overlap import hash_id
from datasets.synthetic import write_dataset
from files import OutputFolder
from PIL import Image
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


def number_masks(ham: Path) -> None:
    """Two classes in the place of one foreground."""
    for path in (ham / MASK_FOLDER).iterdir():
        with Image.open(path) as mask:
            ones = np.array(mask) // 255
        ones[:20, :20] = 2
        Image.fromarray(ones).save(path)


def empty_masks(ham: Path) -> None:
    for path in (ham / MASK_FOLDER).iterdir():
        Image.new("L", (120, 90)).save(path)


def darken_masks(ham: Path) -> None:
    """Zeros and ones, which JPEG does not keep."""
    for path in (ham / MASK_FOLDER).iterdir():
        with Image.open(path) as mask:
            ones = np.array(mask) // 255
        path.unlink()
        Image.fromarray(ones).save(path.with_suffix(".jpg"), quality=95)


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
        (number_masks, r"values 0, 1, 2: what is foreground cannot be told"),
        (empty_masks, r"no mask to train on shows foreground: all \d+ of them were read"),
        (darken_masks, r"a JPEG of values up to 1, which may be noise"),
        (break_image, r"images cannot be used, the first are\n .*not a readable image"),
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
    split = ["--data.split_file", str(trained / "split.json")]
    message = "splits the data set ham10000, these images are kvasir"
    check_refused(message, polyps, out, *split, config="kvasir_seg")
    other = write_dataset("ham10000", tmp_path / "other", lesions=2)
    check_refused(r"is of other images: \d+ of its 28 are not here", other, out, *split)
    (tmp_path / "file").touch()
    check_refused("file is not a folder that can be written to", lesions, tmp_path / "file" / "run")
    check_refused("no such split file", lesions, out, "--data.split_file", str(tmp_path / "none.json"))
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
        (["--optim.epochs", "0"], "optim.epochs=0 must be in [1, inf)"),
        (["--optim.batch_size", "1"], "optim.batch_size=1 must be in [2, inf)"),
        (["--input_size", "16"], "input_size=16 must be in [29, 4096]"),
        (["--optim.lr", "-1"], "optim.lr=-1.0 must be in (0, inf)"),
        (["--optim.ema_decay", "1"], "optim.ema_decay=1.0 must be in [0, 1)"),
        (["--augment.scale", "[1.2, 0.8]"], "the smaller number comes first"),
        (["--task", "rcm_cls", "--augment.mixup", "0.2"], "augment.mixup=0.2 must be 0 for two modalities"),
        (
            ["--task", "rcm_cls", "--augment.mixup", "0.2", "--augment.cutmix", "1"],
            "augment.mixup=0.2 and augment.cutmix=1.0 must be 0 for two modalities",
        ),
        (["--augment.cutmix", "-1"], "augment.cutmix=-1.0 must be in [0, inf)"),
        (["--optim.lr", ".nan"], "optim.lr=nan must be in (0, inf)"),
        (["--optim.weight_decay", ".inf"], "optim.weight_decay=inf must be in [0, inf)"),
        (["--augment.color", "1.5"], "augment.color=1.5 must be in [0, 1)"),
        (["--optim.layer_decay", "0"], "optim.layer_decay=0.0 must be in (0, 1]"),
        (["--loss.deep", "-1"], "loss.deep=-1.0 must be in [0, inf)"),
        (["--data.name", "isic2020"], "isic2020"),
    ],
)
def test_arguments(
    given: list[str], message: str, lesions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main(arguments("ham10000_clsseg", lesions, tmp_path / "out", *given))
    printed = capsys.readouterr().err
    assert message in printed and "usage:" not in printed and len(printed.splitlines()) <= 6
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
    save_file({"unrelated": torch.zeros(2)}, tmp_path / "other.safetensors")
    check_refused("unrelated", lesions, out, "--model.checkpoint", str(tmp_path / "other.safetensors"))
    check_refused("model: .*absent", lesions, out, "--model.checkpoint", str(tmp_path / "absent"))
    check_refused(r"model: .*droprate", lesions, out, "--model.args", "{droprate: 1}")


def test_tasks_that_the_data_do_not_have(lesions: Path, tmp_path: Path) -> None:
    """Whatever the data set is, the message says what it lacks."""
    polyps = write_dataset("kvasir", tmp_path / "polyps", lesions=2)
    fixed = ["--data.folder", str(polyps), "--out", str(tmp_path / "out"), "--device", "cpu"]
    for task, lacks in (
        ("clsseg", "classes"),
        ("cls", "classes"),
        ("rcm_seg", "stacks"),
        ("rcm_cls", "classes, stacks"),
    ):
        with pytest.raises(SystemExit, match=f"task={task} cannot be learned from kvasir: it has no {lacks}"):
            train.main(["--data.name", "kvasir", "--task", task, *fixed])
    own = write_dataset("folder", tmp_path / "own", lesions=2)
    with pytest.raises(SystemExit, match="folder has no masks"):
        train.main(["--data.name", "folder", "--task", "seg", *fixed, "--data.folder", str(own)])


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
    out = OutputFolder(tmp_path)
    out.write("last.pt", lambda path: torch.save({"x": torch.ones(3)}, path), sync=True)
    out.write("a.txt", "old")
    large = {"x": torch.ones(100_000)}
    with small_disk(50_000):
        with pytest.raises(DataError, match=r"last\.pt could not be written: .*; what was there before is as it was"):
            out.write("last.pt", partial(torch.save, large), sync=True)
        with pytest.raises(DataError, match=r"a\.txt could not be written"):
            out.write("a.txt", "new" * 50_000)
    assert torch.equal(torch.load(tmp_path / "last.pt", weights_only=True)["x"], torch.ones(3))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".mfsf2-written", "a.txt", "last.pt"]


def test_a_run_replaces_no_files_of_others(lesions: Path, tmp_path: Path) -> None:
    """A folder that holds something of a run's name; a run that died early may be begun again."""
    for name in ("split.json", "results.json", "best/model.safetensors"):
        folder = tmp_path / name.replace("/", "_")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")
        check_refused(rf"{name}: there already and not written by this script", lesions, folder)
        assert (folder / name).read_text() == "mine"
    OutputFolder(tmp_path / "early").claim(["config.yaml", "log.txt"])
    (tmp_path / "early" / "config.yaml").write_text("task: cls\n")
    assert train.main(arguments("ham10000_cls", lesions, tmp_path / "early"))["epochs"] == 1


def test_files_that_were_changed_since_are_kept(tmp_path: Path) -> None:
    out = OutputFolder(tmp_path)
    for text in ("one", "two"):
        out.write("sub/a.txt", text)
    assert OutputFolder(tmp_path).write("sub/a.txt", "three").read_text() == "three"
    (tmp_path / "sub" / "a.txt").write_text("corrected by hand")
    for folder in (out, OutputFolder(tmp_path)):
        with pytest.raises(DataError, match=r"sub/a\.txt: there already and not written by this script, or changed"):
            folder.write("sub/a.txt", "four")
    assert (tmp_path / "sub" / "a.txt").read_text() == "corrected by hand"


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
    def check(message: str, checkpoint: Path | str, name: str, folder: Path, *more: str) -> None:
        given = ["--checkpoint", str(checkpoint), "--data.name", name, "--data.folder", str(folder)]
        with pytest.raises(SystemExit, match=message):
            evaluate.main([*given, "--out", str(tmp_path / "out"), "--device", "cpu", *more])
        assert not (tmp_path / "out").exists()

    def saved(name: str, model: Any, labels: list[str] | None = None) -> Path:
        mfsf2.save_pretrained(model, tmp_path / name, labels)
        return tmp_path / name

    best = trained / "best"
    challenge = write_dataset("isic2019", tmp_path / "isic", lesions=1)
    check("checkpoint .*absent", tmp_path / "absent", "ham10000", lesions)
    check("isic2019 has no masks", best, "isic2019", challenge)
    polyps = write_dataset("kvasir", tmp_path / "polyps", lesions=1)
    check("kvasir has no classes, which this model predicts", best, "kvasir", polyps)
    eight = saved("eight", mfsf2.create_model("mfsf2_tiny_cls", num_classes=8), list("abcdefgh"))
    check(r"the model tells .*'h'\] apart, isic2019 has the classes \['MEL'", eight, "isic2019", challenge)
    bare = saved("bare", mfsf2.create_model("mfsf2_tiny_cls", num_classes=8))
    check("the model has 8 classes without names, ham10000 has", bare, "ham10000", lesions)
    features = saved("features", mfsf2.create_model("mfsf2_tiny_cls", num_classes=0))
    check("this model has no classifier", features, "ham10000", lesions)
    one = saved("one", mfsf2.create_model("mfsf2_tiny_cls", num_classes=1), ["mel"])
    check("the model predicts several classes at once, the data have exclusive classes", one, "ham10000", lesions)
    splits = json.loads((trained / "split.json").read_text())["splits"]
    model: Any = mfsf2.create_model("mfsf2_tiny_seg")
    model.pretrained_cfg["trained_on"] = [hash_id(name) for names in splits.values() for name in names]
    check("no image is left to measure", saved("seen", model), "ham10000", lesions)
    check("no such split file", best, "ham10000", lesions, "--split_file", str(tmp_path / "none.json"))
    check("input_size=20 must be at least 29", best, "ham10000", lesions, "--input_size", "20")
    check("n_bootstrap=0 must be at least 1", best, "ham10000", lesions, "--n_bootstrap", "0")
    check("2", best, "ham10000", lesions, "--fast", "1")
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="is not a folder that can be written to"):
        evaluate.main(["--run", str(trained), "--out", str(tmp_path / "file")])
    for given in ([], ["--checkpoint", str(best)], ["--checkpoint", str(best), "--out", str(tmp_path / "out")]):
        with pytest.raises(SystemExit, match="give --run, or --checkpoint"):
            evaluate.main(given)
    with pytest.raises(SystemExit, match=r"run .*: not the folder of a training"):
        evaluate.main(["--run", str(tmp_path)])


def test_evaluate_replaces_no_files_of_others(lesions: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"results\.json: there already and not written by this script"):
        evaluate.main(["--run", str(trained), "--out", str(tmp_path), "--device", "cpu"])
    assert (tmp_path / "results.json").read_text() == "{}"


def test_predict(lesions: Path, trained: Path, tmp_path: Path) -> None:
    def check(message: str, *images: str | Path, more: tuple[str, ...] = ()) -> None:
        given = ["--checkpoint", str(trained / "best"), "--images", *map(str, images), "--device", "cpu"]
        with pytest.raises(SystemExit, match=message):
            predict.main([*given, "--out", str(tmp_path / "out"), *more])
        assert not (tmp_path / "out").exists()

    image = next((lesions / IMAGE_FOLDERS[0]).iterdir())
    (tmp_path / "empty").mkdir()
    check("neither a file nor a folder, and matches none", tmp_path / "absent")
    check("neither a file nor a folder, and matches none", tmp_path / "*.jpg")
    check("images: none in", tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").touch()
    check("images: none in .*; skipped: 1 not images", tmp_path / "empty")
    other = tmp_path / "other" / image.parent.name
    other.mkdir(parents=True)
    (other / image.name).write_bytes(image.read_bytes())
    check(f"are both called {image.parent.name}/{image.name}, and results go by name", image, other / image.name)
    check("this model takes one image and no stack", image, more=("--stacks", str(tmp_path)))
    (tmp_path / "text.jpg").write_text("no image")
    check("not a readable image", image, tmp_path / "text.jpg", more=("--strict",))
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    check("DICOM is not read; convert it to PNG", tmp_path / "empty", tmp_path / "a.dcm", more=("--strict",))
    (tmp_path / "a.dcm").rename(tmp_path / "empty" / "a.dcm")
    check("DICOM is not read; convert it to PNG", tmp_path / "empty")
    model = mfsf2.create_model("mfsf2_tiny_cls", in_chans=1)
    mfsf2.save_pretrained(model, tmp_path / "grey")
    with pytest.raises(SystemExit, match="its model takes 1 channels, images here have 3"):
        predict.main(["--checkpoint", str(tmp_path / "grey"), "--images", str(image), "--out", str(tmp_path / "out")])
