"""Two models on the same images: the paired differences, against a bootstrap by hand."""

import json
import re
from pathlib import Path
from typing import Any

import compare
import micro
import pytest
import torch
from datasets import Data, make_split, read_dataset, split_text
from datasets.ham10000 import CLASSES
from datasets.synthetic import write_dataset
from inference import Prediction
from metrics import summary

import mfsf2


def measure_of(logits: torch.Tensor, labels: list[int], dice: list[float]) -> Any:
    from datasets import Dataset, Sample

    samples = [Sample(str(n), Path("x"), str(n // 2), label) for n, label in enumerate(labels)]
    predictions = [Prediction(str(n), row, [one]) for n, (row, one) in enumerate(zip(logits.tolist(), dice))]
    return compare.Measure(predictions, samples, Dataset("", samples, {"a": "", "b": "", "c": ""}))


def test_differences_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = [n % 3 for n in range(60)]
    logits = [torch.randn(60, 3, generator=generator) for _ in range(2)]
    dice = [torch.rand(60, generator=generator) for _ in range(2)]
    measures = {name: measure_of(logits[k], labels, dice[k].tolist()) for k, name in enumerate("ab")}
    results = compare.differences(measures, [str(n // 2) for n in range(60)], 2000)
    expected = [summary(one.softmax(1), torch.tensor(labels)) for one in logits]
    assert results["a"]["auc"] == pytest.approx(expected[0]["auc"]) and "difference" not in results["a"]
    for metric in ("balanced_accuracy", "auc", "macro_f1"):
        assert results["b"]["difference"][metric] == pytest.approx(expected[1][metric] - expected[0][metric])
    difference = dice[1] - dice[0]
    assert results["b"]["difference"]["dice"] == pytest.approx(difference.mean().item(), abs=1e-6)
    # Of a mean over pairs of images, the interval is that of the mean over 30 pairs' means.
    spread = 1.96 * difference.view(30, 2).mean(1).std().item() / 30**0.5
    low, high = results["b"]["interval"]["dice"]
    assert (high - low) / 2 == pytest.approx(spread, rel=0.1)
    assert compare.differences({"a": measures["a"], "c": measures["a"]}, ["x"] * 60, 5)["c"]["interval"]["auc"] == (
        0,
        0,
    )


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("compared")
    ham = write_dataset("ham10000", root / "ham", lesions=4)
    dataset = read_dataset(Data("ham10000", str(ham)))
    (root / "split.json").write_text(split_text(dataset, make_split(dataset)))
    for name, task, size in (("one", "cls", 32), ("two", "clsseg", 64)):
        torch.manual_seed(size)
        model = micro.build(task, num_classes=7)
        model.pretrained_cfg.update(input_size=(3, size, size), crop_pct=1.0, crop_mode="squash")
        mfsf2.save_pretrained(model, root / name, list(CLASSES))
    return root, [
        "--data.name", "ham10000", "--data.folder", str(ham), "--split_file", str(root / "split.json"),
        "--n_bootstrap", "20",
    ]  # fmt: skip


def test_compare(given: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, more = given
    names = [str(root / "one"), str(root / "two")]
    for options in ([], ["--split", "test"], ["--tta", "true"]):
        results = compare.main(["--checkpoints", *names, "--out", str(tmp_path), *more, *options])
        assert list(results) == names and json.loads((tmp_path / "compared.json").read_text())
        # Dice of the one that has masks; differences of what both have.
        assert "dice" not in results[names[0]] and 0 <= results[names[1]]["dice"] <= 1
        assert set(results[names[1]]["difference"]) == {"balanced_accuracy", "auc", "macro_f1"}
        difference = results[names[1]]["auc"] - results[names[0]]["auc"]
        assert results[names[1]]["difference"]["auc"] == pytest.approx(difference)
    printed = capsys.readouterr().out
    assert "auc" in printed
    for split in ("val", "test"):
        assert re.search(
            rf"^{split} split: \d+ images of \d+ lesions; differences from {names[0]} ", printed, re.MULTILINE
        )
    # As jsonargparse takes lists, too.
    assert compare.main(["--checkpoints", json.dumps(names), "--out", str(tmp_path), *more]).keys() == results.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--checkpoints", '["x"]'], "give at least two different ones"),
        (["--checkpoints", '["x", "x"]'], "give at least two different ones"),
        (["--checkpoints", '["x", "y"]'], "checkpoint x: "),
        (["--checkpoints", '["x", "y"]', "--n_bootstrap", "0"], "n_bootstrap=0 must be at least 1"),
    ],
)
def test_compare_refuses(change: list[str], message: str, given: tuple[Path, list[str]], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        compare.main([*given[1], "--out", str(tmp_path / "out"), *change])
    assert not (tmp_path / "out").exists()
