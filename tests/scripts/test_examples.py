"""The other example scripts: ablate, overfit, two_modalities."""

import json
from pathlib import Path
from typing import Any

import ablate
import overfit
import pytest
import torch
import two_modalities
from engine.inference import prepare_image
from engine.network import load_network
from readers import hash_id, load_split, make_split, read_dataset, save_split
from readers.ham10000 import CLASSES, IMAGE_FOLDERS
from readers.synthetic import write_dataset
from safetensors.torch import save_file
from timm import create_model

import mfsf2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset("ham10000", tmp_path_factory.mktemp("data") / "ham", lesions=3)


@pytest.fixture(scope="module")
def networks(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Networks of each task as a training saves them, at 64 pixels, with the first one's run."""
    root = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    for task in ("cls", "seg", "clsseg", "rcm_cls"):
        network: Any = mfsf2.create_model(f"mfsf2_tiny_{task}", **({} if task == "seg" else {"num_classes": 7}))
        network.pretrained_cfg.update(input_size=(3, 64, 64), crop_pct=1.0, crop_mode="squash")
        mfsf2.save_pretrained(network, root / task / "best", None if task == "seg" else list(CLASSES))
    dataset = read_dataset("ham10000", data)
    save_split(root / "cls" / "split.json", dataset, make_split(dataset))
    return {task: root / task / "best" for task in ("cls", "seg", "clsseg", "rcm_cls")}


def images_of(data: Path, number: int = 2) -> list[Path]:
    return sorted((data / IMAGE_FOLDERS[0]).iterdir())[:number]


@pytest.mark.training
def test_ablate(data: Path, networks: dict[str, Path]) -> None:
    run = networks["cls"].parent
    results = ablate.main(["--data", "ham10000", "--folder", str(data), "--run", str(run)])
    assert set(results) == {"all", "without r4", "without p4", "without P"}
    assert json.loads((run / "ablation.json").read_text()) == results
    network = load_network(str(networks["cls"]))
    test = load_split(run / "split.json", read_dataset("ham10000", data))["test"]
    with torch.inference_mode():
        logits = torch.cat([network(prepare_image(record.image, network)) for record in test])
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor([r.label for r in test]), reduction="none")
    by_class = [losses[[i for i, r in enumerate(test) if r.label == label]].mean() for label in range(7)]
    assert results["all"]["log_loss"] == pytest.approx(sum(by_class).item() / 7, rel=1e-4)
    assert len({row["log_loss"] for row in results.values()}) == 4
    with pytest.raises(SystemExit, match="its network is mfsf2_seg, give one of the task cls"):
        ablate.main(["--data", "ham10000", "--folder", str(data), "--run", str(networks["seg"].parent)])


@pytest.mark.training
def test_overfit(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "overfit.json"
    save_file(create_model("resnet18", num_classes=0).state_dict(), tmp_path / "resnet18.safetensors")
    given = ["--steps", "2", "--images", "8", "--size", "32", "--batch-size", "4", "--out", str(out)]
    results = overfit.main(["--folder", str(data), *given, "--weights", str(tmp_path / "resnet18.safetensors")])
    assert results["images"] == 8 and results["ratio"] == results["loss_after"] / results["loss_before"]
    assert json.loads(out.read_text()) == results
    with pytest.raises(SystemExit, match="is not the folder of HAM10000"):
        overfit.main(["--folder", str(tmp_path)])


@pytest.mark.training
def test_two_modalities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_modalities, "TEST_PAIRS", 9)
    results = two_modalities.main(["--steps", "2", "--size", "40", "--batch-size", "4", "--out", str(tmp_path)])
    assert set(results["test"]) == {"both", "image_alone", "stack_alone", "a_third_missing_each"}
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "curves.png").is_file() and len(json.loads((tmp_path / "history.json").read_text())) == 1
    assert mfsf2.create_model(f"local-dir:{tmp_path}").num_classes == 2


def test_generated_pairs_are_decided_by_both_modalities_together() -> None:
    images, stacks, labels = two_modalities.generate_pairs(900, 8, torch.Generator().manual_seed(0))
    assert images.shape == (900, 3, 8, 8) and stacks.shape == (900, 4, 1, 6, 6)
    assert images.min() >= 0 and images.max() <= 1 and stacks.min() >= 0 and stacks.max() <= 1
    assert labels.bincount().min() > 400
    again = two_modalities.generate_pairs(900, 8, torch.Generator().manual_seed(0))
    assert torch.equal(images, again[0]) and torch.equal(stacks, again[1])


def test_image_names_are_hashed_alike() -> None:
    assert hash_id("ISIC_0000001_downsampled") == hash_id("ISIC_0000001") != hash_id("ISIC_0000002")
