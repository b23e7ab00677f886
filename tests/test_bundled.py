"""The weights that come with the package."""

import json
import logging
import re
import shutil
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from datasets.ham10000 import CLASSES
from datasets.overlap import hash_id
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import mfsf2
import mfsf2.timm_models
from mfsf2.weights import bundled

FOLDER = Path(mfsf2.__file__).parent / "weights" / "ham10000"
ROOT = Path(__file__).parent.parent
LESIONS = sorted((ROOT / "tests" / "lesions").glob("*.png"))
TASKS = ("cls", "seg", "clsseg")
Card = dict[str, list[str]]


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {task: mfsf2.create_model(f"mfsf2_tiny_{task}", pretrained=True).eval() for task in TASKS}


@pytest.fixture(scope="module")
def inputs(networks: dict[str, Any]) -> Tensor:
    """Generated images, as the networks take them."""
    cfg = networks["cls"].pretrained_cfg
    pixels = torch.from_numpy(np.stack([np.array(Image.open(path)) for path in LESIONS])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (pixels / 255 - mean) / std


@pytest.fixture(scope="module")
def card() -> Card:
    """Rows of the model card's tables, their cells by the first one."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_they_are_the_default_of_the_tiny_networks() -> None:
    tagged = {name for name in mfsf2.list_pretrained() if name.endswith(".ham10000")}
    assert tagged == {f"mfsf2_tiny_{task}.ham10000" for task in TASKS}
    for task in TASKS:
        tags = mfsf2.list_pretrained(f"mfsf2_tiny_{task}")
        assert tags == [f"mfsf2_tiny_{task}.ham10000", f"mfsf2_tiny_{task}.in1k_backbones"]


def test_they_load_silently_and_without_network(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("no connection is wanted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "mfsf2"):
        warnings.simplefilter("error")
        for task in TASKS:
            mfsf2.create_model(f"mfsf2_tiny_{task}.ham10000", pretrained=True)
    assert not caplog.records


@torch.no_grad()
def test_the_card_s_logits(networks: dict[str, Any], inputs: Tensor, card: Card) -> None:
    """The file is the one that the card describes: its logits on images that were generated and stored."""
    assert inputs.shape[0] == 4 and list(inputs.shape[1:]) == networks["clsseg"].pretrained_cfg["input_size"]
    logits, masks = networks["clsseg"](inputs)
    foreground = (masks > 0).float().mean((1, 2, 3))
    for index, path in enumerate(LESIONS):
        *expected, percent = (float(cell.removesuffix("%")) for cell in card[path.name])
        torch.testing.assert_close(logits[index], torch.tensor(expected), atol=2e-3, rtol=0)
        assert 100 * foreground[index].item() == pytest.approx(percent, abs=0.1)
    torch.testing.assert_close(networks["cls"](inputs), logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(networks["seg"](inputs), masks, atol=1e-4, rtol=1e-4)


def test_the_outlines_of_generated_lesions_are_found(networks: dict[str, Any], inputs: Tensor) -> None:
    from lesion import generate_lesion

    with torch.no_grad():
        predicted = networks["seg"](inputs)[:, 0] > 0
    for index, path in enumerate(LESIONS):
        mask = generate_lesion(int(path.stem.rpartition("_")[2]), tuple(inputs.shape[2:]))[1]
        truth = torch.from_numpy(np.array(mask)) > 127
        assert 2 * (predicted[index] & truth).sum() / (predicted[index].sum() + truth.sum()) > 0.8, path.name


def test_the_file(networks: dict[str, Any]) -> None:
    path = FOLDER / "model.safetensors"
    assert path.stat().st_size < 36e6
    tensors = load_file(path)
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())
    wide = {value.dtype for value in tensors.values() if value.is_floating_point() and value.ndim > 1}
    assert wide == {torch.float16}
    for task, network in networks.items():
        state = network.state_dict()
        assert set(state) <= set(tensors), task
        assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())
        assert all(torch.equal(value, tensors[key].to(value.dtype)) for key, value in state.items())
    assert set(networks["clsseg"].state_dict()) == set(tensors)


def test_the_configuration(networks: dict[str, Any]) -> None:
    splits = json.loads((ROOT / "examples" / "splits" / "ham10000.json").read_text(encoding="utf-8"))["splits"]
    hashes = {part: {hash_id(identity) for identity in ids} for part, ids in splits.items()}
    assert not hashes["test"] & (hashes["train"] | hashes["val"])
    for task, network in networks.items():
        cfg = network.pretrained_cfg
        assert cfg["architecture"] == f"mfsf2_tiny_{task}" and cfg["tag"] == "ham10000"
        assert cfg["license"] == "cc-by-nc-4.0"
        assert Path(cfg["file"]) == FOLDER / "model.safetensors"
        assert cfg["crop_pct"] == 1.0 and cfg["crop_mode"] == "squash" and cfg["interpolation"] == "bilinear"
        assert cfg["mean"] == [0.485, 0.456, 0.406] and cfg["std"] == [0.229, 0.224, 0.225]
        assert set(cfg["trained_on"]) == hashes["train"] and set(cfg["chosen_on"]) == hashes["val"]
        assert "not a diagnostic device" in cfg["description"]
        assert cfg["num_classes"] == network.num_classes == (1 if task == "seg" else 7)
        if task == "seg":
            assert not cfg.keys() & {"label_names", "label_descriptions", "temperature"}
        else:
            assert cfg["label_names"] == list(CLASSES) and cfg["label_descriptions"] == CLASSES
            assert 0.3 < cfg["temperature"] < 3


def test_the_card(networks: dict[str, Any], card: Card) -> None:
    cfg = networks["clsseg"].pretrained_cfg
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert cfg["sha256"] in text and "Not a diagnostic device" in text
    assert re.search(r"^license: cc-by-nc-4.0$", text, re.M)
    assert float(card["temperature"][0]) == pytest.approx(cfg["temperature"], abs=0.005)
    assert set(CLASSES) <= set(card)
    for name in ("balanced accuracy", "macro AUC", "Dice"):
        value, low, high = map(float, re.findall(r"\d\.\d+", card[name][0]))
        assert 0 < low < value < high < 1, name
    splits = json.loads((ROOT / "examples" / "splits" / "ham10000.json").read_text(encoding="utf-8"))["splits"]
    assert card["images"][:3] == [f"{len(splits[name]):,}" for name in ("train", "val", "test")]


def test_untrained_networks_do_not_claim_them() -> None:
    model: Any = mfsf2.create_model("mfsf2_tiny_cls")
    of_weights = {"trained_on", "chosen_on", "label_names", "temperature", "sha256", "file", "metrics"}
    assert not model.pretrained_cfg.keys() & (of_weights | {"license"})
    through_timm: Any = timm.create_model("mfsf2_tiny_cls")
    assert not through_timm.pretrained_cfg.keys() & of_weights


@pytest.mark.parametrize("build", [mfsf2.create_model, timm.create_model])
def test_a_named_tag_says_how_images_are_prepared(build: Any, networks: dict[str, Any], tmp_path: Path) -> None:
    """Weights that were trained from a tag are loaded into a network that is named after it."""
    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_cls", num_classes=3), tmp_path)
    file = tmp_path / "model.safetensors"
    model: Any = build("mfsf2_tiny_cls.ham10000", num_classes=3, checkpoint_path=str(file))
    cfg, trained = model.pretrained_cfg, networks["cls"].pretrained_cfg
    for key in ("input_size", "pool_size", "crop_pct", "crop_mode", "interpolation", "mean", "std"):
        assert list_of(cfg[key]) == list_of(trained[key]), key
    assert not cfg.keys() & {"trained_on", "chosen_on", "label_names", "temperature", "sha256", "file"}
    assert timm.data.resolve_data_config(model=model)["crop_mode"] == "squash"
    start: Any = mfsf2.create_model("mfsf2_tiny_cls.in1k_backbones")
    assert list(start.pretrained_cfg["input_size"]) == [3, 224, 224]


@pytest.mark.parametrize("task", TASKS)
def test_other_classes_keep_the_rest(task: str, networks: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    model: Any = mfsf2.create_model(f"mfsf2_tiny_{task}", pretrained=True, num_classes=3)
    state = networks[task].state_dict()
    fresh = {key for key, value in model.state_dict().items() if value.shape != state[key].shape}
    assert fresh and all(re.match(r"head\.fc\.|mask_head\.(coarse|steps\.\d\.out)\.", key) for key in fresh)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if key not in fresh)
    assert fresh <= set(re.findall(r"[\w.]+", caplog.text))
    cfg = model.pretrained_cfg
    assert not cfg.keys() & {"label_names", "label_descriptions", "temperature"}
    assert len(cfg["trained_on"]) > 7000 and cfg["license"] == "cc-by-nc-4.0"


@torch.no_grad()
def test_other_forms(networks: dict[str, Any], inputs: Tensor) -> None:
    """A network without classifier, of features, of grey images."""
    bare: Any = mfsf2.create_model("mfsf2_tiny_cls", pretrained=True, num_classes=0).eval()
    whole = networks["cls"]
    expected = whole.forward_head(whole.forward_features(inputs), pre_logits=True)
    torch.testing.assert_close(bare(inputs), expected)
    features: Any = mfsf2.create_model("mfsf2_tiny_seg", pretrained=True, features_only=True).eval()
    maps = networks["seg"].forward_intermediates(inputs, intermediates_only=True)
    torch.testing.assert_close(features(inputs), maps)
    grey: Any = mfsf2.create_model("mfsf2_tiny_cls", pretrained=True, in_chans=1).eval()
    torch.testing.assert_close(grey(inputs[:, :1]), whole(inputs[:, :1].expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_saving_and_loading(networks: dict[str, Any], inputs: Tensor, tmp_path: Path) -> None:
    mfsf2.save_pretrained(networks["clsseg"], tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert not written["pretrained_cfg"].keys() & {"sha256", "file", "tag"} and str(ROOT) not in json.dumps(written)
    copy: Any = mfsf2.create_model(f"local-dir:{tmp_path}").eval()
    straight: Any = mfsf2.create_model(f"local-dir:{FOLDER}").eval()
    for other in (copy, straight):
        for key in ("label_names", "temperature", "license", "trained_on", "chosen_on", "input_size"):
            assert list_of(other.pretrained_cfg[key]) == list_of(networks["clsseg"].pretrained_cfg[key]), key
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(other(inputs), networks["clsseg"](inputs)))
    for names, kept in ((list(CLASSES), True), (list("abcdefg"), False)):
        mfsf2.save_pretrained(networks["clsseg"], tmp_path, label_names=names)
        cfg = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["pretrained_cfg"]
        assert ("label_descriptions" in cfg, "temperature" in cfg) == (kept, kept)


def list_of(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def test_through_timm(networks: dict[str, Any], inputs: Tensor, tmp_path: Path) -> None:
    assert "mfsf2_tiny_cls.ham10000" in timm.list_pretrained("mfsf2*")
    for name in ("mfsf2_tiny_cls", "mfsf2_tiny_cls.ham10000"):
        model: Any = timm.create_model(name, pretrained=True).eval()
        with torch.no_grad():
            assert torch.equal(model(inputs), networks["cls"](inputs))
        assert model.pretrained_cfg["label_names"] == list(CLASSES)
    data = timm.data.resolve_data_config(model=model)
    assert list(data["input_size"]) == networks["cls"].pretrained_cfg["input_size"] and data["crop_mode"] == "squash"
    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_cls"), tmp_path)
    other: Any = timm.create_model(
        "mfsf2_tiny_cls", pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path / "model.safetensors"))
    )
    assert not other.pretrained_cfg.keys() & {"label_names", "sha256", "trained_on"}
    assert not torch.equal(other.head.fc.weight, networks["cls"].head.fc.weight)


def test_arguments_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"pretrained_backbones=True and the weights of .* exclude each other"):
        mfsf2.create_model("mfsf2_tiny_cls", pretrained=True, pretrained_backbones=True)
    with pytest.raises(ValueError, match="checkpoint_path='a' and pretrained weights exclude each other"):
        mfsf2.create_model("mfsf2_tiny_cls", pretrained=True, checkpoint_path="a")
    with pytest.raises(ValueError, match="mfsf2_tiny_rcm_cls has no pretrained tag 'ham10000': it has in1k_backbones"):
        mfsf2.create_model("mfsf2_tiny_rcm_cls.ham10000", pretrained=True)


def test_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER, tmp_path / "ham10000")
    monkeypatch.setitem(bundled._FOLDERS, "ham10000", tmp_path / "ham10000")
    path = tmp_path / "ham10000" / "model.safetensors"
    mfsf2.create_model("mfsf2_tiny_cls", pretrained=True)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    for damaged in (content, content[:1000], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged: its SHA-256 is .*reinstall the package"):
            mfsf2.create_model("mfsf2_tiny_cls", pretrained=True)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing: reinstall the package"):
        mfsf2.create_model("mfsf2_tiny_cls", pretrained=True)
    path.with_name("config.json").write_text('{"pretrained_cfg": {"sha')
    with pytest.raises(ValueError, match=r"config\.json is damaged \(.*reinstall the package"):
        mfsf2.create_model("mfsf2_tiny_cls", pretrained=True)
    path.with_name("config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing: reinstall the package"):
        mfsf2.create_model("mfsf2_tiny_cls", pretrained=True)


@pytest.mark.parametrize("name", ["LICENSE", "LICENSE.torchvision"])
def test_licences_lie_beside_the_weights(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert text.startswith("Creative Commons Attribution-NonCommercial 4.0" if name == "LICENSE" else "BSD 3-Clause")
