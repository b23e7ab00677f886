"""What a training is made of, against plain formulas: sampling, augmentation, losses."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augment import Augment, augment_batch, stored_size
from data import (
    EpochSampler,
    Images,
    class_counts,
    class_weights,
    make_loader,
    normalize,
    read_image,
    read_mask,
    sampling_weights,
    targets_of,
)
from datasets import Data, DataError, MaskFormat, Sample, read_dataset
from datasets.masks import IGNORE
from losses import Loss, ModelWithLoss, log_class_prior
from metrics import dice_and_iou
from monai.losses import DiceCELoss
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

CPU = torch.device("cpu")


# Sampling


def test_sampler_of_processes_and_epochs() -> None:
    def draw(epoch: int, **more: int) -> list[list[tuple[int, int]]]:
        sampler = EpochSampler(50, 4, seed=3, **more)
        sampler.epoch = epoch
        batches = list(sampler)
        assert len(batches) == len(sampler)
        return batches

    one = draw(0, accumulate=2)
    two = [draw(0, process=process, processes=2) for process in (0, 1)]
    assert one == [batch for pair in zip(*two) for batch in pair]
    drawn = [index for batch in one for index, _ in batch]
    assert len(drawn) == len(set(drawn)) == 48
    assert draw(0, accumulate=2) == one != draw(1, accumulate=2)
    assert len({seed for batch in one for _, seed in batch}) == 48
    assert len(list(EpochSampler(3, 8, seed=0))) == 1


def drawn_often(samples: list[Sample], classes: int, epochs: int = 60) -> Counter[int]:
    """How often each image is drawn in all."""
    sampler = EpochSampler(len(samples), 10, 0, sampling_weights(samples, classes))
    counts: Counter[int] = Counter()
    for sampler.epoch in range(epochs):
        counts.update(index for batch in sampler for index, _ in batch)
    return counts


def test_balanced_sampling_and_weights() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    weights = class_weights(labels.bincount())
    assert weights.tolist() == pytest.approx([100 / 180, 5.0]) and weights[labels].mean() == pytest.approx(1)
    samples = [Sample(str(n), Path("x"), str(n), label) for n, label in enumerate(labels.tolist())]
    assert torch.equal(targets_of(samples), labels) and class_counts(samples, 3).tolist() == [90, 10, 0]
    assert sampling_weights(samples, 2).tolist() == pytest.approx(weights[labels].tolist())
    counts = drawn_often(samples, 2)
    assert sum(counts.values()) == 6000
    assert sum(counts[index] for index in range(90, 100)) == pytest.approx(3000, rel=0.08)


@pytest.mark.parametrize("classes", [1, 3])
def test_sampling_of_several_classes_at_once(classes: int) -> None:
    """The mean over the classes of the weight of what an image has; of one label alone both are drawn equally often."""
    rng = np.random.default_rng(classes)
    has = (rng.random((200, classes)) < np.array([0.1, 0.6, 0.3])[:classes]).astype(int)
    samples = [Sample(str(n), Path("x"), str(n), labels=tuple(row)) for n, row in enumerate(has.tolist())]
    assert torch.equal(targets_of(samples), torch.tensor(has, dtype=torch.float32))
    assert class_counts(samples, classes).tolist() == has.sum(0).tolist()
    share = has.mean(0)
    expected = np.where(has == 1, 0.5 / share, 0.5 / (1 - share)).mean(1)
    weights = sampling_weights(samples, classes)
    assert weights.tolist() == pytest.approx(expected.tolist(), rel=1e-5) and weights.mean() == pytest.approx(1)
    counts = drawn_often(samples, classes)
    assert sum(counts.values()) == 12000
    drawn = np.array([counts[index] for index in range(200)]) / 60
    assert np.corrcoef(drawn, expected)[0, 1] > 0.9
    if classes == 1:
        assert (drawn * has[:, 0]).sum() == pytest.approx(100, rel=0.06)


def test_weights_of_classes_that_are_not_there() -> None:
    assert class_weights(torch.tensor([5, 0, 5])).isfinite().all()
    samples = [Sample(str(n), Path("x"), str(n), labels=(1, 0)) for n in range(4)]
    assert sampling_weights(samples, 2).isfinite().all() and log_class_prior(torch.tensor([4, 0]), 4).isfinite().all()


# Reading


def grid_of(path: Path, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


def augmented(images: Images, keys: list[tuple[int, int]], augment: Augment | None, size: int) -> dict[str, Tensor]:
    if images.kept is not None:
        batch = images.from_memory(keys)
    else:
        items = [images[key] for key in keys]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    return augment_batch(batch, batch["seed"].tolist(), augment, size)


@pytest.mark.parametrize("augment", [None, Augment(), Augment(rotate=False, color=0.5), Augment(enabled=False)])
@pytest.mark.parametrize(
    ("name", "masks", "stacks"), [("ham10000", True, False), ("psinkd", False, True), ("kvasir", True, False)]
)
def test_memory_holds_what_the_disk_does(
    name: Any, masks: bool, stacks: bool, augment: Augment | None, folders: dict[str, Path]
) -> None:
    """Batch for batch of a sampler, in each epoch."""
    samples = read_dataset(Data(name, str(folders[name])), masks=masks).samples[:9]
    wanted = (stored_size(40, augment), MaskFormat() if masks else None, stacks)
    sampler = EpochSampler(len(samples), 4, seed=1)
    for sampler.epoch in (0, 1):
        batches = [list(make_loader(Images(samples, *wanted, memory), sampler)) for memory in (None, CPU)]
        assert len(batches[0]) == len(batches[1]) == 2
        for disk, memory in zip(*batches):
            found = [augment_batch(batch, batch["seed"].tolist(), augment, 40) for batch in (disk, memory)]
            assert found[0].keys() == found[1].keys()
            there = (("mask", masks), ("stack", stacks), ("label", name != "kvasir"))
            assert set(found[0]) == {"image", "index", "seed", *(key for key, is_there in there if is_there)}
            for key, value in found[0].items():
                assert torch.equal(value, found[1][key]), key
            assert found[0]["image"].shape == (4, 3, 40, 40)


def test_memory_and_disk_of_several_labels_and_classes_of_masks(tmp_path: Path) -> None:
    samples = []
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 4, (30, 40))
        Image.fromarray(np.where(pixels == 3, 9, pixels).astype(np.uint8)).save(tmp_path / f"{number}_m.png")
        path = grid_of(tmp_path / f"{number}.png", number)
        labels = (number % 2, int(number > 2))
        samples.append(Sample(str(number), path, str(number), labels=labels, mask=tmp_path / f"{number}_m.png"))
    mask_format = MaskFormat(("background", "a", "b"), 9)
    disk, memory = (Images(samples, 40, mask_format, memory=memory) for memory in (None, CPU))
    keys = [(index, 70 + index) for index in range(5)]
    for augment in (None, Augment()):
        first, second = (augmented(images, keys, augment, 32 if augment else 40) for images in (disk, memory))
        assert all(torch.equal(first[key], second[key]) for key in first) and first.keys() == second.keys()
        assert set(first["mask"].unique().tolist()) == {0, 1, 2, IGNORE}
        assert first["label"].tolist() == [[0, 0], [1, 0], [0, 0], [1, 1], [0, 1]]


def test_loader_in_order(tmp_path: Path) -> None:
    samples = [Sample(str(n), grid_of(tmp_path / f"{n}.png", n), str(n), n % 2) for n in range(5)]
    for memory in (None, CPU):
        batches = list(make_loader(Images(samples, 16, memory=memory), 2))
        assert [batch["index"].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
        assert torch.cat([batch["label"] for batch in batches]).tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("memory", [None, CPU])
def test_files_that_break_while_training_are_named(memory: torch.device | None, tmp_path: Path) -> None:
    path = grid_of(tmp_path / "1.png")
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(DataError, match=r"1\.png: not a readable image"):
        list(make_loader(Images([Sample("1", path, "1", 0)], 16, memory=memory), 1))
    good = grid_of(tmp_path / "2.png")
    Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40) % 5).save(tmp_path / "2_mask.png")
    sample = Sample("2", good, "2", mask=tmp_path / "2_mask.png")
    with pytest.raises(DataError, match=r"2_mask\.png: not a usable mask \(values 0, 1, 2, 3, 4: what is foreground"):
        list(make_loader(Images([sample], 16, MaskFormat(), memory=memory), 1))


def test_images_of_16_bits_and_palettes(tmp_path: Path) -> None:
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert torch.equal(read_image(tmp_path / "deep.png")[0], torch.arange(256, dtype=torch.uint8).view(16, 16))
    Image.fromarray((ramp >> 8).astype(np.uint8)).convert("P").save(tmp_path / "palette.png")
    assert torch.equal(read_image(tmp_path / "palette.png"), read_image(tmp_path / "deep.png"))
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(tmp_path / "ones.png")
    sample = Sample("x", tmp_path / "deep.png", "x", mask=tmp_path / "ones.png")
    assert torch.equal(read_mask(sample, MaskFormat()), torch.eye(16, dtype=torch.uint8)[None])


def test_normalize() -> None:
    images = torch.rand(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 2.0, 1.0)}
    expected = (images.numpy() - np.array(cfg["mean"]).reshape(3, 1, 1)) / np.array(cfg["std"]).reshape(3, 1, 1)
    assert np.allclose(normalize(images, cfg).numpy(), expected, atol=1e-6)


# Augmentation


def bright(images: Tensor) -> Tensor:
    mean = images.mean(-3, keepdim=True)
    return mean > 0.5 * mean.amax((-2, -1), keepdim=True)


@pytest.fixture
def drawing(tmp_path: Path) -> Sample:
    """A mask that is the image's own bright part, and a stack of that picture four times."""
    y, x = np.mgrid[:90, :120]
    mask = ((np.hypot(y - 40, x - 55) < 26) & (x < 60)).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    Image.fromarray(mask).convert("RGB").save(tmp_path / "i.png")
    return Sample("i", tmp_path / "i.png", "i", 0, mask=tmp_path / "m.png", stack=(tmp_path / "i.png",) * 4)


@pytest.mark.parametrize("memory", [None, CPU])
def test_masks_and_slices_follow_the_geometry(memory: torch.device | None, drawing: Sample) -> None:
    augment = Augment(shift=0.1)
    images = Images([drawing], stored_size(64, augment), MaskFormat(), True, memory)
    batch = augmented(images, [(0, seed) for seed in range(24)], augment, 64)
    assert batch["image"].shape == (24, 3, 64, 64) and batch["stack"].shape == (24, 4, 3, 64, 64)
    assert set(batch["mask"].unique().tolist()) == {0, 1}
    dice = dice_and_iou(bright(batch["image"])[:, 0], batch["mask"][:, 0], 1)[0]
    assert dice.min() > 0.85 and dice.mean() > 0.93
    assert batch["image"].flatten(1).unique(dim=0).shape[0] == 24
    shapes = bright(batch["stack"].flatten(0, 1)).unflatten(0, (24, 4))[:, :, 0]
    assert all(torch.equal(shapes[:, 0], shapes[:, slice_]) for slice_ in range(1, 4))
    # A stack is not registered to its image: it has a geometry of its own.
    assert dice_and_iou(shapes[:, 0], batch["mask"][:, 0], 1)[0].mean() < 0.8


@pytest.mark.parametrize("augment", [Augment(), Augment(rotate=False), Augment(scale=(1.0, 1.0), stretch=0.0)])
def test_augmentation_does_not_depend_on_the_batch(augment: Augment, drawing: Sample, tmp_path: Path) -> None:
    """Nor on the place in it: an image's own seed decides."""
    images = Images([drawing, Sample("o", grid_of(tmp_path / "o.png"), "o", 1)], 50, memory=CPU)
    keys = [(n % 2, 100 + n) for n in range(8)]
    whole = augmented(images, keys, augment, 40)["image"]
    for chosen in ([3], [5, 0], [7, 6, 5, 4, 3, 2, 1, 0], [2, 2, 2]):
        part = augmented(images, [keys[n] for n in chosen], augment, 40)["image"]
        torch.testing.assert_close(part, whole[chosen], atol=1e-6, rtol=0)


@pytest.mark.parametrize("augment", [None, Augment(enabled=False)])
def test_without_augmentation_whole_frames_stay_as_they_are(augment: Augment | None, drawing: Sample) -> None:
    assert stored_size(64, augment) == 64 and stored_size(64, Augment()) == 80
    images = Images([drawing], 64, MaskFormat(), True)
    item = images[0, 5]
    batch = augmented(images, [(0, 5), (0, 6)], augment, 64)
    for number in (0, 1):
        assert torch.equal(batch["image"][number], item["image"].float() / 255)
        assert torch.equal(batch["stack"][number], item["stack"].float() / 255)
        assert torch.equal(batch["mask"][number], item["mask"].float())
    frame = read_image(drawing.image).float().mean() / 255
    assert batch["image"].mean() == pytest.approx(frame.item(), abs=0.01)


def test_augmentation_keeps_to_its_limits() -> None:
    """Nothing but mirror images where everything else is 0; quarter turns where free rotation is off."""
    picture = torch.randint(0, 256, (1, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    still = Augment(scale=(1.0, 1.0), rotate=False, stretch=0.0, shift=0.0, color=0.0)
    views = [torch.rot90(v, turns, (2, 3)) / 255 for v in (picture, picture.flip(3)) for turns in range(4)]
    seen = set()
    for seed in range(60):
        found = augment_batch({"image": picture}, [seed], still, 20)["image"]
        gaps = [(found - view).abs().max().item() for view in views]
        assert min(gaps) < 1e-4
        seen.add(int(np.argmin(gaps)))
    assert seen == set(range(8))
    colors = augment_batch({"image": picture}, [3], Augment(color=0.9), 20)["image"]
    assert colors.min() >= 0 and colors.max() <= 1


def test_ignored_pixels_stay_ignored(tmp_path: Path) -> None:
    """Nothing between a class and the value to ignore comes of resizing and turning."""
    mask = np.random.default_rng(0).choice([0, 1, 255], (30, 40)).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "m.png")
    sample = Sample("x", grid_of(tmp_path / "x.png"), "x", mask=tmp_path / "m.png")
    for augment in (None, Augment()):
        images = Images([sample], stored_size(32, augment), MaskFormat(ignore_index=255))
        batch = augmented(images, [(0, seed) for seed in range(6)], augment, 32)
        assert set(batch["mask"].unique().tolist()) == {0, 1, IGNORE}


# Losses


def dice_and_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Per image 1 - soft Dice, and binary cross-entropy."""
    logits = F.interpolate(logits, size=masks.shape[2:], mode="bilinear")
    p = logits.sigmoid()
    shared, both = (p * masks).sum((2, 3)), p.sum((2, 3)) + masks.sum((2, 3))
    soft = 1 - (2 * shared + 1e-5) / (both + 1e-5)
    return soft.mean() + F.binary_cross_entropy_with_logits(logits, masks)


class FakeModel(nn.Module):
    """Answers with logits that are given."""

    def __init__(self, logits: Tensor | None, deep: list[Tensor]) -> None:
        super().__init__()
        self.logits, self.deep = logits, deep

    def forward(self, x: Tensor) -> Tensor | None:
        return self.logits

    def forward_deep(self, x: Tensor) -> tuple[Tensor | None, list[Tensor]]:
        return self.logits, self.deep


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of_masks(logits: Tensor, masks: Tensor, **more: Any) -> Tensor:
    """The loss of one logit map."""
    return ModelWithLoss(FakeModel(None, []), Loss(**more)).dice_and_entropy(logits, masks)


def test_losses_against_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator)
    deep = [torch.randn(4, 1, size, size, generator=generator) for size in (4, 8, 16)]
    masks = (torch.rand(4, 1, 16, 16, generator=generator) > 0.5).float()
    labels, counts = torch.tensor([0, 1, 2, 1]), torch.tensor([10, 20, 70])
    images = {"image": torch.zeros(4, 3, 16, 16)}
    batch = {**images, "mask": masks}
    expected = dice_and_entropy(deep[2], masks)
    expected = expected + 0.5 * (dice_and_entropy(deep[0], masks) + dice_and_entropy(deep[1], masks)) / 2
    seg = ModelWithLoss(FakeModel(None, deep), Loss(deep=0.5))
    torch.testing.assert_close(seg(batch, None), expected)
    model = FakeModel(logits, deep)
    both = ModelWithLoss(model, Loss(deep=0.5, mask_weight=3), counts)
    torch.testing.assert_close(both(batch, labels), F.cross_entropy(logits, labels) + 3 * expected)
    weighted = ModelWithLoss(model, Loss(balance="loss"), counts)
    weights = 100 / (3 * counts)
    losses = -logits.log_softmax(1)[torch.arange(4), labels] * weights[labels]
    torch.testing.assert_close(weighted(images, labels), losses.sum() / weights[labels].sum())
    shifted = ModelWithLoss(model, Loss(balance="logits"), counts)
    odds = logits.exp() * counts / 100  # Bayes' rule: the classes' frequencies times what the logits say
    of_prior = -(odds / odds.sum(1, keepdim=True))[torch.arange(4), labels].log().mean()
    torch.testing.assert_close(shifted(images, labels), of_prior)
    smooth = ModelWithLoss(model, Loss(smoothing=0.2), counts)
    soft = F.one_hot(labels, 3) * 0.8 + 0.2 / 3
    torch.testing.assert_close(smooth(images, labels), -(soft * logits.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(ModelWithLoss(model, Loss(), counts)(images, soft), smooth(images, labels))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_of_several_classes_at_once(classes: int, smoothing: float) -> None:
    """Binary cross-entropy, in numpy: plain, with weights of positives, with the logarithm of the odds added."""
    logits = random(6, classes, seed=classes)
    labels = (random(6, classes, seed=9) > 0).float()
    counts, images = torch.tensor([10, 50, 90])[:classes], 100
    batch = {"image": torch.zeros(6, 3, 8, 8)}
    z, y, n = logits.double().numpy(), labels.numpy() * (1 - smoothing) + smoothing / 2, counts.numpy()

    def entropy(z: np.ndarray, weight: Any = 1.0) -> float:
        p = 1 / (1 + np.exp(-z))
        return float(-(weight * y * np.log(p) + (1 - y) * np.log(1 - p)).mean())

    for balance, expected in (
        ("none", entropy(z)),
        ("sampling", entropy(z)),
        ("loss", entropy(z, (images - n) / n)),
        ("logits", entropy(z + np.log(n / (images - n)))),
    ):
        loss = ModelWithLoss(FakeModel(logits, []), Loss(balance=balance, smoothing=smoothing), counts, images)  # type: ignore[arg-type]
        assert loss(batch, labels).item() == pytest.approx(expected, rel=1e-5), balance


def test_class_prior() -> None:
    counts = torch.tensor([10, 30, 60])
    assert log_class_prior(counts).exp().tolist() == pytest.approx([0.1, 0.3, 0.6])
    odds = log_class_prior(counts, 100).exp()
    assert odds.tolist() == pytest.approx([1 / 9, 3 / 7, 1.5])
    assert (odds / (1 + odds)).tolist() == pytest.approx([0.1, 0.3, 0.6])


@pytest.mark.parametrize("seed", range(4))
def test_one_foreground_is_lost_as_monai_does(seed: int) -> None:
    for shape in ((3, 1, 16, 16), (1, 1, 9, 31), (5, 1, 4, 4)):
        logits, masks = 3 * random(*shape, seed=seed), (random(*shape, seed=seed + 50) > 0.3).float()
        masks[0] = 0  # empty
        expected = DiceCELoss(sigmoid=True)(logits, masks)
        torch.testing.assert_close(of_masks(logits, masks), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_several_mask_classes_against_formulas(classes: int) -> None:
    logits = 2 * random(4, classes, 10, 12, seed=classes)
    masks = torch.randint(classes, (4, 1, 10, 12), generator=torch.Generator().manual_seed(1)).float()
    masks[1][masks[1] == classes - 1] = 0
    z, m = logits.double().numpy(), masks[:, 0].numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    dices = [
        (2 * (p[b, k] * (m[b] == k)).sum() + 1e-5) / (p[b, k].sum() + (m[b] == k).sum() + 1e-5)
        for b in range(4)
        for k in range(classes)
    ]
    right = np.take_along_axis(p, m.astype(int)[:, None], 1)
    assert of_masks(logits, masks).item() == pytest.approx(1 - np.mean(dices) - np.log(right).mean(), rel=1e-5)
    monai = DiceCELoss(softmax=True, to_onehot_y=True)(logits, masks)
    torch.testing.assert_close(of_masks(logits, masks), monai, atol=1e-6, rtol=0)


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_ignored_pixels_are_not_lost(classes: int) -> None:
    """The loss is that of the other pixels alone, cut out; whatever is predicted in the ignored ones."""
    logits = 2 * random(3, classes, 8, 20, seed=classes)
    masks = torch.randint(max(2, classes), (3, 1, 8, 20), generator=torch.Generator().manual_seed(2)).float()
    # The same number in each image, so that the others make a smaller image.
    order = torch.stack([torch.randperm(160, generator=torch.Generator().manual_seed(n)) for n in range(3)])
    ignored = torch.zeros(3, 160, dtype=torch.bool).scatter(1, order[:, :60], True).view(3, 1, 8, 20)
    with_ignored = masks.masked_fill(ignored, IGNORE)
    others = [x.masked_select(~ignored).view(3, x.shape[1], 5, 20) for x in (logits, masks)]
    expected = of_masks(*others)
    for value in (-30.0, 0.0, 30.0):
        found = of_masks(logits.masked_fill(ignored, value), with_ignored)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert not torch.isclose(of_masks(logits, masks), expected, atol=1e-3)
    wild = (logits * 1.0).requires_grad_()
    of_masks(wild, with_ignored).backward()
    assert wild.grad is not None and not wild.grad[ignored.expand_as(wild)].any() and wild.grad.isfinite().all()


def test_images_of_which_all_pixels_are_ignored() -> None:
    for classes in (1, 3):
        logits = random(2, classes, 6, 6).requires_grad_()
        loss = of_masks(logits, torch.full((2, 1, 6, 6), float(IGNORE)))
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-6) and logits.grad is not None and not logits.grad.any()


def test_losses_are_finite_for_sure_logits() -> None:
    for classes in (1, 3):
        logits = 200 * random(2, classes, 6, 6)
        masks = torch.randint(max(2, classes), (2, 1, 6, 6), generator=torch.Generator().manual_seed(0)).float()
        assert math.isfinite(of_masks(logits, masks).item())
