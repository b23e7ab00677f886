"""Configurations from strangers are refused by name, soon, and without memory."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from untrusted import create_with_timm, refused

import mfsf2
import mfsf2.timm_models


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved / "cls", tmp_path / "net")


TEXTS: dict[str, bytes] = {
    "brackets": b"[" * 100_000,
    "nested objects": b'{"architecture":' * 100_000,
    "40 MB": b'{"architecture": "' + b"a" * 40_000_000 + b'"}',
    "not UTF-8": b'{"architecture": "\xff\xfe"}',
    "long integer": b'{"architecture": ' + b"9" * 100_000 + b"}",
    "a list": b"[{}]",
    "null": b"null",
    "nothing": b"",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_in_place_of_a_configuration(name: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(TEXTS[name])
    with refused(str(folder / "config.json")):
        mfsf2.create_model(f"local-dir:{folder}")


CLAIMS: dict[str, list[Any]] = {
    "architecture": [None, 3, ["mfsf2_tiny_cls"], "mfsf2_huge_cls", {}],
    "model_args": [None, [], "x", 1],
    "pretrained_cfg": [None, [], "x"],
    "num_classes": [1e9, -1, 1.5, "7", True, None, math.nan, math.inf, [7]],
    "label_names": [["a"], list("abcdefgh"), list("abcdefa"), [*range(7)], "abcdefg", [None] * 7, {}],
    "save_id": [3],
    "sha256": [3, "0"],
    "model_args.num_classes": [7],
    "model_args.device": ["cuda"],
    "model_args.dtype": ["float16"],
    "model_args.pretrained_backbones": [True, ["/etc/passwd", "/etc/passwd"]],
    "model_args.cache_dir": ["/etc"],
    "model_args.unknown": [1],
    "model_args.channels": [10**30, 2**62, 0, 16.0, "16", None, True, [16]],
    "model_args.reduction": [-1, 0, "x", None],
    "model_args.num_frequencies": [10**9, 0, None],
    "model_args.frequencies": [[[0, 0]] * 100_000, "all", [], [[0]], [[-1, 0]], [["a", "b"]], [[10**9, 0]], None, {}],
    "model_args.grid_size": [10**6, 10**30, 0, 7.0, "7", None],
    "model_args.head_hidden_size": [10**30, -1, 1.5, "x"],
    "model_args.in_chans": [10**9, 0, 1, None],
    "model_args.drop_rate": [2, "x", None, 10**400],
    "model_args.drop_path_rate": [1, "x", None],
    "model_args.global_pool": ["all", "", 3, None, {}],
    "model_args.cnn": ["unknown", "/etc/passwd", "hf-hub:a/b", "local-dir:/etc", None, []],
    "model_args.transformer": ["vit_giant_patch14_clip_224"],
    "pretrained_cfg.mean": [[0.5, 0.5], list("abc"), "abc", 0.5, [], [math.nan] * 3, [10**400] * 3],
    "pretrained_cfg.std": [[0, 0, 0], [-1, 1, 1], [1, 1], "abc"],
    "pretrained_cfg.input_size": [[128, 128], [3, 0, 0], [3.0, 128.0, 128.0], [3, 10**9, 10**9], "abc"],
    "pretrained_cfg.temperature": [0, -1, "1", math.nan, math.inf, True, 10**400],
    "pretrained_cfg.crop_pct": [0, "1"],
}
UNFIT: dict[str, list[Any]] = {
    "num_classes": [10**9],
    "model_args.channels": [10**9],
    "model_args.pyramid_chans": [10**9],
    "model_args.reduction": [1, 8],
    "model_args.head_hidden_size": [10**9],
    "model_args.cnn": ["convnext_xxlarge"],
}
"""What only the weights contradict."""

CASES: list[tuple[str, str, Any, bool]] = [
    *(("cls", key, value, True) for key, values in CLAIMS.items() for value in values),
    *(("cls", key, value, False) for key, values in UNFIT.items() for value in values),
    *(("clsseg", "model_args.mask_classes", value, value == 0) for value in (0, 10**9)),
    *(("rcm_cls", "model_args.num_slices", value, value == 0) for value in (0, 10**9)),
]


def claim(folder: Path, key: str, value: Any) -> None:
    """Write a value into ``config.json``."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    place, _, name = key.rpartition(".")
    (config[place] if place else config)[name] = value
    path.write_text(json.dumps(config))


def expect(folder: Path, is_named: bool) -> Any:
    """A refusal that names the configuration, or the weights as those of another configuration."""
    return refused(str(folder / "config.json")) if is_named else refused(f"{folder / 'model.safetensors'} ", "its conf")


@pytest.mark.parametrize(
    ("task", "key", "value", "is_named"), [pytest.param(*case, id=f"{case[1]}-{str(case[2])[:20]}") for case in CASES]
)
def test_claims(task: str, key: str, value: Any, is_named: bool, saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / task, tmp_path / "net")
    claim(folder, key, value)
    with expect(folder, is_named):
        mfsf2.create_model(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("key", "value", "is_named"),
    [
        ("model_args.channels", 10**9, False),
        ("model_args.cnn", "convnext_xxlarge", False),
        ("model_args.grid_size", 10**6, True),
        ("model_args.device", "cuda", True),
        ("pretrained_cfg.temperature", "1", True),
    ],
)
def test_claims_before_timm(key: str, value: Any, is_named: bool, folder: Path) -> None:
    claim(folder, key, value)
    with expect(folder, is_named):
        create_with_timm(f"local-dir:{folder}")
