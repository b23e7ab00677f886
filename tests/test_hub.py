"""Weights from the Hub: the real client against a server on this machine."""

import json
import shutil
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_server import HubServer, requests_of
from micro import build, sizes_of

import mfsf2
import mfsf2.timm_models


def test_backbones_from_imagenet(backbones: dict[str, Any]) -> None:
    message = r"encoder\.fusion and head are untrained.*Fully trained tags: mfsf2_tiny_cls\.ham10000"
    with pytest.warns(UserWarning, match=message) as caught:
        model: Any = mfsf2.create_model("mfsf2_tiny_cls.in1k_backbones", pretrained=True)
    assert [Path(w.filename).name for w in caught if "untrained" in str(w.message)] == ["test_hub.py"]
    for name, branch in (("resnet18", model.encoder.cnn), ("pvt_v2_b0", model.encoder.transformer)):
        expected = backbones[name].state_dict()
        for key, value in branch.state_dict().items():
            assert torch.equal(value, expected[key]), key
    assert "label_names" not in model.pretrained_cfg
    assert model.pretrained_cfg["tag"] == "in1k_backbones"


def test_backbones_adapt_to_other_channels(backbones: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="untrained"):
        model: Any = mfsf2.create_model("mfsf2_tiny_cls.in1k_backbones", pretrained=True, in_chans=1, num_classes=2)
    pairs = [
        (model.encoder.cnn.conv1.weight, backbones["resnet18"].conv1.weight),
        (model.encoder.transformer.patch_embed.proj.weight, backbones["pvt_v2_b0"].patch_embed.proj.weight),
    ]
    for actual, source in pairs:
        torch.testing.assert_close(actual, source.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("task", "heads"), [("seg", "mask_head"), ("clsseg", "head and mask_head"), ("rcm_cls", "head")]
)
def test_backbones_of_other_tasks(backbones: dict[str, Any], task: str, heads: str) -> None:
    with pytest.warns(UserWarning, match=rf"mfsf2_tiny_{task}\..*; encoder\.fusion and {heads} are untrained"):
        model: Any = mfsf2.create_model(f"mfsf2_tiny_{task}.in1k_backbones", pretrained=True)
    expected = backbones["resnet18"].state_dict()
    for key, value in model.encoder.cnn.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_pretrained_features(backbones: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="untrained"):
        model: Any = mfsf2.create_model("mfsf2_tiny_cls.in1k_backbones", pretrained=True, features_only=True)
    assert torch.equal(model.model.encoder.cnn.conv1.weight, backbones["resnet18"].conv1.weight)


@pytest.mark.parametrize("create", [mfsf2.create_model, timm.create_model])
def test_backbones_by_the_networks_argument(backbones: dict[str, Any], create: Any) -> None:
    for name, pretrained in (("mfsf2_tiny_cls", False), ("mfsf2_tiny_cls.in1k_backbones", True)):
        with pytest.warns(UserWarning, match="untrained"):
            model = create(name, pretrained_backbones=True, pretrained=pretrained)
        assert torch.equal(model.encoder.cnn.conv1.weight, backbones["resnet18"].conv1.weight)


def test_pretrained_through_timm(backbones: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="untrained"):
        model: Any = timm.create_model("mfsf2_tiny_cls.in1k_backbones", pretrained=True)
    assert torch.equal(model.encoder.cnn.conv1.weight, backbones["resnet18"].conv1.weight)


def test_network_from_the_hub(hub: Path) -> None:
    model = mfsf2.create_model("mfsf2_tiny_cls", num_classes=2).eval()
    mfsf2.save_pretrained(model, hub / "someone" / "lesions", label_names=["benign", "malignant"])
    x = torch.randn(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for name in ("hf-hub:someone/lesions", "hf-hub:someone/lesions@main"):
            loaded: Any = mfsf2.create_model(name).eval()
            assert torch.equal(loaded(x), model(x))
            assert loaded.pretrained_cfg["label_names"] == ["benign", "malignant"]
    assert torch.equal(timm.create_model("hf-hub:someone/lesions", pretrained=True).eval()(x), model(x))


REPO = "someone/changing"
FILES = ["config.json", "model.safetensors"]


@pytest.fixture
def folder(hub_server: HubServer) -> Iterator[Path]:
    """A repository with a model of two classes."""
    folder = hub_server.root / REPO
    mfsf2.save_pretrained(build(num_classes=2), folder, ["a", "b"])
    yield folder
    shutil.rmtree(folder)


def labels_of(tmp_path: Path, name: str = f"hf-hub:{REPO}", **kwargs: Any) -> list[str]:
    model: Any = mfsf2.create_model(name, cache_dir=str(tmp_path), **kwargs)
    return list(model.pretrained_cfg["label_names"])


def test_missing_repository() -> None:
    with pytest.raises(FileNotFoundError, match=r"nobody/nothing@main: config\.json: there is no such repository"):
        mfsf2.create_model("hf-hub:nobody/nothing")
    with pytest.raises(ValueError, match="nothing at all"):
        mfsf2.create_model("hf-hub:nothing at all")


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    for name in reversed(FILES):
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=rf"{REPO}@\w+: {name}: the repository has no such file"):
            labels_of(tmp_path)


def test_all_files_are_of_one_commit(folder: Path, hub_server: HubServer, tmp_path: Path) -> None:
    """A repository that changes after its configuration was read."""
    first = hub_server.commit_of(REPO)

    def change(handler: Any) -> None:
        mfsf2.save_pretrained(build(num_classes=2, seed=9), folder, ["c", "d"])
        handler.path = handler.path.replace("main", first)
        handler.serve()

    hub_server.misbehave("config.json", change, times=1, methods=("GET",))
    assert labels_of(tmp_path) == ["a", "b"] and hub_server.commit_of(REPO) != first
    assert labels_of(tmp_path) == ["c", "d"]
    assert labels_of(tmp_path, revision=first) == labels_of(tmp_path, f"hf-hub:{REPO}@{first}") == ["a", "b"]


def test_through_timm_weights_decide(folder: Path, hub_server: HubServer, tmp_path: Path) -> None:
    """timm reads the configuration itself, of the commit that it finds."""
    first, expected = hub_server.commit_of(REPO), build(num_classes=2, seed=9)

    def change(handler: Any) -> None:
        mfsf2.save_pretrained(expected, folder, ["c", "d"])
        handler.path = handler.path.replace("main", first)
        handler.serve()

    hub_server.misbehave("config.json", change, times=1, methods=("GET",))
    model: Any = timm.create_model(f"hf-hub:{REPO}", pretrained=True, cache_dir=str(tmp_path))
    assert model.pretrained_cfg["label_names"] == ["c", "d"]
    assert torch.equal(model.head.fc.weight, expected.head.fc.weight)


def test_weights_of_another_save(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mfsf2.save_pretrained(build(num_classes=3), tmp_path / "other", ["x", "y", "z"])
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    assert labels_of(tmp_path) == ["x", "y", "z"] and "is of another save" in caplog.text


def test_a_cached_commit_needs_no_request(folder: Path, hub_server: HubServer, tmp_path: Path) -> None:
    commit = hub_server.commit_of(REPO)
    for name, kwargs in ((f"hf-hub:{REPO}@{commit}", {}), (f"hf-hub:{REPO}", {"revision": commit})):
        labels_of(tmp_path, name, **kwargs)
        hub_server.behave()
        assert labels_of(tmp_path, name, **kwargs) == ["a", "b"] and not requests_of(hub_server)


def test_how_many_requests(folder: Path, hub_server: HubServer, tmp_path: Path) -> None:
    labels_of(tmp_path)
    hub_server.behave()
    labels_of(tmp_path)
    assert requests_of(hub_server) == [f"HEAD /{REPO}/resolve/main/config.json"]
    hub_server.behave()
    labels_of(tmp_path, force_download=True)
    gets = [request for request in requests_of(hub_server) if request.startswith("GET")]
    assert gets[0] == f"GET /{REPO}/resolve/main/config.json" and gets[1].startswith("GET /cdn/") and len(gets) == 2


def test_revisions(folder: Path, hub_server: HubServer, tmp_path: Path) -> None:
    mfsf2.save_pretrained(build(num_classes=2), tmp_path / "v1", ["e", "f"])
    hub_server.branches[REPO, "v1"] = tmp_path / "v1"
    cache = tmp_path / "cache"
    assert labels_of(cache, revision="v1") == labels_of(cache, f"hf-hub:{REPO}@v1") == ["e", "f"]
    assert labels_of(cache, f"hf-hub:{REPO}@v1", revision="v1") == ["e", "f"] and labels_of(cache) == ["a", "b"]
    for kwargs in ({"revision": "v1"}, {"revision": "main"}, {}):
        expected = ["e", "f"] if kwargs.get("revision") == "v1" else ["a", "b"]
        assert labels_of(cache, local_files_only=True, **kwargs) == expected
        model = build(num_classes=2)
        mfsf2.load_pretrained(model, f"hf-hub:{REPO}", cache_dir=str(cache), local_files_only=True, **kwargs)
        assert list(model.pretrained_cfg["label_names"]) == expected
    with pytest.raises(ValueError, match=r"'someone/changing@v1' and revision='main' name two revisions"):
        labels_of(cache, f"hf-hub:{REPO}@v1", revision="main")
    with pytest.raises(FileNotFoundError, match=r"@v2: config\.json: the repository has no such revision"):
        labels_of(cache, revision="v2")


def test_tokens(folder: Path, hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.tokens[REPO] = "hf_secret"
    for token in (None, False, "hf_wrong"):
        with pytest.raises(FileNotFoundError, match=r"no such repository, or it is private: .* 401 .*pass token="):
            labels_of(tmp_path, token=token)
    assert labels_of(tmp_path, token="hf_secret") == ["a", "b"]
    model = build(num_classes=2)
    mfsf2.load_pretrained(model, f"hf-hub:{REPO}", cache_dir=str(tmp_path / "other"), token="hf_secret")


@pytest.mark.parametrize("timeout", [0, -1, None, "10", True, float("nan")])
def test_time_outs_that_are_none(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout=.* must be a positive number of seconds"):
        mfsf2.create_model("hf-hub:someone/lesions", timeout=timeout)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_clases": 3}, TypeError, "has no argument 'num_clases'"),
        ({"grid_size": 3}, ValueError, "grid_size=3"),
        ({"cnn": "resnet17"}, ValueError, "unknown backbone 'resnet17'"),
        ({"global_pool": "best"}, ValueError, "best"),
        ({"pretrained_backbones": True}, ValueError, "exclude each other"),
    ],
)
def test_mistakes_are_found_before_weights_are_fetched(
    kwargs: dict[str, Any], error: type[Exception], message: str, folder: Path, hub_server: HubServer, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        labels_of(tmp_path, **kwargs)
    assert not any(request.startswith("GET /cdn/") for request in requests_of(hub_server))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert"},
        {"architecture": "resnet50", "pretrained_cfg": {"num_classes": 1000}},
        {"architecture": "mfsf2_tiny_cls", "num_classes": 3, "label_names": ["a"], "pretrained_cfg": {}},
        {"architecture": "mfsf2_tiny_cls", "model_args": {"channels": "many"}, "pretrained_cfg": {}},
    ],
)
def test_what_is_no_model_of_this_library(
    config: dict[str, Any], folder: Path, hub_server: HubServer, tmp_path: Path
) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"{REPO}@\w+: config\.json"):
        labels_of(tmp_path)
    assert hub_server.sent < 1000 and not any("safetensors" in request for request in requests_of(hub_server))


def test_a_damaged_file(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    for create in (mfsf2.create_model, partial(timm.create_model, pretrained=True)):
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged, or is not the file that .* SHA-256 is"):
            create(f"hf-hub:{REPO}", cache_dir=str(tmp_path))


def test_weights_that_a_caller_names_to_timm(folder: Path, hub_server: HubServer, tmp_path: Path) -> None:
    digest = json.loads((folder / "config.json").read_text())["sha256"]
    make = partial(timm.create_model, "mfsf2_tiny_cls", pretrained=True, cache_dir=str(tmp_path), **sizes_of("cls"))
    for location in ({"hf_hub_id": REPO}, {"file": str(folder / "model.safetensors")}, {"file": str(folder)}):
        with pytest.raises(TypeError, match="num_clases"):
            make(pretrained_cfg_overlay=location, num_clases=3)
        assert not requests_of(hub_server)
        overlay = {**location, "num_classes": 2, "sha256": digest}
        assert make(pretrained_cfg_overlay=overlay, num_classes=2).num_classes == 2
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged, or is not the file that the pretrained"):
            make(pretrained_cfg_overlay={**overlay, "sha256": "0" * 64}, num_classes=2)
        hub_server.behave()
