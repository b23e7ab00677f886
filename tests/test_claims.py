"""What a configuration says of its weights does not outlive them."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from micro import build
from PIL import Image
from torch import nn

import mfsf2
import mfsf2.timm_models

NAMES = list("abcdefg")
CLAIMS = dict(temperature=1.5, metrics={"classification": {"accuracy": 0.9}}, description="Trained on x.")
FACTS = dict(trained_on=["1", "2"], chosen_on=["3"], license="cc-by-nc-4.0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = build()
    model.pretrained_cfg.update(
        CLAIMS, **FACTS, training={"data": "x"}, label_descriptions={name: name.upper() for name in NAMES}
    )
    mfsf2.save_pretrained(model, tmp_path / "first", NAMES)
    return tmp_path / "first"


def saved(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    return {**config["pretrained_cfg"], "label_names": config.get("label_names")}


def train(model: Any, *parts: str) -> None:
    """Change the parameters of some parts."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(parts):
                parameter.add_(1e-3)


def create_with_timm(name: str, **kwargs: Any) -> Any:
    return timm.create_model(name, pretrained=True, **kwargs)


CREATE: list[Callable[..., Any]] = [mfsf2.create_model, create_with_timm]


@pytest.mark.parametrize("create", CREATE)
@pytest.mark.parametrize("source_gone", [False, True])
def test_untouched_weights_keep_everything(folder: Path, tmp_path: Path, create: Any, source_gone: bool) -> None:
    model = create(f"local-dir:{folder}")
    if source_gone:
        shutil.rmtree(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mfsf2.save_pretrained(model, tmp_path / "again")
    cfg = saved(tmp_path / "again")
    assert cfg["label_names"] == NAMES and cfg["label_descriptions"]["a"] == "A"
    assert all(cfg[key] == value for key, value in FACTS.items())
    # Without its source, nothing shows that the encoder is unchanged.
    assert ("temperature" in cfg, "metrics" in cfg) == ((not source_gone,) * 2)


@pytest.mark.parametrize("create", CREATE)
@pytest.mark.parametrize(
    ("parts", "keeps_names"), [(("encoder.cnn.layer4",), True), (("head.fc",), False), (("encoder.", "head."), False)]
)
def test_trained_weights_lose_their_claims(
    folder: Path, tmp_path: Path, create: Any, parts: tuple[str, ...], keeps_names: bool
) -> None:
    model = create(f"local-dir:{folder}", num_classes=7)
    train(model, *parts)
    if keeps_names:
        mfsf2.save_pretrained(model, tmp_path / "again")
    else:
        with pytest.warns(
            UserWarning, match=r"label_names=\['a'.* belong to the classifier .*pass label_names"
        ) as caught:
            mfsf2.save_pretrained(model, tmp_path / "again")
        assert [Path(w.filename).name for w in caught] == ["test_claims.py"]
    cfg = saved(tmp_path / "again")
    assert not cfg.keys() & {*CLAIMS, "training"}
    assert all(cfg[key] == value for key, value in FACTS.items())
    assert (cfg["label_names"] == NAMES, "label_descriptions" in cfg) == (keeps_names,) * 2
    # Over the folder that it was loaded from.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mfsf2.save_pretrained(model, folder, NAMES)
    cfg = saved(folder)
    assert cfg["label_names"] == NAMES and cfg["label_descriptions"]["a"] == "A" and "temperature" not in cfg
    mfsf2.save_pretrained(model, folder, NAMES[::-1])
    assert "label_descriptions" not in saved(folder)


def test_the_package_s_weights(tmp_path: Path) -> None:
    for task, part in (("cls", "head.fc"), ("seg", "mask_head.coarse"), ("clsseg", "head.fc")):
        model: Any = mfsf2.create_model(f"mfsf2_tiny_{task}", pretrained=True)
        train(model, part)
        if task == "seg":
            mfsf2.save_pretrained(model, tmp_path / task)
        else:
            with pytest.warns(UserWarning, match=r"label_names=\['akiec'"):
                mfsf2.save_pretrained(model, tmp_path / task)
        cfg = saved(tmp_path / task)
        assert cfg["label_names"] is None and not cfg.keys() & {"temperature", "metrics", "training", "tag"}
        assert cfg["license"] == "cc-by-nc-4.0" and len(cfg["trained_on"]) > 7000
        assert cfg["base_model"] == f"mfsf2_tiny_{task}.ham10000"


def test_what_the_user_sets_is_kept(folder: Path, tmp_path: Path) -> None:
    model: Any = mfsf2.create_model(f"local-dir:{folder}")
    train(model, "head.fc")
    model.pretrained_cfg.update(temperature=2.0, description="Mine.", label_names=NAMES[::-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mfsf2.save_pretrained(model, tmp_path / "again")
    cfg = saved(tmp_path / "again")
    assert (cfg["temperature"], cfg["description"], cfg["label_names"]) == (2.0, "Mine.", NAMES[::-1])
    assert not cfg.keys() & {"metrics", "training", "label_descriptions"}
    unnamed = build()
    unnamed.pretrained_cfg["temperature"] = 3.0
    mfsf2.save_pretrained(unnamed, tmp_path / "unnamed")
    assert saved(tmp_path / "unnamed")["temperature"] == 3.0
    fewer: Any = mfsf2.create_model(f"local-dir:{folder}", num_classes=3)
    train(fewer, "head.")
    fewer.pretrained_cfg.update(label_names=list("pqr"), temperature=1.7, label_descriptions={"p": "P"})
    mfsf2.save_pretrained(fewer, tmp_path / "fewer")
    cfg = saved(tmp_path / "fewer")
    assert (cfg["label_names"], cfg["temperature"], cfg["label_descriptions"]) == (list("pqr"), 1.7, {"p": "P"})
    scratch = build()
    scratch.pretrained_cfg.update(temperature=3.0, label_names=NAMES)
    train(scratch, "head.")
    mfsf2.save_pretrained(scratch, tmp_path / "scratch")
    assert saved(tmp_path / "scratch")["temperature"] == 3.0 and saved(tmp_path / "scratch")["label_names"] == NAMES


def test_other_weights_loaded_later(folder: Path, tmp_path: Path) -> None:
    other = build(seed=5)
    mfsf2.save_pretrained(other, tmp_path / "other")
    model: Any = mfsf2.create_model(f"local-dir:{folder}")
    mfsf2.load_checkpoint(model, tmp_path / "other" / "model.safetensors")
    with pytest.warns(UserWarning, match="label_names"):
        mfsf2.save_pretrained(model, tmp_path / "again")
    assert "temperature" not in saved(tmp_path / "again")
    model = build(seed=6)
    mfsf2.load_pretrained(model, f"local-dir:{folder}")
    mfsf2.save_pretrained(model, tmp_path / "adopted")
    assert saved(tmp_path / "adopted")["temperature"] == 1.5
    train(model, "encoder.fusion")
    mfsf2.save_pretrained(model, tmp_path / "adopted")
    assert "temperature" not in saved(tmp_path / "adopted") and saved(tmp_path / "adopted")["label_names"] == NAMES


def test_another_precision_is_the_same_weights(folder: Path, tmp_path: Path) -> None:
    mfsf2.save_pretrained(mfsf2.create_model(f"local-dir:{folder}").half(), tmp_path / "half")
    assert saved(tmp_path / "half")["temperature"] == 1.5 and saved(tmp_path / "half")["label_names"] == NAMES


def test_other_inputs_are_other_weights(folder: Path, tmp_path: Path) -> None:
    mfsf2.save_pretrained(mfsf2.create_model(f"local-dir:{folder}", in_chans=1), tmp_path / "grey")
    cfg = saved(tmp_path / "grey")
    assert "temperature" not in cfg and cfg["label_names"] == NAMES and cfg["input_size"][0] == 1
    assert cfg["mean"] == [0.449] and cfg["std"] == [0.226]
    data = timm.data.resolve_data_config(model=mfsf2.create_model(f"local-dir:{tmp_path / 'grey'}"))
    image = timm.data.create_transform(**data)(Image.new("L", (70, 60)))
    assert image.shape == (1, 128, 128)


def test_a_replaced_classifier(folder: Path, tmp_path: Path) -> None:
    model: Any = mfsf2.create_model(f"local-dir:{folder}")
    model.head.fc = nn.Linear(32, 7)
    with pytest.warns(UserWarning, match="label_names"):
        mfsf2.save_pretrained(model, tmp_path / "again")
    assert saved(tmp_path / "again")["label_names"] is None


def listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("create", [mfsf2.create_model, timm.create_model])
def test_one_preprocessing_a_name(create: Any) -> None:
    """With and without weights; each tag has its own."""
    keys = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    bare, tagged, loaded, start = (
        timm.data.resolve_data_config(model=create(name, pretrained=pretrained))
        for name, pretrained in (
            ("mfsf2_tiny_cls", False),
            ("mfsf2_tiny_cls.ham10000", False),
            ("mfsf2_tiny_cls", True),
            ("mfsf2_tiny_cls.in1k_backbones", False),
        )
    )
    for key in keys:
        assert listed(bare[key]) == listed(tagged[key]) == listed(loaded[key]), key
    assert tuple(bare["input_size"][1:]) == (128, 128) and bare["crop_mode"] == "squash"
    assert tuple(start["input_size"][1:]) == (224, 224) and start["crop_mode"] == "center"
