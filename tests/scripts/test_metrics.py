"""The measures against plain formulas."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine.baseline import fixed_mask_dice
from engine.measures import bootstrap, classification_measures, fit_temperature, flatten, reliability, summary
from engine.validation import dice_and_iou
from PIL import Image
from readers import Record
from torch import Tensor
from torch.nn import functional as F


@pytest.fixture
def scores() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (120,), generator=generator)
    logits = torch.randn(120, 4, generator=generator) + 1.5 * F.one_hot(labels, 4)
    return logits, labels


def test_measures_against_formulas(scores: tuple[Tensor, Tensor]) -> None:
    logits, labels = scores
    measures = classification_measures(logits, labels, ["a", "b", "mel", "d"], temperature=2.0)
    p, y = logits.double().softmax(1).numpy(), labels.numpy()
    predicted = p.argmax(1)
    recalls, f1s, aucs = [], [], []
    for k, name in enumerate(["a", "b", "mel", "d"]):
        hit, actual, said = ((predicted == k) & (y == k)).sum(), (y == k).sum(), (predicted == k).sum()
        recall, precision = hit / actual, hit / said
        positive, negative = p[y == k, k][:, None], p[y != k, k][None]
        auc = ((positive > negative) + 0.5 * (positive == negative)).mean()
        row = measures["per_class"][name]
        assert row["images"] == actual
        assert row["sensitivity"] == pytest.approx(recall) and row["precision"] == pytest.approx(precision)
        assert row["specificity"] == pytest.approx(((predicted != k) & (y != k)).sum() / (y != k).sum())
        assert row["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
        assert row["auc"] == pytest.approx(auc, abs=1e-6)
        recalls, f1s, aucs = [*recalls, recall], [*f1s, row["f1"]], [*aucs, auc]
    assert measures["accuracy"] == pytest.approx((predicted == y).mean())
    assert measures["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert measures["macro_f1"] == pytest.approx(np.mean(f1s)) and measures["auc"] == pytest.approx(np.mean(aucs))
    for percent in (90, 95):
        cuts = [cut for cut in [*p[:, 2], 2.0] if (p[y != 2, 2] < cut).mean() >= percent / 100]
        best = max((p[y == 2, 2] >= cut).mean() for cut in cuts)
        assert measures["melanoma"][f"sensitivity_at_{percent}%_specificity"] == pytest.approx(best)
    for name, values in (("", p), ("_with_temperature", (logits.double() / 2).softmax(1).numpy())):
        confidence, right = values.max(1), values.argmax(1) == y
        bins = np.minimum((confidence * 15).astype(int), 14)
        gaps = [abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
        assert measures[f"ece{name}"] == pytest.approx(sum(gaps), abs=1e-6)
        gaps = []
        for k in range(4):
            said, bins = values[:, k], np.minimum((values[:, k] * 15).astype(int), 14)
            at = [bins == b for b in set(bins)]
            gaps.append(sum(abs(said[b].mean() - (y[b] == k).mean()) * b.mean() for b in at))
        assert measures[f"classwise_ece{name}"] == pytest.approx(np.mean(gaps), abs=1e-6)
        assert measures[f"log_loss{name}"] == pytest.approx(-np.log(values[np.arange(120), y]).mean(), abs=1e-6)


def test_every_measure_has_an_interval(scores: tuple[Tensor, Tensor]) -> None:
    logits, labels = scores
    names = ["a", "b", "mel", "d", "absent"]
    logits = torch.cat([logits, torch.full((120, 1), -9.0)], 1)
    flat = flatten(classification_measures(logits, labels, names, 2.0))
    expected = {"accuracy", "balanced_accuracy", "macro_f1", "auc", "absent specificity"}
    measured = ("sensitivity", "specificity", "precision", "f1", "auc")
    expected |= {f"{name} {measure}" for name in names[:4] for measure in measured}
    expected |= {f"melanoma sensitivity_at_{percent}%_specificity" for percent in (90, 95)}
    assert set(flat) == expected
    groups = [f"g{index // 2}" for index in range(120)]
    intervals = bootstrap(
        lambda at: flatten(classification_measures(logits[at], labels[at], names, 2.0)), groups, rounds=200
    )
    assert set(intervals) == expected
    for name in expected:
        low, high = intervals[name]
        assert 0 <= low <= flat[name] <= high <= 1, name
    half = (intervals["accuracy"][1] - intervals["accuracy"][0]) / 2
    assert half == pytest.approx(1.96 * math.sqrt(flat["accuracy"] * (1 - flat["accuracy"]) / 120), rel=0.35)


def test_measures_of_absent_classes(scores: tuple[Tensor, Tensor]) -> None:
    logits, labels = scores
    kept = labels != 1
    measures = classification_measures(logits[kept], labels[kept], ["a", "b", "c", "d"], 1.0)
    assert measures["per_class"]["b"]["sensitivity"] is None and measures["per_class"]["b"]["auc"] is None
    recalls = [row["sensitivity"] for name, row in measures["per_class"].items() if name != "b"]
    assert measures["balanced_accuracy"] == pytest.approx(np.mean(recalls)) and "melanoma" not in measures


def test_reliability(scores: tuple[Tensor, Tensor]) -> None:
    probabilities, labels = scores[0].softmax(1), scores[1]
    bins = reliability(probabilities, labels)
    assert sum(number for *_, number in bins) == 120
    right = sum(accuracy * number for _, accuracy, number in bins)
    assert right == pytest.approx((probabilities.argmax(1) == labels).sum().item())


def test_temperature_is_the_best_of_many(scores: tuple[Tensor, Tensor]) -> None:
    logits, labels = scores[0] * 4, scores[1]
    found = fit_temperature(logits, labels)
    tried = np.linspace(0.2, 12, 2000)
    losses = [F.cross_entropy(logits / t, labels).item() for t in tried]
    assert found == pytest.approx(tried[int(np.argmin(losses))], abs=0.01)
    assert math.isfinite(fit_temperature(torch.eye(3) * 9, torch.arange(3)))


def test_bootstrap_draws_groups() -> None:
    values = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    names = [f"g{index}" for index in range(200)]

    def mean_of(x: Tensor) -> Any:
        return lambda at: {"mean": x[at].mean().item()}

    low, high = bootstrap(mean_of(values), names, 2000)["mean"]
    error = 1.96 * values.std().item() / math.sqrt(200)
    assert low == pytest.approx(values.mean().item() - error, abs=0.15 * error)
    assert high == pytest.approx(values.mean().item() + error, abs=0.15 * error)
    # Every image ten times over is no more knowledge.
    repeated = values.repeat_interleave(10)
    again = bootstrap(mean_of(repeated), [name for name in names for _ in range(10)], 2000)["mean"]
    assert again == (pytest.approx(low), pytest.approx(high))


def test_summary_is_perfect_for_perfect_predictions() -> None:
    labels = torch.tensor([0, 1, 2, 0])
    assert set(summary(torch.eye(3)[labels], labels).values()) == {1.0}


def test_dice_and_iou() -> None:
    a = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    b = a.clone()
    a[0, 0, 0, :2] = b[0, 0, 0, 1:4] = a[1] = True
    dice, iou = dice_and_iou(a, b)
    assert dice.tolist() == [pytest.approx(2 / 5), 0, 1] and iou.tolist() == [pytest.approx(1 / 4), 0, 1]


def test_fixed_mask(tmp_path: Path) -> None:
    """The left half is in all of three training masks, the right half in one."""
    paths = []
    for number in range(4):
        pixels = np.zeros((96, 96), np.uint8)
        pixels[:, : 96 if number == 2 else 48] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        paths.append(Record(str(number), tmp_path / "none", str(number), mask=tmp_path / f"{number}.png"))
    assert fixed_mask_dice(paths[:3], paths[3:]) == pytest.approx(1, abs=0.01)
    assert fixed_mask_dice(paths[:3], paths[2:3]) == pytest.approx(2 / 3, abs=0.01)
