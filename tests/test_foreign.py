"""Checkpoints of other trainers, and models that start from others."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_data import MODEL_KEYS, draw_state
from micro import build, sizes_of
from safetensors.torch import save_file
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import mfsf2

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> Any:
    return build()


@pytest.fixture(scope="module")
def other() -> Any:
    return build(seed=7)


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def check_loaded(content: Any, model: Any, path: Path, **kwargs: Any) -> None:
    """As ``torch.save`` and, if it is tensors only, as safetensors."""
    torch.save(content, path / "model.pth")
    if all(isinstance(value, Tensor) for value in content.values()):
        save_file({key: value.clone() for key, value in content.items()}, path / "model.safetensors")
    for file in sorted(path.glob("model.*")):
        loaded = build(seed=3)
        mfsf2.load_checkpoint(loaded, file, **kwargs)
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items()), file


class Lightning(nn.Module):
    """What a LightningModule's state dict looks like."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(7))


def compiled_part(model: Any) -> Any:
    model.encoder = torch.compile(model.encoder, backend="eager")
    return model


WRAPPED: dict[str, Callable[[Any], nn.Module]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled part": compiled_part,
    "data parallel": nn.DataParallel,
    "data parallel, compiled": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    "averaged": AveragedModel,
    "averaged, compiled": lambda model: AveragedModel(torch.compile(model, backend="eager")),
    "Lightning": Lightning,
    "Lightning, compiled": lambda model: Lightning(torch.compile(model, backend="eager")),  # type: ignore[arg-type]
    "timm's average": ModelEmaV3,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_models(name: str, model: Any, tmp_path: Path) -> None:
    check_loaded(WRAPPED[name](copy.deepcopy(model)).state_dict(), model, tmp_path)


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "network.", "module.", "_orig_mod.", "timm_model.", "module.model.net.", "a.b.c."]
)
def test_prefixes(prefix: str, model: Any, tmp_path: Path) -> None:
    check_loaded(prefixed(model.state_dict(), prefix), model, tmp_path)


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "network"])
def test_training_checkpoints(entry: str, model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = {entry: prefixed(model.state_dict(), "module."), "optimizer": {"state": {0: {"step": 3}}}, "epoch": 3}
    check_loaded(content, model, tmp_path)
    check_loaded({"model": content}, model, tmp_path)
    assert not caplog.records


def test_authors_keys_with_a_prefix(tmp_path: Path) -> None:
    state = draw_state(MODEL_KEYS)
    torch.save({"state_dict": prefixed(state, "module.net.")}, tmp_path / "authors.pth")
    loaded: Any = mfsf2.create_model("mfsf2_cls", checkpoint_path=tmp_path / "authors.pth")
    assert torch.equal(loaded.encoder.cnn.conv1.weight, state["resnet.conv1.0.weight"])


def test_what_is_not_of_the_model_is_logged(model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_loaded(Lightning(copy.deepcopy(model)).state_dict(), model, tmp_path)
    assert "not of the model, and not loaded: criterion.weight" in caplog.text


@pytest.mark.parametrize("entries", [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("network", "ema")])
def test_averaged_weights(
    entries: tuple[str, str], model: Any, other: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are preferred, as by timm; the others can be chosen."""
    content = {entries[0]: other.state_dict(), entries[1]: model.state_dict()}
    check_loaded(content, model, tmp_path)
    assert f"loaded the entry '{entries[1]}'; it also has '{entries[0]}'" in caplog.text and "entry=" in caplog.text
    caplog.clear()
    check_loaded(content, other, tmp_path, entry=entries[0])
    check_loaded(content, model, tmp_path, entry=entries[1])
    assert not caplog.records
    with pytest.raises(ValueError, match=rf"model\.pth has no entry 'best' with a model: it has '{entries[0]}'"):
        check_loaded(content, model, tmp_path, entry="best")


def test_models_side_by_side(model: Any, other: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = prefixed(model.state_dict(), "teacher.") | prefixed(other.state_dict(), "student.")
    with pytest.raises(ValueError, match=r"has several models, 'student', 'teacher': choose one with entry="):
        check_loaded(both, model, tmp_path)
    check_loaded(both, model, tmp_path, entry="teacher")
    averaged = prefixed(model.state_dict(), "ema_model.") | prefixed(other.state_dict(), "model.")
    caplog.clear()
    check_loaded(averaged, model, tmp_path)
    assert "loaded 'ema_model'; it also has 'model'" in caplog.text
    check_loaded(averaged, other, tmp_path, entry="model")


def test_counters_may_be_missing(model: Any, tmp_path: Path) -> None:
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "model.safetensors")
    mfsf2.load_checkpoint(build(seed=3), tmp_path / "model.safetensors")
    del state["encoder.cnn.bn1.running_mean"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing \(1\):\n  encoder\.cnn\.bn1\.running_mean"):
        mfsf2.load_checkpoint(build(seed=3), tmp_path / "model.safetensors")


def encoder_of(model: Any) -> State:
    return {key: value for key, value in model.state_dict().items() if key.startswith("encoder.")}


@pytest.mark.parametrize("task", ["clsseg", "seg", "rcm_cls", "rcm_seg", "rcm_clsseg"])
def test_a_classifier_starts_another_task(
    task: str, model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mfsf2.save_pretrained(model, tmp_path, list("abcdefg"))
    for load in (mfsf2.load_checkpoint, mfsf2.load_pretrained):
        source = f"local-dir:{tmp_path}" if load is mfsf2.load_pretrained else tmp_path / "model.safetensors"
        start = build(task, seed=4)
        before = copy.deepcopy(start.state_dict())
        with pytest.raises(ValueError, match=r"(?s)missing.*\nThe encoder fits: .*strict='encoder' starts from it"):
            load(start, source)  # type: ignore[arg-type]
        assert all(torch.equal(value, before[key]) for key, value in start.state_dict().items())
        caplog.clear()
        load(start, source, strict="encoder")  # type: ignore[arg-type]
        after = start.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in encoder_of(model).items())
        if start.head is not None:
            assert torch.equal(start.head.hidden[0].weight, model.head.hidden[0].weight)
        for part in ("stem", "mask_head"):
            own = {key: value for key, value in before.items() if key.startswith(f"{part}.")}
            assert all(torch.equal(value, after[key]) for key, value in own.items())
            assert (f"{part}.* is not in the checkpoint, left unchanged" in caplog.text) == bool(own)


def test_two_modalities_start_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = build("rcm_cls", num_classes=7)
    mfsf2.save_pretrained(pair, tmp_path)
    start = build(seed=4)
    mfsf2.load_checkpoint(start, tmp_path / "model.safetensors", strict="encoder")
    assert "stem.* is not part of the model, not loaded" in caplog.text
    torch.testing.assert_close(start(X), pair(X))


def test_the_encoder_must_fit(model: Any, tmp_path: Path) -> None:
    mfsf2.save_pretrained(build(channels=32), tmp_path)
    with pytest.raises(ValueError, match=r"wrong shape \(\d+\):\n  encoder\."):
        mfsf2.load_pretrained(build(), f"local-dir:{tmp_path}", strict="encoder")
    for strict in (False, None, "heads"):
        with pytest.raises(ValueError, match=rf"strict={strict!r}: use True, or 'encoder'"):
            mfsf2.load_checkpoint(build(), tmp_path / "model.safetensors", strict=strict)  # type: ignore[arg-type]


@pytest.mark.parametrize("slice_chans", [None, 1])
@pytest.mark.parametrize("in_chans", [1, 2, 6])
def test_channels_of_two_modalities(
    in_chans: int, slice_chans: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build("rcm_cls", slice_chans=slice_chans)
    mfsf2.save_pretrained(model, tmp_path)
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path}", in_chans=in_chans).eval()
    assert f"adapted from 3 to {in_chans} channels: stem.slices.weight, stem.slices.bias" in caplog.text
    stack = torch.randn(2, 4, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    if in_chans == 2:
        # timm's adapted convolutions are another sum of grey channels.
        assert loaded(image.expand(-1, 2, -1, -1), stack).isfinite().all()
        return
    # The stem starts as a mean, for which grey images are the same in one channel, three and six.
    expected = model(image.expand(-1, 3, -1, -1), stack)
    torch.testing.assert_close(loaded(image.expand(-1, in_chans, -1, -1), stack), expected, rtol=1e-4, atol=1e-4)
    alone = model(None, stack)
    torch.testing.assert_close(loaded(None, stack), alone, rtol=1e-4, atol=1e-4)


def test_a_trained_stem_for_grey_slices(tmp_path: Path) -> None:
    """Its outputs are averaged, as the branch's convolution then sums its weights."""
    model = build("rcm_cls")
    nn.init.normal_(model.stem.slices.weight)
    nn.init.normal_(model.stem.slices.bias)
    mfsf2.save_pretrained(model, tmp_path)
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path}", in_chans=1)
    stack = torch.randn(2, 4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded.stem.slices(stack), model.stem.slices(stack).mean(1, keepdim=True))


def test_load_pretrained_adopts_the_configuration(tmp_path: Path, model: Any) -> None:
    model = copy.deepcopy(model)
    model.pretrained_cfg.update(trained_on=["b"], license="cc-by-nc-4.0", temperature=1.5, input_size=(3, 96, 96))
    mfsf2.save_pretrained(model, tmp_path, list("abcdefg"))
    target = build(seed=3)
    mfsf2.load_pretrained(target, f"local-dir:{tmp_path}")
    cfg = target.pretrained_cfg
    assert cfg is target.default_cfg and cfg["label_names"] == list("abcdefg") and cfg["temperature"] == 1.5
    assert list(cfg["input_size"]) == [3, 96, 96]
    fewer = build(seed=3, num_classes=2)
    mfsf2.load_pretrained(fewer, f"local-dir:{tmp_path}")
    assert fewer.pretrained_cfg["num_classes"] == 2 and not fewer.pretrained_cfg.keys() & {"label_names", "temperature"}
    start = build("rcm_clsseg", seed=3)
    start.pretrained_cfg["trained_on"] = ["a"]
    mfsf2.load_pretrained(start, f"local-dir:{tmp_path}", strict="encoder")
    cfg = start.pretrained_cfg
    assert cfg["trained_on"] == ["a", "b"] and cfg["license"] == "cc-by-nc-4.0"
    assert not cfg.keys() & {"label_names", "temperature"} and list(cfg["input_size"]) == [3, 224, 224]
    direct = mfsf2.MFSF2(**sizes_of("cls"))
    mfsf2.load_pretrained(direct, f"local-dir:{tmp_path}")
    assert direct.pretrained_cfg["label_names"] == list("abcdefg")


def test_load_pretrained_names() -> None:
    start: Any = mfsf2.create_model("mfsf2_tiny_rcm_cls", num_classes=7)
    mfsf2.load_pretrained(start, "mfsf2_tiny_cls", strict="encoder")
    trained: Any = mfsf2.create_model("mfsf2_tiny_cls", pretrained=True)
    assert torch.equal(start.head.fc.weight, trained.head.fc.weight)
    assert start.pretrained_cfg["trained_on"] == sorted(trained.pretrained_cfg["trained_on"])
    with pytest.raises(ValueError, match=r"mfsf2_cls\.in1k_backbones has weights of the branches only"):
        mfsf2.load_pretrained(start, "mfsf2_cls.in1k_backbones")
    with pytest.raises(TypeError, match="Linear is not a model of this library"):
        mfsf2.load_pretrained(nn.Linear(2, 2), "mfsf2_tiny_cls")
