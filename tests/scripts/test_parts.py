"""The parts of the training against plain formulas."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine.build import build_network, build_optimizer, lr_factor
from engine.config import Augment, Config, Data, Loss, Model, Optim
from engine.data import DiskSamples, EpochSampler, read_image, read_mask
from engine.losses import Learner, class_weights
from engine.memory import MemorySamples
from engine.paths import PathDropout, balance_paths, path_slices
from engine.validation import dice_and_iou
from PIL import Image
from readers import DataError, Record, read_dataset
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2

CPU = torch.device("cpu")


def config(task: Any = "cls", data: Any = "ham10000", **more: Any) -> Config:
    return Config(task, "unused", Data(data, "unused"), **more)


def test_start_from_a_tag(folders: dict[str, Path]) -> None:
    """What is known of the images behind the weights that a training starts from is kept, and so are their terms."""
    polyps = read_dataset("kvasir", folders["kvasir"])
    settings = config("seg", "kvasir", model=Model(pretrained=True, tag="ham10000"), input_size=64)
    network = build_network(settings, polyps)
    bundled: Any = mfsf2.create_model("mfsf2_tiny_seg", pretrained=True)
    assert all(torch.equal(value, bundled.state_dict()[key]) for key, value in network.state_dict().items())
    cfg = network.pretrained_cfg
    assert cfg["trained_on"] == bundled.pretrained_cfg["trained_on"] and cfg["input_size"] == (3, 64, 64)
    assert cfg["pool_size"] == (2, 2) and cfg["interpolation"] == "bilinear"
    assert cfg["license"] == f"cc-by-nc-4.0 and {polyps.terms.lower().replace(' ', '-')}"
    lesions = read_dataset("ham10000", folders["ham10000"])
    cfg = build_network(config("clsseg", model=Model(pretrained=True, tag="ham10000")), lesions).pretrained_cfg
    assert not cfg.keys() & {"temperature", "description"} and cfg["license"] == "cc-by-nc-4.0"
    with pytest.raises(DataError, match="model: mfsf2_tiny_cls has no pretrained tag 'imagenet'"):
        build_network(config(model=Model(pretrained=True, tag="imagenet")), lesions)


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


def test_balanced_sampling_and_weights() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    weights = class_weights(labels.bincount())
    assert weights.tolist() == pytest.approx([100 / 180, 5.0]) and weights[labels].mean() == pytest.approx(1)
    sampler = EpochSampler(100, 10, seed=0, weights=weights[labels])
    counts: Counter[int] = Counter()
    for sampler.epoch in range(40):
        counts.update(int(labels[index]) for batch in sampler for index, _ in batch)
    assert sum(counts.values()) == 4000 and counts[1] == pytest.approx(2000, rel=0.08)


def test_learning_rate() -> None:
    settings = config(optim=Optim(epochs=10, warmup_epochs=2))
    rates = [lr_factor(step / 100, settings) for step in range(1001)]
    assert rates[100] == pytest.approx(0.5) and rates[200] == 1 == max(rates) and rates[1000] == pytest.approx(0)
    assert rates[600] == pytest.approx(0.5)
    assert rates[:201] == sorted(rates[:201]) and rates[200:] == sorted(rates[200:], reverse=True)
    assert lr_factor(0, config(optim=Optim(warmup_epochs=0))) == 1


def test_optimizer_groups(folders: dict[str, Path]) -> None:
    dataset = read_dataset("ham10000", folders["ham10000"])
    settings = config(optim=Optim(layer_decay=0.8, cnn_lr_scale=0.25, weight_decay=0.1))
    network = build_network(settings, dataset)
    groups = build_optimizer(network, settings).param_groups
    found = {id(p): group for group in groups for p in group["params"]}
    named = dict(network.named_parameters())
    assert len(found) == sum(len(group["params"]) for group in groups) == len(named)
    spared = network.no_weight_decay()
    for name, parameter in named.items():
        decays = parameter.ndim > 1 and name not in spared
        assert found[id(parameter)]["weight_decay"] == (0.1 if decays else 0), name
    scale = {name: found[id(parameter)]["scale"] for name, parameter in named.items()}
    assert scale["head.fc.weight"] == 1
    stages = [scale[f"encoder.transformer.stages.{stage}.blocks.0.norm1.weight"] for stage in range(4)]
    assert stages == sorted(stages) and stages[0] < stages[-1] < 1
    plain = build_optimizer(network, config(optim=Optim(layer_decay=0.8))).param_groups
    unscaled = {id(p): group["scale"] for group in plain for p in group["params"]}
    for name, parameter in named.items():
        assert scale[name] == unscaled[id(parameter)] * (0.25 if name.startswith("encoder.cnn.") else 1), name
    assert {group["scale"] for group in build_optimizer(network, config()).param_groups} == {1}


@pytest.mark.parametrize("augment", [None, Augment(), Augment(rotate=False, colour=0.5)])
@pytest.mark.parametrize(("name", "masks", "stacks"), [("ham10000", True, False), ("psinkd", False, True)])
def test_memory_holds_what_the_disk_does(
    name: str, masks: bool, stacks: bool, augment: Augment | None, folders: dict[str, Path]
) -> None:
    records = read_dataset(name, folders[name], masks=masks).records[:5]
    disk = DiskSamples(records, 40, masks, stacks, augment)
    memory = MemorySamples(records, 40, masks, stacks, augment, CPU).batch([(index, 7 + index) for index in range(5)])
    for index in range(5):
        for key, value in disk[index, 7 + index].items():
            torch.testing.assert_close(torch.as_tensor(value), memory[key][index], atol=1e-6, rtol=0)


def bright(images: Tensor) -> Tensor:
    mean = images.mean(-3, keepdim=True)
    return mean > 0.5 * mean.amax((-2, -1), keepdim=True)


@pytest.mark.parametrize("memory", [False, True])
def test_masks_and_slices_follow_the_geometry(memory: bool, tmp_path: Path) -> None:
    """Masks that are the images' own bright part, stacks of one picture four times."""
    y, x = np.mgrid[:90, :120]
    mask = ((np.hypot(y - 40, x - 55) < 26) & (x < 60)).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    Image.fromarray(mask).convert("RGB").save(tmp_path / "i.png")
    record = Record("i", tmp_path / "i.png", "i", 0, tmp_path / "m.png", (tmp_path / "i.png",) * 4)
    augment = Augment(shift=0.1)
    keys = [(0, seed) for seed in range(24)]
    if memory:
        batch = MemorySamples([record], 64, True, True, augment, CPU).batch(keys)
        again = MemorySamples([record], 64, True, True, augment, CPU).batch(keys[3:5])["image"]
    else:
        samples = DiskSamples([record], 64, True, True, augment)
        batch = {key: torch.stack([samples[pair][key] for pair in keys]) for key in ("image", "mask", "stack")}
        again = torch.stack([samples[pair]["image"] for pair in keys[3:5]])
    assert batch["image"].shape == (24, 3, 64, 64) and batch["stack"].shape == (24, 4, 3, 64, 64)
    assert set(batch["mask"].unique().tolist()) == {0, 1}
    dice = dice_and_iou(bright(batch["image"]), batch["mask"] > 0)[0]
    assert dice.min() > 0.85 and dice.mean() > 0.93
    assert batch["image"].flatten(1).unique(dim=0).shape[0] == 24
    torch.testing.assert_close(batch["image"][3:5], again)
    shapes = bright(batch["stack"].flatten(0, 1)).unflatten(0, (24, 4)).flatten(2)
    assert all(torch.equal(shapes[:, 0], shapes[:, slice_]) for slice_ in range(1, 4))
    assert not torch.equal(shapes[:, 0], bright(batch["image"]).flatten(1))


def dice_and_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Per image 1 - soft Dice, and binary cross-entropy."""
    logits = F.interpolate(logits, size=masks.shape[2:], mode="bilinear")
    p = logits.sigmoid()
    shared, both = (p * masks).sum((2, 3)), p.sum((2, 3)) + masks.sum((2, 3))
    soft = 1 - (2 * shared + 1e-5) / (both + 1e-5)
    return soft.mean() + F.binary_cross_entropy_with_logits(logits, masks)


class FakeNetwork(nn.Module):
    """Answers with logits that are given."""

    def __init__(self, logits: Tensor | None, deep: list[Tensor]) -> None:
        super().__init__()
        self.logits, self.deep = logits, deep

    def forward(self, x: Tensor) -> Tensor | None:
        return self.logits

    def forward_deep(self, x: Tensor) -> tuple[Tensor | None, list[Tensor]]:
        return self.logits, self.deep


def test_losses_against_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator)
    deep = [torch.randn(4, 1, size, size, generator=generator) for size in (4, 8, 16)]
    masks = (torch.rand(4, 1, 16, 16, generator=generator) > 0.5).float()
    labels, counts = torch.tensor([0, 1, 2, 1]), torch.tensor([10, 20, 70])
    batch = {"image": torch.zeros(4, 3, 16, 16), "mask": masks}
    network = FakeNetwork(logits, deep)
    of_masks = dice_and_entropy(deep[2], masks)
    of_masks = of_masks + 0.5 * (dice_and_entropy(deep[0], masks) + dice_and_entropy(deep[1], masks)) / 2
    seg = Learner(FakeNetwork(None, deep), config("seg", loss=Loss(deep=0.5)), None)
    torch.testing.assert_close(seg(batch, None), of_masks)
    both = Learner(network, config("clsseg", loss=Loss(deep=0.5, mask_weight=3)), counts)
    torch.testing.assert_close(both(batch, labels), F.cross_entropy(logits, labels) + 3 * of_masks)
    weighted = Learner(network, config(loss=Loss(balance="loss")), counts)
    weights = 100 / (3 * counts)
    losses = -logits.log_softmax(1)[torch.arange(4), labels] * weights[labels]
    torch.testing.assert_close(weighted(batch, labels), losses.sum() / weights[labels].sum())
    shifted = Learner(network, config(loss=Loss(balance="logits")), counts)
    odds = logits.exp() * counts / 100  # Bayes' rule: the classes' frequencies times what the logits say
    expected = -(odds / odds.sum(1, keepdim=True))[torch.arange(4), labels].log().mean()
    torch.testing.assert_close(shifted(batch, labels), expected)


def test_paths_are_balanced_and_withheld(folders: dict[str, Path]) -> None:
    torch.manual_seed(0)
    dataset = read_dataset("ham10000", folders["ham10000"])
    network = build_network(config(model=Model(args={"drop_rate": 0.0})), dataset)
    x = torch.randn(6, 3, 64, 64)
    balance_paths(network, x)
    slices = path_slices(network)
    pooled = network.forward_features(x).mean((2, 3))
    weight = network.head.hidden[0].weight
    spread = {name: (weight[:, at].std() * pooled[:, at].std(0).mean()).item() for name, at in slices.items()}
    assert max(spread.values()) < 1.3 * min(spread.values())
    assert slices["P"].stop is None and pooled.shape[1] == network.head.hidden[0].in_features
    head = nn.Identity()
    inputs = torch.ones(400, pooled.shape[1], 1, 1)
    (masked,) = PathDropout(network, 0.25)(head, (inputs,)) or (None,)
    assert masked is not None
    shares = {name: masked[:, at].flatten(1).mean(1) for name, at in slices.items()}
    assert set(shares["r4"].tolist()) == set(shares["P"].tolist()) == {0.0, 1.0} and shares["p4"].min() == 1
    assert shares["r4"].mean() == pytest.approx(0.75, abs=0.08)
    assert PathDropout(network, 0.25)(head.eval(), (inputs,)) is None


def test_images_of_16_bits_and_palettes(tmp_path: Path) -> None:
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert torch.equal(read_image(tmp_path / "deep.png")[0], torch.arange(256, dtype=torch.uint8).view(16, 16))
    Image.fromarray((ramp >> 8).astype(np.uint8)).convert("P").save(tmp_path / "palette.png")
    assert torch.equal(read_image(tmp_path / "palette.png"), read_image(tmp_path / "deep.png"))
    with pytest.raises(ValueError, match="masks have 8 bits"):
        read_mask(tmp_path / "deep.png")
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "ones.png")
    with pytest.raises(ValueError, match="values up to 1; in masks the foreground is above 127"):
        read_mask(tmp_path / "ones.png")
    Image.fromarray(np.eye(4, dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="floating point pixels"):
        read_image(tmp_path / "float.tif")
