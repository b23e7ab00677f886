"""timm's training tools: its script, layer-wise decay of the learning rate, averaged weights, tasks, checkpoints.

timm's packages don't contain its script ``train.py``. The last test runs it where ``MFSF2_TIMM_TRAIN`` names a copy;
the one before does what the script does.
"""

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data import Mixup, create_dataset, create_loader, resolve_data_config
from timm.loss import SoftTargetCrossEntropy
from timm.models import resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import CheckpointSaver, ModelEmaV3
from tiny import build
from torch import Tensor

import mfsf2
import mfsf2.timm_models

CLASSES = ["benign", "malignant"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in ``train/CLASS/`` and ``validation/CLASS/``, eight a class, dark or bright."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "validation"):
        for label, name in enumerate(CLASSES):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(8):
                pixels = torch.randint(128 * label, 128 * (label + 1), (64, 64, 3), generator=generator)
                Image.fromarray(pixels.byte().numpy()).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("name", ["mfsf2_cls", "mfsf2_tiny_cls"])
def test_layer_decay(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    scales: dict[str, float] = {}
    for parameter_name, parameter in model.named_parameters():
        group = groups.pop(id(parameter))
        scales[parameter_name] = group["lr_scale"]
        assert group["weight_decay"] == (0 if parameter.ndim <= 1 else 0.05), parameter_name
    assert not groups

    def scale(prefix: str) -> float:
        """The one scale of all parameters with this prefix."""
        (value,) = {value for parameter_name, value in scales.items() if parameter_name.startswith(prefix)}
        return value

    assert {value for key, value in scales.items() if key.startswith("head.")} == {1.0}
    # Each list from input to output.
    chains = [
        ["cnn.conv1", *(f"cnn.layer{i}.0" for i in range(1, 5)), "fusion.stages.0", "fusion.pyramid"],
        [
            "transformer.patch_embed",
            *(f"transformer.stages.{i}" for i in range(4)),
            "fusion.stages.3",
            "fusion.pyramid",
        ],
        [f"fusion.stages.{i}" for i in range(4)],
    ]
    for chain in chains:
        values = [scale(f"encoder.{prefix}.") for prefix in chain]
        assert values == sorted(set(values)), dict(zip(chain, values))
        assert values[-1] < 1


def test_ema() -> None:
    model = build("clsseg")
    x = torch.randn(2, 3, 64, 64)
    ema = ModelEmaV3(model, decay=0.9)
    assert all(torch.equal(a, b) for a, b in zip(ema.module(x), model(x)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
    sum(output.square().mean() for output in model(x)).backward()
    optimizer.step()
    ema.update(model.eval())
    averages = ema.module.state_dict()
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            assert not torch.equal(value, before[key]), key
            torch.testing.assert_close(averages[key], 0.9 * before[key] + 0.1 * value, rtol=1e-5, atol=1e-6)
        else:  # counters of batches
            assert torch.equal(averages[key], value), key
    ema.set(model)
    assert all(torch.equal(a, b) for a, b in zip(ema.module(x), model(x)))


def loader_of(folder: Path, split: str, config: dict[str, Any]) -> Any:
    dataset = create_dataset("", root=str(folder), split=split)
    options = dict(batch_size=4, is_training=split == "train", num_workers=0, use_prefetcher=False)
    return create_loader(dataset, **options, **{key: config[key] for key in ("input_size", "mean", "std")})


def test_parts_of_the_training_script(folder: Path, tmp_path: Path) -> None:
    """Its arguments for models, data, Mixup, task, EMA, optimizer, scheduler; its checkpoint, into mfsf2 and timm."""
    args = argparse.Namespace(model="mfsf2_tiny_cls", num_classes=2, img_size=64)
    importlib.import_module("mfsf2.timm_models")
    empty = dict(
        in_chans=None, global_pool=None, bn_momentum=None, bn_eps=None, drop_path_rate=None, drop_block_rate=None
    )
    model = timm.create_model(
        args.model, num_classes=args.num_classes, drop_rate=0.1, scriptable=False, checkpoint_path="", **empty
    )
    model.set_grad_checkpointing(enable=True)
    with torch.no_grad():  # --head-init-scale, --head-init-bias
        model.get_classifier().weight.mul_(0.1)
        model.get_classifier().bias.fill_(0)
    config = resolve_data_config(vars(args), model=model)
    assert config["input_size"] == (3, 64, 64)
    task = ClassificationTask(model, SoftTargetCrossEntropy(), verbose=False)
    ema = ModelEmaV3(model, decay=0.5)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.9)
    batches = loader_of(folder, "train", config)
    scheduler, epochs = create_scheduler_v2(optimizer, num_epochs=1, warmup_epochs=0, updates_per_epoch=len(batches))
    saver = CheckpointSaver(
        model, optimizer, args, model_ema=ema, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
    )
    mixup = Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, num_classes=2)
    task.train()
    for x, labels in batches:
        task(*mixup(x, labels))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)
    scheduler.step(epochs)
    saver.save_checkpoint(0, metric=50.0)

    x, _ = next(iter(loader_of(folder, "validation", config)))
    check_checkpoint(tmp_path / "last.pth.tar", x, ema.module.eval()(x))
    # Resumed as --resume does it.
    resumed = timm.create_model(args.model, num_classes=2)
    again = create_optimizer_v2(resumed, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.9)
    assert resume_checkpoint(resumed, str(tmp_path / "last.pth.tar"), again) == 1
    assert torch.equal(resumed.eval()(x), model.eval()(x))
    assert again.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


def check_checkpoint(path: Path, x: Tensor, expected: Tensor | None = None) -> None:
    """timm and mfsf2 load the averaged weights of one of timm's checkpoints."""
    by_timm = timm.create_model("mfsf2_tiny_cls", num_classes=2, checkpoint_path=str(path)).eval()
    by_mfsf2: Any = mfsf2.create_model("mfsf2_tiny_cls", num_classes=2, checkpoint_path=path).eval()
    assert torch.equal(by_mfsf2(x), by_timm(x))
    if expected is not None:
        assert torch.equal(by_mfsf2(x), expected)


@pytest.mark.skipif("MFSF2_TIMM_TRAIN" not in os.environ, reason="MFSF2_TIMM_TRAIN names no train.py of timm")
def test_training_script(folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "data-dir": folder,
        "output": tmp_path,
        "experiment": "run",
        "device-modules": "mfsf2.timm_models",
        "model": "mfsf2_tiny_cls",
        "num-classes": 2,
        "img-size": 64,
        "batch-size": 4,
        "epochs": 1,
        "opt": "adamw",
        "lr": 1e-3,
        "layer-decay": 0.9,
        "mixup": 0.2,
        "device": "cpu",
        "workers": 0,
    }
    command = [sys.executable, os.environ["MFSF2_TIMM_TRAIN"], "--model-ema", "--no-prefetcher"]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    subprocess.run(command, check=True)
    check_checkpoint(tmp_path / "run" / "last.pth.tar", torch.randn(2, 3, 64, 64))
