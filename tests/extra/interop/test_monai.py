"""MONAI: inference in a sliding window, losses and metrics, on a model with both heads."""

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss, DiceLoss
from monai.metrics import DiceMetric, ROCAUCMetric
from tiny import build
from torch import Tensor

X = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_sliding_window() -> None:
    model = build("clsseg")
    inferer = SlidingWindowInferer(roi_size=(64, 64), sw_batch_size=2, overlap=0.5, mode="gaussian")
    masks = inferer(X, model.forward_masks)
    assert masks.shape == (2, 1, 96, 128)
    # One window is the model itself, two that don't overlap are the model on each half.
    for size, parts in (((96, 128), [X]), ((96, 64), [X[..., :64], X[..., 64:]])):
        expected = torch.cat([model.forward_masks(part) for part in parts], dim=-1)
        torch.testing.assert_close(SlidingWindowInferer(size, overlap=0)(X, model.forward_masks), expected)


@torch.no_grad()
def test_sliding_window_of_both_heads() -> None:
    """MONAI joins maps; so the class logits of a window are given as a map of its size."""
    model = build("clsseg")

    def predict(window: Tensor) -> tuple[Tensor, Tensor]:
        logits, masks = model(window)
        return masks, logits[:, :, None, None].repeat(1, 1, *window.shape[2:])

    masks, logits = SlidingWindowInferer((64, 64), overlap=0.5)(X, predict)
    torch.testing.assert_close(masks, SlidingWindowInferer((64, 64), overlap=0.5)(X, model.forward_masks))
    assert logits.shape == (2, 7, 96, 128)
    # The first window alone covers the first pixel.
    torch.testing.assert_close(logits[:, :, 0, 0], model.forward_logits(X[:, :, :64, :64]))
    with pytest.raises(ValueError, match="same number of spatial dimensions"):
        SlidingWindowInferer((64, 64), overlap=0.5)(X, model)


def test_losses_and_metrics() -> None:
    for classes, loss in ((1, DiceLoss(sigmoid=True)), (3, DiceCELoss(softmax=True, to_onehot_y=True))):
        model = build("seg", num_classes=classes).train()
        labels = torch.randint(0, max(classes, 2), (2, 1, 96, 128), generator=torch.Generator().manual_seed(1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        values = []
        for _ in range(4):
            value = loss(model(X), labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(value.item())
        assert values[-1] < values[0]
    predicted = model(X).argmax(1, keepdim=True)
    metric = DiceMetric(include_background=False, num_classes=3)
    metric(predicted, labels)
    overlap = [2 * ((predicted == c) & (labels == c)).sum((1, 2, 3)) for c in (1, 2)]
    sizes = [(predicted == c).sum((1, 2, 3)) + (labels == c).sum((1, 2, 3)) for c in (1, 2)]
    torch.testing.assert_close(
        metric.aggregate().squeeze(), torch.stack([o / s for o, s in zip(overlap, sizes)]).mean()
    )


def test_class_metric() -> None:
    probabilities = build("cls", num_classes=2)(X).softmax(1)
    metric = ROCAUCMetric()
    metric(probabilities[:, 1], torch.tensor([0, 1]))
    assert metric.aggregate() == float(probabilities[1, 1] > probabilities[0, 1])
