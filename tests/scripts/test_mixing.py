"""Images mixed in pairs: against torchvision's transforms for classes alone, and pixel by pixel for masks."""

import pytest
import torch
from augment import Augment
from losses import Loss, ModelWithLoss
from mixing import mix_batch
from torch import Tensor, nn
from torchvision.transforms.v2 import CutMix, MixUp

LABELS = torch.tensor([2, 0, 1, 1, 0])


def images(seed: int = 0) -> Tensor:
    return torch.rand(5, 3, 24, 20, generator=torch.Generator().manual_seed(seed))


def with_masks() -> dict[str, Tensor]:
    """Each pixel of a mask tells the image and the place that it is from."""
    masks = torch.arange(5 * 24 * 20, dtype=torch.float32).view(5, 1, 24, 20)
    return {"image": masks.expand(5, 3, 24, 20) / 1000, "mask": masks, "index": torch.arange(5)}


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_classes_as_torchvision(kind: type[MixUp] | type[CutMix]) -> None:
    augment = Augment(**{kind.__name__.lower(): 0.7})
    for seed in range(20):
        torch.manual_seed(seed)
        expected = kind(alpha=0.7, num_classes=3)(images(), LABELS)
        torch.manual_seed(seed)
        batch, targets = mix_batch({"image": images()}, LABELS, augment, 3)
        torch.testing.assert_close((batch["image"], targets), expected)
        assert targets is not None and targets.sum(1).tolist() == pytest.approx([1] * 5)


def test_cutmix_cuts_the_mask_as_the_image() -> None:
    given, shares = with_masks(), []
    for seed in range(40):
        torch.manual_seed(seed)
        batch, targets = mix_batch(given, LABELS, Augment(cutmix=1.0), 3)
        assert torch.equal(batch["image"][:, :1], batch["mask"] / 1000) and set(batch) == set(given)
        own = batch["mask"] == given["mask"]
        assert torch.equal(torch.where(own, given["mask"], given["mask"].roll(1, 0)), batch["mask"])
        # The classes as much as the pixels, for each image of the batch the same.
        share = own.float().mean((1, 2, 3))
        assert targets is not None and targets[0, 2].item() == pytest.approx(share[0].item(), abs=1e-6)
        assert share.unique().numel() == 1
        shares.append(share[0].item())
    assert min(shares) < 0.4 and max(shares) > 0.95
    assert torch.equal(given["mask"], with_masks()["mask"])


def test_mixup_of_masks_is_the_mean_of_two_losses() -> None:
    given = with_masks()
    given["mask"] = (given["image"][:, :1] > 1.2).float()
    torch.manual_seed(3)
    batch, targets = mix_batch(given, LABELS, Augment(mixup=0.8), 3)
    assert targets is not None
    share = batch["share"].item()
    assert 0 < share < 1 and torch.equal(batch["mask"], given["mask"])
    assert torch.equal(batch["other_mask"], given["mask"].roll(1, 0))
    torch.testing.assert_close(batch["image"], share * given["image"] + (1 - share) * given["image"].roll(1, 0))

    class Fixed(nn.Module):
        def forward_deep(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
            generator = torch.Generator().manual_seed(0)
            logits, *maps = (torch.randn(5, *shape, generator=generator) for shape in ((3,), (1, 6, 5), (1, 24, 20)))
            return logits, maps

    loss = ModelWithLoss(Fixed(), Loss(), torch.ones(3))
    truth = nn.functional.one_hot(LABELS, 3).float()
    first, second = (
        loss({"image": batch["image"], "mask": given["mask"].roll(n, 0)}, truth.roll(n, 0)) for n in (0, 1)
    )
    torch.testing.assert_close(loss(batch, targets), share * first + (1 - share) * second)


def test_both_kinds_take_turns() -> None:
    torch.manual_seed(0)
    kinds = ["other_mask" in mix_batch(with_masks(), LABELS, Augment(mixup=0.4, cutmix=1.0), 3)[0] for _ in range(60)]
    assert 15 < sum(kinds) < 45


def test_without_mixing_or_classes() -> None:
    given = with_masks()
    assert mix_batch(given, LABELS, Augment(), 3) == (given, LABELS)
    for augment in (Augment(mixup=0.4), Augment(cutmix=1.0)):
        batch, targets = mix_batch(given, None, augment, 0)
        assert targets is None and not torch.equal(batch["image"], given["image"])
