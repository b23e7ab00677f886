"""The metrics against plain formulas."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from baseline import fixed_mask_dice
from datasets import MaskFormat, Sample
from metrics import (
    auc,
    bootstrap,
    classification_metrics,
    confusion,
    dice_and_iou,
    fit_temperature,
    flatten,
    mean_dice,
    reliability,
    sensitivity_at,
    summary,
)
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

NAMES = ["a", "b", "mel", "d"]


@pytest.fixture
def scores() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (120,), generator=generator)
    logits = torch.randn(120, 4, generator=generator) + 1.5 * F.one_hot(labels, 4)
    return logits, labels


@pytest.fixture(params=[4, 1])
def several(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Logits and labels where several classes hold at once, or of one label alone."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(150, request.param, generator=generator) < torch.tensor([0.2, 0.5, 0.3, 0.8])[-request.param :]
    return torch.randn(150, request.param, generator=generator) + 1.5 * labels - 0.7, labels.float()


def pairs(scores: np.ndarray, truth: np.ndarray) -> float:
    """How often a positive scores above a negative, ties by half: every pair is looked at."""
    positive, negative = scores[truth][:, None], scores[~truth][None]
    return float(((positive > negative) + 0.5 * (positive == negative)).mean())


def check_row(row: dict[str, Any], scores: np.ndarray, said: np.ndarray, truth: np.ndarray) -> None:
    """One class's metrics; ``said`` and ``truth`` are bool."""
    hit = (said & truth).sum()
    recall, precision = hit / truth.sum(), hit / said.sum()
    assert row["images"] == truth.sum()
    assert row["sensitivity"] == pytest.approx(recall) and row["precision"] == pytest.approx(precision)
    assert row["specificity"] == pytest.approx((~said & ~truth).sum() / (~truth).sum())
    assert row["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert row["auc"] == pytest.approx(pairs(scores, truth), abs=1e-12)


def best_sensitivity(scores: np.ndarray, truth: np.ndarray, specificity: float) -> float:
    cuts = [cut for cut in [*scores, 2.0] if (scores[~truth] < cut).mean() >= specificity]
    return max((scores[truth] >= cut).mean() for cut in cuts)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    bins = np.minimum((confidence * 15).astype(int), 14)
    return sum(abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins))


def test_exclusive_classes_against_formulas(scores: tuple[Tensor, Tensor]) -> None:
    logits, labels = scores
    metrics = classification_metrics(logits, labels, NAMES, temperature=2.0)
    p, y = logits.softmax(1).numpy(), labels.numpy()
    predicted = p.argmax(1)
    rows = metrics["per_class"]
    for k, name in enumerate(NAMES):
        check_row(rows[name], p[:, k], predicted == k, y == k)
    assert metrics["accuracy"] == pytest.approx((predicted == y).mean())
    for name, key in (("balanced_accuracy", "sensitivity"), ("macro_f1", "f1"), ("auc", "auc")):
        assert metrics[name] == pytest.approx(np.mean([row[key] for row in rows.values()])), name
    for percent in (90, 95):
        best = best_sensitivity(p[:, 2], y == 2, percent / 100)
        assert metrics["melanoma"][f"sensitivity_at_{percent}%_specificity"] == pytest.approx(best)
    for name, values in (("", logits), ("_with_temperature", logits / 2)):
        q = values.double().softmax(1).numpy()
        assert metrics[f"ece{name}"] == pytest.approx(calibration_error(q.max(1), q.argmax(1) == y), abs=1e-6)
        gaps = [calibration_error(q[:, k], y == k) for k in range(4)]
        assert metrics[f"classwise_ece{name}"] == pytest.approx(np.mean(gaps), abs=1e-6)
        assert metrics[f"log_loss{name}"] == pytest.approx(-np.log(q[np.arange(120), y]).mean(), abs=1e-6)
    expected = np.array([[((y == i) & (predicted == j)).sum() for j in range(4)] for i in range(4)])
    assert np.array_equal(confusion(logits.softmax(1), labels).numpy(), expected)


def test_several_classes_at_once_against_formulas(several: tuple[Tensor, Tensor]) -> None:
    """Thresholds of 0.5; no class counts as another's negative alone."""
    logits, labels = several
    number = labels.shape[1]
    names = ["b", "melanoma", "c", "d"][:number] if number > 1 else ["melanoma"]
    metrics = classification_metrics(logits, labels, names, temperature=2.0)
    p, y = logits.sigmoid().numpy(), labels.numpy() > 0.5
    rows = metrics["per_class"]
    for k, name in enumerate(names):
        check_row(rows[name], p[:, k], p[:, k] > 0.5, y[:, k])
    assert metrics["exact_match"] == pytest.approx(((p > 0.5) == y).all(1).mean())
    for name, key in (("mean_sensitivity", "sensitivity"), ("macro_f1", "f1"), ("auc", "auc")):
        assert metrics[name] == pytest.approx(np.mean([row[key] for row in rows.values()])), name
    assert not metrics.keys() & {"accuracy", "balanced_accuracy", "ece"}
    k = names.index("melanoma")
    for percent in (90, 95):
        best = best_sensitivity(p[:, k], y[:, k], percent / 100)
        assert metrics["melanoma"][f"sensitivity_at_{percent}%_specificity"] == pytest.approx(best)
    for name, values in (("", logits), ("_with_temperature", logits / 2)):
        q = values.double().sigmoid().numpy()
        gaps = [calibration_error(q[:, k], y[:, k]) for k in range(number)]
        assert metrics[f"classwise_ece{name}"] == pytest.approx(np.mean(gaps), abs=1e-6)
        losses = -np.log(np.where(y, q, 1 - q))
        assert metrics[f"log_loss{name}"] == pytest.approx(losses.mean(), abs=1e-6)
    assert classification_metrics(logits, labels.long(), names, 2.0) == metrics
    bins = reliability(logits.sigmoid(), labels)
    assert sum(number for *_, number in bins) == labels.numel()
    assert sum(accuracy * number for _, accuracy, number in bins) == pytest.approx(labels.sum().item())


@pytest.mark.parametrize("levels", [2, 5, 40, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auc_is_the_share_of_ordered_pairs(levels: int, dtype: torch.dtype) -> None:
    """With ties, whatever their number."""
    generator = torch.Generator().manual_seed(levels)
    for number in (2, 3, 31, 200):
        scores = torch.randint(levels, (number,), generator=generator).to(dtype) / levels
        truth = torch.rand(number, generator=generator) < 0.4
        truth[0], truth[1] = True, False
        assert auc(scores, truth) == pytest.approx(pairs(scores.numpy(), truth.numpy()), abs=1e-12)
        assert auc(scores, truth.long()) == auc(scores, truth.float()) == auc(scores, truth)


@pytest.mark.parametrize("number", [2, 37, 1001, 40001])
def test_auc_of_a_perfect_order_is_one(number: int) -> None:
    scores = torch.linspace(0, 1, number)
    for first in {1, number // 3 or 1, number - 1}:
        truth = torch.arange(number) >= first
        assert auc(scores, truth) == 1.0 and auc(-scores, truth) == 0.0
        assert auc(torch.zeros(number), truth) == 0.5


def test_what_is_not_defined_is_none() -> None:
    """A split with one class, or with none of a label: no NaN, which would hide in means."""
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    for truth in (torch.zeros(9), torch.ones(9)):
        assert auc(logits[:, 0], truth) is None
    metrics = classification_metrics(logits, torch.full((9,), 1), ["a", "mel", "c"], 1.0)
    assert metrics["auc"] is None and metrics["melanoma"] == {}
    assert metrics["per_class"]["a"]["sensitivity"] is None and metrics["per_class"]["mel"]["specificity"] is None
    assert metrics["balanced_accuracy"] == pytest.approx(metrics["accuracy"])
    for labels in (torch.zeros(9, 3), torch.ones(9, 3)):
        metrics = classification_metrics(logits, labels, ["a", "mel", "c"], 1.0)
        assert metrics["auc"] is None and metrics["melanoma"] == {}
        assert all(row["auc"] is None for row in metrics["per_class"].values())
    assert classification_metrics(logits, torch.zeros(9, 3), ["a", "b", "c"], 1.0)["mean_sensitivity"] is None
    flat = flatten(metrics)
    assert flat and all(math.isfinite(value) for value in flat.values())
    assert sensitivity_at(logits.softmax(1), torch.zeros(9, dtype=torch.long), 2) == {}


def test_every_metric_has_an_interval(scores: tuple[Tensor, Tensor]) -> None:
    logits, labels = scores
    names = [*NAMES, "absent"]
    logits = torch.cat([logits, torch.full((120, 1), -9.0)], 1)
    flat = flatten(classification_metrics(logits, labels, names, 2.0))
    expected = {"accuracy", "balanced_accuracy", "macro_f1", "auc", "absent specificity"}
    expected |= {f"{n} {key}" for n in NAMES for key in ("sensitivity", "specificity", "precision", "f1", "auc")}
    expected |= {f"melanoma sensitivity_at_{percent}%_specificity" for percent in (90, 95)}
    assert set(flat) == expected
    groups = [f"g{index // 2}" for index in range(120)]
    intervals = bootstrap(
        lambda at: flatten(classification_metrics(logits[at], labels[at], names, 2.0)), groups, n_bootstrap=100
    )
    assert set(intervals) == expected
    for name in expected:
        low, high = intervals[name]
        assert 0 <= low <= flat[name] <= high <= 1, name
    half = (intervals["accuracy"][1] - intervals["accuracy"][0]) / 2
    assert half == pytest.approx(1.96 * math.sqrt(flat["accuracy"] * (1 - flat["accuracy"]) / 120), rel=0.35)


def test_every_metric_of_several_classes_has_an_interval(several: tuple[Tensor, Tensor]) -> None:
    logits, labels = several
    names = list("wxyz")[: labels.shape[1]]
    flat = flatten(classification_metrics(logits, labels, names, 1.0))
    expected = {"exact_match", "mean_sensitivity", "macro_f1", "auc"}
    expected |= {f"{n} {key}" for n in names for key in ("sensitivity", "specificity", "precision", "f1", "auc")}
    assert set(flat) == expected
    groups = [f"g{index // 3}" for index in range(150)]
    intervals = bootstrap(lambda at: flatten(classification_metrics(logits[at], labels[at], names, 1.0)), groups, 60)
    assert set(intervals) == expected
    assert all(0 <= low <= flat[name] <= high <= 1 for name, (low, high) in intervals.items())


def test_absent_classes(scores: tuple[Tensor, Tensor]) -> None:
    logits, labels = scores
    kept = labels != 1
    metrics = classification_metrics(logits[kept], labels[kept], ["a", "b", "c", "d"], 1.0)
    assert metrics["per_class"]["b"]["sensitivity"] is None and metrics["per_class"]["b"]["auc"] is None
    recalls = [row["sensitivity"] for name, row in metrics["per_class"].items() if name != "b"]
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(recalls)) and "melanoma" not in metrics


def test_reliability(scores: tuple[Tensor, Tensor]) -> None:
    probabilities, labels = scores[0].softmax(1), scores[1]
    bins = reliability(probabilities, labels)
    assert sum(number for *_, number in bins) == 120
    right = sum(accuracy * number for _, accuracy, number in bins)
    assert right == pytest.approx((probabilities.argmax(1) == labels).sum().item())


def test_temperature_is_the_best_of_many(scores: tuple[Tensor, Tensor], several: tuple[Tensor, Tensor]) -> None:
    tried = np.linspace(0.2, 12, 2000)
    for (logits, labels), loss in ((scores, F.cross_entropy), (several, F.binary_cross_entropy_with_logits)):
        found = fit_temperature(logits * 4, labels)
        losses = [loss(logits * 4 / t, labels).item() for t in tried]
        assert found == pytest.approx(tried[int(np.argmin(losses))], abs=0.01)
    assert math.isfinite(fit_temperature(torch.eye(3) * 9, torch.arange(3)))
    assert math.isfinite(fit_temperature(torch.eye(3) * 18 - 9, torch.eye(3)))


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
    several = torch.tensor([[1.0, 0], [1, 1], [0, 0]])
    assert set(summary(several, several).values()) == {1.0}


# Masks


def test_dice_and_iou_of_one_foreground() -> None:
    a = torch.zeros(4, 4, 4, dtype=torch.bool)
    b = a.clone()
    a[0, 0, :2] = b[0, 0, 1:4] = a[1] = b[3] = True
    dice, iou = dice_and_iou(a, b, 1)
    assert dice.tolist() == [[pytest.approx(2 / 5)], [0], [1], [0]]
    assert iou.tolist() == [[pytest.approx(1 / 4)], [0], [1], [0]]


@pytest.mark.parametrize("classes", [1, 2, 3, 5])
@pytest.mark.parametrize("ignore", [None, 255])
def test_dice_and_iou_against_formulas(classes: int, ignore: int | None) -> None:
    rng = np.random.default_rng(classes)
    a, b = (rng.integers(0, max(2, classes), (6, 7, 9)) for _ in range(2))
    a[0][a[0] == 1], b[0][b[0] == 1] = 0, 0
    b[1] = 0
    ignored = rng.random(b.shape) < 0.3
    truth = np.where(ignored, 255, b) if ignore else b
    dice, iou = dice_and_iou(torch.from_numpy(a), torch.from_numpy(truth), classes, ignore)
    assert dice.shape == iou.shape == (6, max(1, classes - 1))
    for image in range(6):
        here = ~ignored[image] if ignore else np.ones(b[image].shape, bool)
        for k in range(1, max(2, classes)):
            said, real = a[image][here] == k, b[image][here] == k
            shared, union = (said & real).sum(), (said | real).sum()
            if not union:
                expected = (1.0, 1.0) if classes == 1 else (math.nan, math.nan)
            else:
                expected = (2 * shared / (said.sum() + real.sum()), shared / union)
            found = (dice[image, k - 1].item(), iou[image, k - 1].item())
            assert found == pytest.approx(expected, nan_ok=True), (image, k)


def test_ignored_pixels_do_not_count() -> None:
    """Whatever is predicted there."""
    rng = np.random.default_rng(0)
    predicted, truth = (torch.from_numpy(rng.integers(0, 3, (5, 8, 8))) for _ in range(2))
    ignored = torch.from_numpy(rng.random((5, 8, 8)) < 0.4)
    expected = dice_and_iou(predicted, truth.masked_fill(ignored, 255), 3, 255)
    for value in (0, 1, 2):
        found = dice_and_iou(predicted.masked_fill(ignored, value), truth.masked_fill(ignored, 255), 3, 255)
        assert all(torch.equal(x, y) for x, y in zip(found, expected))
    everywhere = dice_and_iou(predicted, torch.full_like(truth, 255), 3, 255)[0]
    assert everywhere.isnan().all()


def test_mean_dice_leaves_out_classes_that_are_not_there() -> None:
    nan = math.nan
    assert mean_dice(torch.tensor([[0.5, nan], [1.0, nan], [nan, 0.4]])) == pytest.approx((0.75 + 0.4) / 2)
    assert mean_dice(torch.tensor([[0.5, nan], [1.0, nan]])) == pytest.approx(0.75)
    assert math.isnan(mean_dice(torch.tensor([[nan, nan]])))


def test_fixed_mask(tmp_path: Path) -> None:
    """The left half is in all of three training masks, the right half in one."""
    samples = []
    for number in range(4):
        pixels = np.zeros((96, 96), np.uint8)
        pixels[:, : 96 if number == 2 else 48] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        samples.append(Sample(str(number), tmp_path / f"{number}.png", str(number), mask=tmp_path / f"{number}.png"))
    assert fixed_mask_dice(samples[:3], samples[3:], MaskFormat()) == pytest.approx(1, abs=0.01)
    assert fixed_mask_dice(samples[:3], samples[2:3], MaskFormat()) == pytest.approx(2 / 3, abs=0.01)


def test_fixed_mask_and_pixels_to_ignore(tmp_path: Path) -> None:
    """The left quarter is in two of three training masks; right halves that are to be ignored count as nothing."""
    samples = []
    for number, (left, right) in enumerate([(1, 0), (1, 255), (0, 255), (1, 0)]):
        pixels = np.zeros((96, 96), np.uint8)
        pixels[:, :24], pixels[:, 48:] = left, right
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        samples.append(Sample(str(number), tmp_path / f"{number}.png", str(number), mask=tmp_path / f"{number}.png"))
    assert fixed_mask_dice(samples[:3], samples[3:], MaskFormat(ignore_index=255)) == pytest.approx(1, abs=0.01)
