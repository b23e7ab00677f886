"""A saved folder is whole at every moment, and what is saved can be loaded."""

import copy
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from micro import build
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.layers import freeze_batch_norm_2d
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.utils import prune

import mfsf2
import mfsf2.timm_models
from mfsf2.deploy import fold_batch_norm
from mfsf2.weights import files

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
FILES = ["README.md", "config.json", "model.safetensors"]
NAMES = {"a": ["a1", "a2", "a3"], "b": ["b1", "b2", "b3"]}


def marked(which: str) -> Any:
    """A model that is told by its classifier's bias."""
    model = build(num_classes=3)
    nn.init.constant_(model.head.fc.bias, 1.0 if which == "a" else 2.0)
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {which: marked(which) for which in "ab"}


def check_whole(folder: Path, create: Callable[[str], Any] = mfsf2.create_model) -> str:
    """Load a folder: its names must be those of its weights; returns which they are."""
    model = create(f"local-dir:{folder}")
    which = "a" if model.head.fc.bias[0] == 1 else "b"
    assert list(model.pretrained_cfg["label_names"]) == NAMES[which]
    return which


@pytest.fixture
def child() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Run a function in a forked process; returns its id."""
    running: list[int] = []

    def start(function: Callable[[], None]) -> int:
        process = os.fork()
        if process == 0:
            torch.set_num_threads(1)
            try:
                function()
            finally:
                os._exit(1)
        running.append(process)
        return process

    yield start
    for process in running:
        try:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("first_time", [False, True])
def test_a_kill_between_two_files(models: dict[str, Any], tmp_path: Path, child: Any, first_time: bool) -> None:
    """After any number of the files has taken its place."""
    for number in range(1, 4):
        folder = tmp_path / str(number)
        if not first_time:
            mfsf2.save_pretrained(models["a"], folder, NAMES["a"])

        def save_and_die(folder: Path = folder, number: int = number) -> None:
            seen, replace = [0], Path.replace

            def stop(source: Path, target: Path) -> Path:
                seen[0] += 1
                if seen[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return replace(source, target)

            Path.replace = stop  # type: ignore[assignment, method-assign]
            mfsf2.save_pretrained(models["b"], folder, NAMES["b"])

        os.waitpid(child(save_and_die), 0)
        if first_time and number == 1:
            with pytest.raises(FileNotFoundError, match=r"is not a saved model: config\.json, model\.safetensors miss"):
                check_whole(folder)
        else:
            assert check_whole(folder) == ("a" if number == 1 else "b")
        assert any(path.name.startswith(".saving-") for path in folder.iterdir())
        mfsf2.save_pretrained(models["a"], folder, NAMES["a"])
        assert sorted(path.name for path in folder.iterdir()) == FILES
        assert check_whole(folder) == "a"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_at_random_times(models: dict[str, Any], tmp_path: Path, child: Any) -> None:
    mfsf2.save_pretrained(models["a"], tmp_path, NAMES["a"])
    generator, seen = random.Random(0), set()

    def save_forever() -> None:
        while True:
            for which, model in models.items():
                mfsf2.save_pretrained(model, tmp_path, NAMES[which])

    # More of them on a busy machine, where a save takes longer.
    for number in range(60):
        if number >= 12 and len(seen) == 2:
            break
        process = child(save_forever)
        time.sleep(generator.uniform(0.1, 0.9))
        kill(process)
        seen.add(check_whole(tmp_path))
    assert seen == {"a", "b"}
    mfsf2.save_pretrained(models["b"], tmp_path, NAMES["b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_savers_and_a_loader(models: dict[str, Any], tmp_path: Path, child: Any) -> None:
    mfsf2.save_pretrained(models["a"], tmp_path, NAMES["a"])

    def save_forever(which: str) -> None:
        while True:
            mfsf2.save_pretrained(models[which], tmp_path, NAMES[which])

    savers = [child(lambda which=which: save_forever(which)) for which in "ab"]
    start, seen = time.monotonic(), set()
    while time.monotonic() - start < (4 if len(seen) == 2 else 60):
        seen.add(check_whole(tmp_path))
    for saver in savers:
        kill(saver)
    assert seen == {"a", "b"}


def test_threads_save_into_one_folder(models: dict[str, Any], tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def save(which: str) -> None:
        try:
            for _ in range(5):
                mfsf2.save_pretrained(models[which], tmp_path, NAMES[which])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(which,)) for which in "abab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and check_whole(tmp_path) in "ab"
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_folders_of_running_savers_are_left_alone(tmp_path: Path) -> None:
    with files.staging_folder(tmp_path) as running:
        (running / "half").touch()
        (tmp_path / ".saving-killed").mkdir()
        with files.staging_folder(tmp_path):
            assert (running / "half").exists() and not (tmp_path / ".saving-killed").exists()


@pytest.mark.parametrize("create", [mfsf2.create_model, lambda name: timm.create_model(name, pretrained=True)])
def test_weights_of_another_save(
    models: dict[str, Any], tmp_path: Path, create: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for which, model in models.items():
        mfsf2.save_pretrained(model, tmp_path / which, NAMES[which])
    shutil.copy(tmp_path / "b" / "model.safetensors", tmp_path / "a")
    assert check_whole(tmp_path / "a", create) == "b"
    assert "is of another save" in caplog.text and "saving again repairs the folder" in caplog.text
    caplog.clear()
    mfsf2.save_pretrained(models["a"], tmp_path / "a", NAMES["a"])
    assert check_whole(tmp_path / "a", create) == "a" and not caplog.records
    (tmp_path / "b" / "config.json").unlink()
    if create is mfsf2.create_model:
        assert check_whole(tmp_path / "b") == "b" and "has no config.json" in caplog.text


def test_weights_of_another_model(tmp_path: Path) -> None:
    """The weights' own configuration decides the model too, with the caller's changes."""
    mfsf2.save_pretrained(build(num_classes=3), tmp_path / "a")
    mfsf2.save_pretrained(build("clsseg", num_classes=4), tmp_path / "b")
    shutil.copy(tmp_path / "b" / "model.safetensors", tmp_path / "a")
    for create in (mfsf2.create_model, lambda name, **kw: timm.create_model(name, pretrained=True, **kw)):
        model = create(f"local-dir:{tmp_path / 'a'}", in_chans=1)
        assert (model.num_classes, model.mask_classes, model.in_chans) == (4, 1, 1)


def test_edits_of_the_configuration_are_believed(tmp_path: Path, models: dict[str, Any]) -> None:
    mfsf2.save_pretrained(models["a"], tmp_path, NAMES["a"])
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["label_names"] = ["x", "y", "z"]
    path.write_text(json.dumps(config))
    assert mfsf2.create_model(f"local-dir:{tmp_path}").pretrained_cfg["label_names"] == ["x", "y", "z"]


def test_weights_without_a_configuration_inside(tmp_path: Path, models: dict[str, Any]) -> None:
    """Of version 0.1, or of other tools: config.json is believed."""
    mfsf2.save_pretrained(models["a"], tmp_path, NAMES["a"])
    config = json.loads((tmp_path / "config.json").read_text())
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, or is not the file that .*config\.json des"):
        mfsf2.create_model(f"local-dir:{tmp_path}")
    del config["save_id"], config["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert check_whole(tmp_path) == "a"


def test_what_the_file_says(tmp_path: Path, models: dict[str, Any]) -> None:
    mfsf2.save_pretrained(models["a"], tmp_path, NAMES["a"])
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    config = json.loads((tmp_path / "config.json").read_text())
    assert metadata["format"] == "pt"
    assert {**json.loads(metadata["mfsf2_config"]), "sha256": config["sha256"]} == config


def test_saving_changes_nothing(models: dict[str, Any], tmp_path: Path) -> None:
    model = copy.deepcopy(models["a"]).train()
    before, state = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    mfsf2.save_pretrained(model, tmp_path, NAMES["a"])
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def compiled_part(model: Any) -> Any:
    model.encoder = torch.compile(model.encoder, backend="eager")
    return model


def other_training(model: Any) -> Any:
    """What makes no difference in evaluation mode."""
    model.head.drop.p = 0.7
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.01
    return model


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled part": compiled_part,
    "data parallel": nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "several": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    "frozen norms": freeze_batch_norm_2d,
    "synchronized norms": nn.SyncBatchNorm.convert_sync_batchnorm,
    "timm's average": ModelEmaV3,
    "settings of training": other_training,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_can_be_unwrapped(name: str, tmp_path: Path) -> None:
    model = build(num_classes=3)
    expected = model(X)
    wrapped = WRAPPERS[name](copy.deepcopy(model))
    mfsf2.save_pretrained(wrapped, tmp_path, NAMES["a"])
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path}").eval()
    assert torch.equal(loaded(X), expected) and loaded.pretrained_cfg["label_names"] == NAMES["a"]


def replace_layer(model: Any, name: str, layer: nn.Module) -> Any:
    model.set_submodule(name, layer)
    return model


def pruned(model: Any) -> Any:
    prune.l1_unstructured(model.head.fc, "weight", 0.5)
    return model


def weight_norm(model: Any) -> Any:
    nn.utils.parametrizations.weight_norm(model.encoder.fusion.stages[0].gate.attn_out)
    return model


def other_eps(model: Any) -> Any:
    model.encoder.cnn.bn1.eps = 1e-2
    return model


class Doubled(mfsf2.MFSF2):
    """Computes something else from the same weights."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(2 * x)


def doubled(model: Any) -> Any:
    model.__class__ = Doubled
    return model


UNLOADABLE: dict[str, Callable[[Any], Any]] = {
    "folded": fold_batch_norm,
    "other classifier": lambda model: replace_layer(model, "head.fc", nn.Linear(32, 9)),
    "sequential": lambda model: replace_layer(model, "head.fc", nn.Sequential(nn.Dropout(), nn.Linear(32, 3))),
    "other stem": lambda model: replace_layer(model, "encoder.cnn.conv1", nn.Conv2d(4, 8, 7, bias=False)),
    "no classifier": lambda model: replace_layer(model, "head.fc", nn.Identity()),
    "other head": lambda model: replace_layer(model, "head", nn.Linear(64, 3)),
    "other pool": lambda model: replace_layer(model, "head.global_pool", nn.AdaptiveAvgPool2d(1)),
    "other activation": lambda model: replace_layer(model, "encoder.cnn.act1", nn.SiLU()),
    "no max pool": lambda model: replace_layer(model, "encoder.cnn.maxpool", nn.Identity()),
    "other stride": lambda model: replace_layer(
        model, "encoder.cnn.conv1", nn.Conv2d(3, 8, 7, stride=1, padding=3, bias=False)
    ),
    "other eps": other_eps,
    "other forward": doubled,
    "pruned": pruned,
    "weight norm": weight_norm,
    "quantized": lambda model: torch.ao.quantization.quantize_dynamic(model, {nn.Linear}),
    "meta": lambda model: model.to("meta"),
    "complex": lambda model: replace_layer(model, "head.fc", nn.Linear(32, 3, dtype=torch.complex64)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", UNLOADABLE)
def test_what_could_not_be_loaded_again(name: str, models: dict[str, Any], tmp_path: Path) -> None:
    mfsf2.save_pretrained(models["a"], tmp_path, NAMES["a"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = UNLOADABLE[name](build(num_classes=3))
    with pytest.raises(ValueError, match=r"could not be loaded again, so nothing is saved") as caught:
        mfsf2.save_pretrained(broken, tmp_path, NAMES["b"])
    assert "reset_classifier" in str(caught.value) and "state_dict()" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_wrappers_of_nothing_known(tmp_path: Path) -> None:
    for model, name in ((nn.DataParallel(nn.Linear(2, 2)), "Linear"), (build(features_only=True), "FeatureModel")):
        with pytest.raises(
            TypeError, match=f"{name} is not a model of this library: save a model from mfsf2.create_mo"
        ):
            mfsf2.save_pretrained(model, tmp_path)


def test_weights_that_are_not_finite_are_told(tmp_path: Path) -> None:
    model = build()
    model.head.fc.bias.data[0] = torch.nan
    with pytest.warns(UserWarning, match=r"the MFSF2 that is saved has NaN or infinite values in: head\.fc\.bias$"):
        mfsf2.save_pretrained(model, tmp_path)
