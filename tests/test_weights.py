"""Saving and loading: strict, complete, and nothing is lost when it fails."""

import argparse
import json
import logging
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from golden_data import MODEL_KEYS, draw_state
from micro import ENCODER, build, create, sizes_of
from safetensors.torch import load_file, save_file

import mfsf2
import mfsf2.timm_models

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> Any:
    return build()


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    mfsf2.save_pretrained(model, tmp_path / "net", label_names=list("abcdefg"))
    return tmp_path / "net"


def same_weights(a: Any, b: Any, but: tuple[str, ...] = ()) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items() if not k.startswith(but or ("?",)))


def test_folder(folder: Path, model: Any) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "mfsf2_tiny_cls"
    assert config["num_classes"] == 7 and config["num_features"] == 128 and config["global_pool"] == "avg"
    assert config["label_names"] == list("abcdefg")
    assert config["pretrained_cfg"]["input_size"] == [3, 128, 128]
    assert config["model_args"]["channels"] == 16


@pytest.mark.parametrize("create", [mfsf2.create_model, lambda n, **kw: timm.create_model(n, pretrained=True, **kw)])
def test_round_trip(folder: Path, model: Any, create: Any) -> None:
    loaded = create(f"local-dir:{folder}").eval()
    assert same_weights(model, loaded)
    assert torch.equal(loaded(X), model(X))
    assert list(loaded.pretrained_cfg["label_names"]) == list("abcdefg")
    features = create(f"local-dir:{folder}", features_only=True).eval()
    for a, b in zip(features(X), model.forward_intermediates(X, intermediates_only=True), strict=True):
        torch.testing.assert_close(a, b)


def test_round_trip_of_other_arguments(tmp_path: Path) -> None:
    model = build(
        cnn="regnetx_002",
        channels=32,
        pyramid_chans=16,
        out_chans=64,
        frequencies=[(0, 0), (1, 2)],
        grid_size=9,
        head_hidden_size=20,
        in_chans=2,
        global_pool="catavgmax",
    )
    model.reset_classifier(4, "max")
    mfsf2.save_pretrained(model, tmp_path)
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path}").eval()
    assert loaded.global_pool == "max" and loaded.num_classes == 4 and loaded.in_chans == 2
    assert torch.equal(loaded(X[:, :2]), model(X[:, :2]))


def test_network_that_was_built_directly(tmp_path: Path) -> None:
    model = mfsf2.MFSF2(num_classes=3, **ENCODER).eval()
    mfsf2.save_pretrained(model, tmp_path)
    assert torch.equal(mfsf2.create_model(f"local-dir:{tmp_path}").eval()(X), model(X))


def test_saved_channels_last_model(model: Any, tmp_path: Path) -> None:
    twin = build().to(memory_format=torch.channels_last)
    twin.load_state_dict(model.state_dict())
    mfsf2.save_pretrained(twin, tmp_path)
    assert same_weights(mfsf2.create_model(f"local-dir:{tmp_path}"), model)


def test_other_number_of_classes(folder: Path, model: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mfsf2"):
        loaded = mfsf2.create_model(f"local-dir:{folder}", num_classes=3)
    assert same_weights(loaded, model, but=("head.fc.",))
    assert loaded.num_classes == 3 and "label_names" not in loaded.pretrained_cfg
    assert "7 classes and the model 3" in caplog.text
    assert "head.fc.weight" in caplog.text and "head.fc.bias" in caplog.text
    caplog.clear()
    assert same_weights(mfsf2.create_model(f"local-dir:{folder}", num_classes=0), model)
    assert "head.fc.weight" in caplog.text


@pytest.mark.parametrize("task", ["cls", "seg", "clsseg", "rcm_cls", "rcm_seg", "rcm_clsseg"])
def test_names_do_not_outlive_their_classifier(task: str, tmp_path: Path) -> None:
    model = build(task)
    names = [f"class {i}" for i in range(model.num_classes)]
    mfsf2.save_pretrained(model, tmp_path / "named", names)
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path / 'named'}")
    assert loaded.pretrained_cfg["label_names"] == names
    loaded.reset_classifier(loaded.num_classes)
    assert "label_names" not in loaded.pretrained_cfg and loaded.pretrained_cfg is loaded.default_cfg
    mfsf2.save_pretrained(loaded, tmp_path / "reset")
    again: Any = mfsf2.create_model(f"local-dir:{tmp_path / 'reset'}")
    assert "label_names" not in again.pretrained_cfg


def test_network_without_head(folder: Path, model: Any) -> None:
    loaded = mfsf2.create_model(f"local-dir:{folder}", num_classes=0, global_pool="").eval()
    assert torch.equal(loaded(X), model.forward_features(X))


def test_checkpoint_without_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = build(num_classes=0)
    mfsf2.save_pretrained(bare, tmp_path)
    loaded = mfsf2.create_model(f"local-dir:{tmp_path}", num_classes=5)
    assert same_weights(loaded, bare, but=("head.fc.",))
    assert "left untrained" in caplog.text and "head.fc.weight, head.fc.bias" in caplog.text


@pytest.mark.parametrize("in_chans", [1, 5])
def test_other_number_of_channels(folder: Path, model: Any, in_chans: int, caplog: pytest.LogCaptureFixture) -> None:
    loaded: Any = mfsf2.create_model(f"local-dir:{folder}", in_chans=in_chans)
    stems = ("encoder.cnn.conv1.weight", "encoder.transformer.patch_embed.proj.weight")
    assert same_weights(loaded, model, but=stems)
    state = model.state_dict()
    for name in stems:
        assert f"adapted from 3 to {in_chans} channels: {name}" in caplog.text
        weight = loaded.state_dict()[name]
        if in_chans == 1:
            torch.testing.assert_close(weight, state[name].sum(1, keepdim=True))
        else:
            torch.testing.assert_close(weight, state[name][:, [0, 1, 2, 0, 1]] * 3 / 5)


def test_authors_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their names, their unused second transformer and their copies of the filters, as safetensors and as pickle."""
    state = draw_state(MODEL_KEYS)
    extra = {key.replace("backbone.", "pvt."): torch.zeros(1) for key in state if key.startswith("backbone.")}
    extra |= {f"fusion_stages.{i}.mffe_res.dct_wgt_{k}": torch.zeros(256, 7, 7) for i in range(4) for k in range(2)}
    safe, pickled = tmp_path / "authors.safetensors", tmp_path / "authors.pth"
    save_file({**state, **extra}, safe)
    torch.save({"state_dict": {f"module.{k}": v for k, v in {**state, **extra}.items()}, "epoch": 3}, pickled)
    expected = None
    for path in (safe, pickled):
        model: Any = mfsf2.create_model("mfsf2_cls", checkpoint_path=path)
        own = model.state_dict()
        assert torch.equal(own["encoder.fusion.pyramid.psa.convs.3.weight"], state["third_branch.psa.conv_4.weight"])
        expected = expected or own
        assert all(torch.equal(value, expected[key]) for key, value in own.items())
    assert not caplog.records
    del state["resnet.conv1.0.weight"]
    save_file(state, safe)
    with pytest.raises(ValueError, match=r"missing \(1\):\n  encoder\.cnn\.conv1\.weight"):
        mfsf2.create_model("mfsf2_cls", checkpoint_path=safe)


def test_every_mistake_is_listed_and_nothing_changes(model: Any, tmp_path: Path) -> None:
    state = dict(model.state_dict())
    del state["encoder.cnn.bn1.weight"], state["head.hidden.0.bias"]
    state["surplus.weight"] = torch.zeros(3)
    state["encoder.fusion.pyramid.psa.fc.weight"] = torch.zeros(3, 3)
    path = tmp_path / "wrong.safetensors"
    save_file(state, path)
    victim = build()
    before = {key: value.clone() for key, value in victim.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        mfsf2.load_checkpoint(victim, path)
    message = str(caught.value)
    assert str(path) in message and "keeps its weights" in message
    assert "missing (2):\n  encoder.cnn.bn1.weight\n  head.hidden.0.bias" in message
    assert "unexpected (1):\n  surplus.weight" in message
    assert "wrong shape (1):\n  encoder.fusion.pyramid.psa.fc.weight (checkpoint [3, 3], model [16, 16])" in message
    assert all(torch.equal(value, before[key]) for key, value in victim.state_dict().items())


def test_half_a_classifier_is_a_mistake(model: Any, tmp_path: Path) -> None:
    state = dict(model.state_dict())
    del state["head.fc.bias"]
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match=r"missing \(1\):\n  head\.fc\.bias"):
        mfsf2.load_checkpoint(build(), tmp_path / "half.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 1000, -10])
def test_truncated_file(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    victim = build()
    before = {key: value.clone() for key, value in victim.state_dict().items()}
    with pytest.raises(ValueError, match=r"model\.safetensors is not a complete safetensors file"):
        mfsf2.load_checkpoint(victim, path)
    assert all(torch.equal(value, before[key]) for key, value in victim.state_dict().items())


class _Harmful:
    def __reduce__(self) -> Any:
        return (os.system, ("echo executed > executed.txt",))


def test_pickles_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Harmful()}, "harmful.pth")
    Path("harmful.pkl").write_bytes(pickle.dumps(_Harmful(), protocol=2))
    Path("truncated.pth").write_bytes(Path("harmful.pth").read_bytes()[:100])
    Path("empty.pth").touch()
    for name in ("harmful.pth", "harmful.pkl", "truncated.pth", "empty.pth"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a checkpoint"):
            mfsf2.create_model("mfsf2_tiny_cls", checkpoint_path=name)
    assert not Path("executed.txt").exists()
    torch.save([1, 2], "list.pth")
    with pytest.raises(ValueError, match="is not a state dict"):
        mfsf2.create_model("mfsf2_tiny_cls", checkpoint_path="list.pth")


def test_command_line_beside_the_weights(model: Any, tmp_path: Path) -> None:
    """As timm's training script saves it."""
    args = argparse.Namespace(model="mfsf2_tiny_cls", lr=0.1, opt_kwargs={})
    torch.save({"epoch": 3, "args": args, "state_dict": model.state_dict()}, tmp_path / "last.pth.tar")
    assert same_weights(model, create("cls", checkpoint_path=tmp_path / "last.pth.tar"))
    torch.save({"state_dict": args}, tmp_path / "args.pth.tar")
    with pytest.raises(ValueError, match="is not a state dict"):
        create("cls", checkpoint_path=tmp_path / "args.pth.tar")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_what_is_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{folder}, which is a folder: .*'local-dir:{folder}'"):
        mfsf2.create_model("mfsf2_tiny_cls", checkpoint_path=folder)
    for text in ("hello", "notes on a training\n", "{}", "epoch,loss\n1,0.5\n", "12 classes", "(x", "\n"):
        path = tmp_path / "notes.txt"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"damaged, or was not written by torch\.save") as caught:
            mfsf2.create_model("mfsf2_tiny_cls", checkpoint_path=path)
        assert "weights_only" not in str(caught.value)
    torch.save({"state_dict": _Harmful()}, path)
    with pytest.raises(ValueError, match=r"it contains posix\.system\. If you trust the file"):
        mfsf2.create_model("mfsf2_tiny_cls", checkpoint_path=path)


def test_swapped_arguments(model: Any, folder: Path) -> None:
    with pytest.raises(TypeError, match=r"the model comes first, then the file: load_checkpoint\(model, path\)"):
        mfsf2.load_checkpoint(folder / "model.safetensors", model)  # type: ignore[arg-type]


def test_missing_files(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing\.safetensors"):
        mfsf2.create_model("mfsf2_tiny_cls", checkpoint_path=tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError, match=r"is not a saved model: config\.json, model\.safetensors missing"):
        mfsf2.create_model(f"local-dir:{tmp_path / 'nothing'}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors missing"):
        mfsf2.create_model(f"local-dir:{folder}")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"architecture": "mfsf2_tiny_cls"}'])
def test_broken_configuration(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is not a configuration in timm's form"):
        mfsf2.create_model(f"local-dir:{folder}")


def test_configuration_of_other_weights(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_classes"] = config["pretrained_cfg"]["num_classes"] = 5
    del config["label_names"]
    (folder / "config.json").write_text(json.dumps(config))
    for function in (mfsf2.create_model, lambda name: timm.create_model(name, pretrained=True)):
        with pytest.raises(ValueError, match=r"has 7 classes, but its configuration says 5"):
            function(f"local-dir:{folder}")


def test_unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "mfsf2_huge_cls"}))
    with pytest.raises(ValueError, match="unknown model 'mfsf2_huge_cls'"):
        mfsf2.create_model(f"local-dir:{folder}")


def test_failed_save_leaves_the_old_files(folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {p.name: p.read_bytes() for p in folder.iterdir()}

    def disk_full(tensors: Any, path: Any, **_: Any) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", disk_full)
    with pytest.raises(OSError, match="no space left"):
        mfsf2.save_pretrained(build(num_classes=3), folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == old


def test_saving_what_cannot_be_saved(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label_names has 2 names, but the model has 7 classes"):
        mfsf2.save_pretrained(model, tmp_path / "a", label_names=["a", "b"])
    for other in (torch.nn.Linear(2, 2), build(features_only=True)):
        with pytest.raises(TypeError, match=f"{type(other).__name__} is not a model of this library"):
            mfsf2.save_pretrained(other, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (set("abcdefg"), TypeError, "in the order of the classes, got <class 'set'>"),
        (dict.fromkeys("abcdefg"), TypeError, "list of strings in the order of the classes, got <class 'dict'>"),
        ("abcdefg", TypeError, "list of strings in the order of the classes, got <class 'str'>: 'abcdefg'"),
        (torch.arange(7), TypeError, "list of strings in the order of the classes, got <class 'torch.Tensor'>"),
        ([*"abcdef", None], TypeError, "got None at position 6"),
        (list(range(7)), TypeError, "got 0 at position 0"),
        ([*"abcdef", torch.tensor(1)], TypeError, r"got tensor\(1\) at position 6"),
        (list("abcdefa"), ValueError, "label_names has 'a' twice"),
    ],
)
def test_names_that_are_none(model: Any, tmp_path: Path, names: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mfsf2.save_pretrained(model, tmp_path / "a", label_names=names)
    assert not (tmp_path / "a").exists()


def test_loading_into_something_else(folder: Path) -> None:
    for other in (torch.nn.Linear(2, 2), build(features_only=True)):
        with pytest.raises(TypeError, match=f"{type(other).__name__} is not a model of this library"):
            mfsf2.load_checkpoint(other, folder / "model.safetensors")


def test_checkpoint_of_both_tasks_loads_into_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = build("clsseg")
    mfsf2.save_pretrained(both, tmp_path)
    expected = both(X)
    path = tmp_path / "model.safetensors"
    classifier: Any = mfsf2.create_model("mfsf2_tiny_cls", checkpoint_path=path, **sizes_of("cls")).eval()
    torch.testing.assert_close(classifier(X), expected.logits, rtol=1e-5, atol=1e-5)
    assert "the model has no such head: mask_head.* (129)" in caplog.text and " head." not in caplog.text
    caplog.clear()
    segmenter: Any = build("seg", seed=1)
    mfsf2.load_checkpoint(segmenter, path)
    torch.testing.assert_close(segmenter(X), expected.masks, rtol=1e-5, atol=1e-5)
    assert "the model has no such head: head.* (9)" in caplog.text and "mask_head." not in caplog.text


def test_all_but_the_other_head_is_strict(tmp_path: Path) -> None:
    state = dict(build("clsseg").state_dict())
    del state["encoder.cnn.conv1.weight"], state["mask_head.steps.1.axial.rows.gamma"]
    state["masks.weight"] = torch.zeros(1)
    path = tmp_path / "state.safetensors"
    save_file(state, path)
    for task, missing in (("cls", 1), ("seg", 2)):
        victim = build(task, seed=2)
        before = {key: value.clone() for key, value in victim.state_dict().items()}
        message = rf"(?s)missing \({missing}\):\n  encoder\.cnn\.conv1\.weight.*unexpected \(1\):\n  masks\.weight"
        with pytest.raises(ValueError, match=message):
            mfsf2.load_checkpoint(victim, path)
        assert all(torch.equal(value, before[key]) for key, value in victim.state_dict().items())


def test_checkpoints_of_version_0_1(tmp_path: Path) -> None:
    """They call the gains of axial attention otherwise."""
    model = build("clsseg")
    older = {re.sub(r"(rows|columns)\.gamma$", r"\1.factor", key): value for key, value in model.state_dict().items()}
    assert len(older.keys() - model.state_dict().keys()) == 8
    save_file(older, tmp_path / "older.safetensors")
    loaded = build("clsseg", seed=1)
    mfsf2.load_checkpoint(loaded, tmp_path / "older.safetensors")
    assert same_weights(loaded, model)
    for assign in (False, True):
        loaded = build("clsseg", seed=1)
        loaded.load_state_dict(older, assign=assign)
        assert same_weights(loaded, model)
    assert "mask_head.steps.0.axial.rows.factor" in older
    block = mfsf2.AxialAttention(16)
    block.load_state_dict({key.replace("gamma", "factor"): value + 1 for key, value in block.state_dict().items()})
    assert block.rows.gamma == block.columns.gamma == 1


def test_a_head_is_not_made_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file(dict(build("seg").state_dict()), tmp_path / "seg.safetensors")
    for task in ("cls", "clsseg"):
        with pytest.raises(ValueError, match=r"(?s)missing.*\n  head\.hidden\.0\.weight.*\n  head\.fc\.weight"):
            mfsf2.load_checkpoint(build(task), tmp_path / "seg.safetensors")
    assert "0 classes" not in caplog.text


def test_other_number_of_mask_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outputs = ("mask_head.coarse.", *(f"mask_head.steps.{i}.out." for i in range(4)))
    for task, argument in (("seg", "num_classes"), ("clsseg", "mask_classes")):
        saved = build(task)
        mfsf2.save_pretrained(saved, tmp_path / task)
        caplog.clear()
        loaded = mfsf2.create_model(f"local-dir:{tmp_path / task}", **{argument: 3})
        assert same_weights(loaded, saved, but=outputs)
        assert "the checkpoint has 1 classes and the model 3" in caplog.text
        assert all(f"{name}weight" in caplog.text for name in outputs)
        mfsf2.save_pretrained(loaded, tmp_path / "again")
        again: Any = mfsf2.create_model(f"local-dir:{tmp_path / 'again'}")
        assert same_weights(again, loaded) and again.mask_head.num_classes == 3


def test_reset_masks_are_saved(tmp_path: Path) -> None:
    model = build("clsseg")
    model.reset_masks(2)
    mfsf2.save_pretrained(model, tmp_path)
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path}").eval()
    for actual, expected in zip(loaded(X), model(X), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("heads", [(3, None), (None, 3), (3, 2), (0, 1)])
@pytest.mark.parametrize("kind", [mfsf2.MFSF2, mfsf2.MFSF2TwoModality])
def test_networks_that_were_built_directly(kind: Any, heads: tuple[int | None, int | None], tmp_path: Path) -> None:
    model = kind(*heads, mask_drop_rate=0.0 if heads[1] is None else 0.1, **ENCODER)
    mfsf2.save_pretrained(model, tmp_path)
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path}")
    assert type(loaded) is kind and same_weights(loaded, model) and same_weights(model, loaded)
    assert loaded.model_args == model.model_args and loaded.num_classes == model.num_classes
    assert [loaded.head is None, loaded.mask_head is None] == [head is None for head in heads]
    assert loaded.mask_head is None or loaded.mask_head.drop.p == 0.1


@pytest.mark.parametrize("task", ["seg", "clsseg", "rcm_cls", "rcm_seg"])
def test_features_of_saved_networks(task: str, tmp_path: Path) -> None:
    model = build(task)
    mfsf2.save_pretrained(model, tmp_path)
    features: Any = mfsf2.create_model(f"local-dir:{tmp_path}", features_only=True).eval()
    for actual, expected in zip(features(X), model.forward_intermediates(X, intermediates_only=True), strict=True):
        torch.testing.assert_close(actual, expected)


def test_saved_dtype_is_kept_in_the_file(tmp_path: Path) -> None:
    mfsf2.save_pretrained(build().half(), tmp_path)
    assert load_file(tmp_path / "model.safetensors")["head.fc.weight"].dtype == torch.float16
    assert next(mfsf2.create_model(f"local-dir:{tmp_path}").parameters()).dtype == torch.float32


def test_files_that_are_something_else(folder: Path, model: Any, tmp_path: Path) -> None:
    safe, pickled, pointer = tmp_path / "a.pth", tmp_path / "a.safetensors", tmp_path / "pointer.safetensors"
    safe.write_bytes((folder / "model.safetensors").read_bytes())
    torch.save(model.state_dict(), pickled)
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    for path, message in (
        (safe, "is a safetensors file: rename it to .safetensors"),
        (pickled, "is not a safetensors file, but one of torch.save: rename it to .pth"),
        (pointer, "is a pointer of Git LFS in place of the file: run git lfs pull"),
    ):
        with pytest.raises(ValueError, match=rf"{path} {message}"):
            mfsf2.load_checkpoint(model, path)
    with pytest.raises(FileNotFoundError, match=r"is a file: pass its folder, or use checkpoint_path"):
        mfsf2.create_model(f"local-dir:{folder / 'model.safetensors'}")
    torch.save({"weights": model.state_dict(), "optimizer": {}}, tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"choose one of its entries .*entry=\.\.\.\): 'weights', 'optimizer'"):
        mfsf2.load_checkpoint(build(seed=3), tmp_path / "own.pth")
    mfsf2.load_checkpoint(build(seed=3), tmp_path / "own.pth", entry="weights")
    save_file(timm.create_model("micro_resnet").state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(
        ValueError, match=r"(?s)\.\.\. and \d+ more.*\nThe checkpoint is not of a model of this library"
    ):
        mfsf2.load_checkpoint(build(), tmp_path / "resnet.safetensors")
