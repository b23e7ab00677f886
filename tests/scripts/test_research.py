"""The scripts in research/: ablate, overfit, two_modalities."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ablate
import micro
import overfit
import pytest
import torch
import two_modalities
import yaml
from datasets import Data, make_split, read_dataset, split_text
from datasets.ham10000 import CLASSES, IMAGE_FOLDERS
from datasets.overlap import hash_id
from datasets.synthetic import write_dataset
from inference import prepare_image
from models import load_model
from safetensors.torch import save_file
from timm import create_model

import mfsf2


@pytest.fixture(scope="module")
def ham(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset("ham10000", tmp_path_factory.mktemp("data") / "ham", lesions=4)


def write_run(run: Path, ham: Path, task: str, **cfg: Any) -> Path:
    """What ablate.py reads of a training: the configuration's data, the split, the model."""
    model = micro.build(task, **({} if task == "seg" else {"num_classes": 7}))
    model.pretrained_cfg.update(input_size=(3, 64, 64), crop_pct=1.0, crop_mode="squash", **cfg)
    mfsf2.save_pretrained(model, run / "best", None if task == "seg" else list(CLASSES))
    dataset = read_dataset(Data("ham10000", str(ham)))
    (run / "split.json").write_text(split_text(dataset, make_split(dataset)))
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"name": "ham10000", "folder": str(ham)}}))
    return run


def test_ablate(ham: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", ham, "cls")
    results = ablate.main(["--run", str(run)])
    assert set(results) == {"all", "without r4", "without p4", "without P"}
    assert json.loads((run / "ablation.json").read_text()) == results
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in results)
    model = load_model(str(run / "best"))
    test = make_split(read_dataset(Data("ham10000", str(ham))))["test"]
    with torch.inference_mode():
        logits = torch.cat([model(prepare_image(sample.image, model)) for sample in test])
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor([s.label for s in test]), reduction="none")
    by_class = [losses[[i for i, s in enumerate(test) if s.label == label]].mean() for label in range(7)]
    assert results["all"]["log_loss"] == pytest.approx(sum(by_class).item() / 7, rel=1e-4)
    assert len({row["log_loss"] for row in results.values()}) == 4
    # Again, over its own file; not over one that was changed by hand.
    assert ablate.main(["--run", str(run)]) == results
    (run / "ablation.json").write_text("mine")
    with pytest.raises(SystemExit, match=r"ablation\.json: there already and not written by this script"):
        ablate.main(["--run", str(run)])
    assert (run / "ablation.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("task", "cfg", "message"),
    [
        ("seg", {}, "this model is mfsf2_seg, give a run of the task cls"),
        ("rcm_cls", {}, "this model is mfsf2_rcm_cls"),
        ("cls", {"multi_label": True}, "this model predicts several classes at once"),
    ],
)
def test_ablate_refuses_other_models(task: str, cfg: dict[str, Any], message: str, ham: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path, ham, task, **cfg)
    with pytest.raises(SystemExit, match=message):
        ablate.main(["--run", str(run)])
    assert not (run / "ablation.json").exists()


def change_split(run: Path) -> None:
    path = run / "split.json"
    content = json.loads(path.read_text())
    content["splits"]["test"] = []
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "not the folder of a training"),
        (lambda run: (run / "split.json").unlink(), r"split\.json: no such split file"),
        (lambda run: (run / "best" / "model.safetensors").unlink(), "checkpoint .*best"),
        (change_split, "no image in test"),
    ],
)
def test_ablate_refuses_other_folders(change: Callable[[Path], None], message: str, ham: Path, tmp_path: Path) -> None:
    change(write_run(tmp_path, ham, "cls"))
    with pytest.raises(SystemExit, match=message):
        ablate.main(["--run", str(tmp_path)])


@pytest.mark.training
def test_overfit(ham: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, weights = tmp_path / "overfit.json", tmp_path / "resnet18.safetensors"
    save_file(create_model("resnet18", num_classes=0).state_dict(), weights)
    models: list[Any] = []
    monkeypatch.setattr(
        overfit, "isolate", lambda model, isolate=overfit.isolate: models.append(model) or isolate(model)
    )
    given = ["--steps", "2", "--images", "8", "--size", "32", "--batch_size", "4", "--threads", "1", "--out", str(out)]
    results = overfit.main(["--folder", str(ham), *given, "--weights", str(weights)])
    assert results["images"] == 8 and results["ratio"] == results["loss_after"] / results["loss_before"]
    assert json.loads(out.read_text()) == results
    # The CNN branch is as it was; the others have moved.
    cnn = create_model("resnet18", num_classes=0, checkpoint_path=weights).state_dict()
    trained = models[0].encoder.cnn.state_dict()
    assert all(torch.equal(trained[key], cnn[key]) for key in cnn)
    out.write_text("mine")
    with pytest.raises(SystemExit, match=r"overfit\.json: there already"):
        overfit.main(["--folder", str(ham), *given])


def test_overfit_draws_from_each_class(ham: Path) -> None:
    samples = overfit.find_samples(overfit.Config(str(ham), images=14))
    assert [sample.label for sample in samples] == [*range(7)] * 2
    train = make_split(read_dataset(Data("ham10000", str(ham))))["train"]
    assert {sample.id for sample in samples} <= {sample.id for sample in train}


def test_head_sees_nothing_of_r4() -> None:
    model = micro.build("cls", num_classes=7)
    x = torch.randn(2, 3, 64, 64)
    given: list[Any] = []
    overfit.isolate(model)
    model.head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    model(x)
    channels = overfit.path_slices(model)["r4"]
    assert given[0][:, channels].abs().max() == 0 and given[0][:, channels.stop :].abs().amax((0, 2, 3)).min() > 0
    assert not any(parameter.requires_grad for parameter in model.encoder.cnn.parameters())
    assert all(parameter.requires_grad for parameter in model.encoder.transformer.parameters())


OVERFIT = ["--folder", "absent"]
PAIRS = ["--out", "absent"]


@pytest.mark.parametrize(
    ("main", "given", "name"),
    [
        *((overfit.main, [*OVERFIT, f"--{name}", value], name) for name, value in [
            ("steps", "0"), ("images", "1"), ("size", "28"), ("batch_size", "1"), ("lr", "0"), ("lr", ".nan"),
            ("threads", "0"), ("seed", "-1"),
        ]),
        *((two_modalities.main, [*PAIRS, f"--{name}", value], name) for name, value in [
            ("steps", "0"), ("size", "38"), ("batch_size", "1"), ("lr", "-1"), ("lr", ".inf"), ("threads", "-1"),
            ("seed", "-1"),
        ]),
    ],
)  # fmt: skip
def test_numbers(main: Callable[..., Any], given: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(given)
    assert f"error: {name}=" in capsys.readouterr().err


def test_overfit_refuses(ham: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not the folder of HAM10000"):
        overfit.main(["--folder", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"CNN weights .*absent\.safetensors"):
        overfit.main(["--folder", str(ham), "--weights", str(tmp_path / "absent.safetensors")])
    broken = write_dataset("ham10000", tmp_path / "broken", lesions=1)
    for path in (broken / IMAGE_FOLDERS[0]).iterdir():
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SystemExit, match="not a readable image"):
        overfit.main(["--folder", str(broken)])


@pytest.mark.training
def test_two_modalities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_modalities, "TEST_PAIRS", 9)
    given = ["--steps", "2", "--size", "39", "--batch_size", "4", "--threads", "1", "--out", str(tmp_path)]
    results = two_modalities.main(given)
    assert set(results["test"]) == {"both", "image_alone", "stack_alone", "a_third_missing_each"}
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "curves.png").is_file() and len(json.loads((tmp_path / "history.json").read_text())) == 1
    assert mfsf2.create_model(f"local-dir:{tmp_path}").num_classes == 2
    (tmp_path / "history.json").write_text("mine")
    with pytest.raises(SystemExit, match=r"history\.json: there already"):
        two_modalities.main(given)


@pytest.mark.parametrize("name", two_modalities.FILES)
def test_two_modalities_keeps_files_of_others(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit, match=f"{name}: there already and not written by this script"):
        two_modalities.main(["--steps", "1", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_generated_pairs_are_decided_by_both_modalities_together() -> None:
    images, stacks, labels = two_modalities.generate_pairs(900, 8, torch.Generator().manual_seed(0))
    assert images.shape == (900, 3, 8, 8) and stacks.shape == (900, 4, 1, 6, 6)
    assert images.min() >= 0 and images.max() <= 1 and stacks.min() >= 0 and stacks.max() <= 1
    assert labels.bincount().min() > 400
    again = two_modalities.generate_pairs(900, 8, torch.Generator().manual_seed(0))
    assert torch.equal(images, again[0]) and torch.equal(stacks, again[1])


def test_image_names_are_hashed_alike() -> None:
    assert hash_id("ISIC_0000001_downsampled") == hash_id("ISIC_0000001") != hash_id("ISIC_0000002")
