"""Damaged safetensors files, and tensors of the wrong kind, are refused by name and leave the model as it was."""

import copy
import json
import math
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from untrusted import LAST, STATE, check_refused, create_with_timm, refused, victim

import mfsf2
import mfsf2.timm_models

PAIR = struct.pack("<ff", 0, 0)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved / "cls", tmp_path / "net")


def header(content: Any, data: bytes = b"", size: int | None = None) -> bytes:
    """A safetensors file; the size is what it claims of its header."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(shape: Any, begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return dict(dtype=dtype, shape=shape, data_offsets=[begin, end])


GOOD = {"a": entry([2], 0, 8)}
TWICE = json.dumps(GOOD)[:-1].encode() + b", " + json.dumps(GOOD)[1:].encode()
SAFETENSORS: dict[str, bytes] = {
    "overlapping": header({**GOOD, "b": entry([2], 4, 12)}, bytes(12)),
    "same bytes": header({**GOOD, "b": entry([2], 0, 8)}, bytes(8)),
    "gap": header({**GOOD, "b": entry([2], 12, 20)}, bytes(20)),
    "out of range": header({"a": entry([1 << 38], 0, 1 << 40)}, bytes(8)),
    "backwards": header({"a": entry([2], 8, 0)}, bytes(8)),
    "negative offset": header({"a": entry([2], -8, 0)}, bytes(8)),
    "header beyond the file": header(GOOD, bytes(8), size=1000),
    "header of 150 MB": header(GOOD, bytes(8), size=150 << 20),
    "header of 99 MB": header(GOOD, bytes(8), size=99 << 20),
    "header of 2^63": header(GOOD, bytes(8), size=1 << 63),
    "header of 2^64 - 1": header(GOOD, bytes(8), size=(1 << 64) - 1),
    "cut in the size": header(GOOD)[:7],
    "cut in the header": header(GOOD)[:30],
    "cut in the data": header(GOOD, bytes(7)),
    "trailing byte": header(GOOD, bytes(9)),
    "twice": header(TWICE, bytes(8)),
    "negative shape": header({"a": entry([-2], 0, 8)}, bytes(8)),
    "wrong shape": header({"a": entry([3], 0, 8)}, bytes(8)),
    "shape that overflows": header({"a": entry([1 << 32, 1 << 32], 0, 0)}),
    "shape of floats": header({"a": entry([2.0], 0, 8)}, bytes(8)),
    "unknown dtype": header({"a": entry([2], 0, 8, "F33")}, bytes(8)),
    "not JSON": header(b"{'a': 1}"),
    "a list": header([GOOD]),
    "NaN": header({"a": entry([math.nan], 0, 8)}, bytes(8)),
    "not UTF-8": header(b'{"\xff": {}}'),
    "nested": header(b'{"a":' * 50_000),
    "empty": b"",
    "empty header": header(b""),
    "no tensors": header({}),
    "metadata of numbers": header({"__metadata__": {"format": 1}, **GOOD}, bytes(8)),
    "metadata in a list": header({"__metadata__": ["pt"], **GOOD}, bytes(8)),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors(name: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(SAFETENSORS[name])
    check_refused(path)
    with refused(str(path)):
        mfsf2.create_model(f"local-dir:{folder}")


def test_folder_in_place_of_a_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.unlink()
    path.mkdir()
    with pytest.raises(FileNotFoundError, match=str(path)):
        mfsf2.load_checkpoint(victim(), path)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors missing"):
        mfsf2.create_model(f"local-dir:{folder}")


def test_flipped_byte(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    for create_from in (mfsf2.create_model, create_with_timm):
        with refused(str(path), "SHA-256", "config.json"):
            create_from(f"local-dir:{folder}")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "null", '{"architecture": 3}'])
def test_configuration_inside_the_weights(text: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(header({"__metadata__": {"mfsf2_config": text}, **GOOD}, bytes(8)))
    with refused(str(path)):
        mfsf2.create_model(f"local-dir:{folder}")


AUTHORS = "fusion_stages.3.mffe_res.mapper.0.weight"
"""A key of the authors' code, for a convolution that is a linear layer here."""

KINDS: dict[str, Callable[[Tensor], Any]] = {
    "sparse COO": Tensor.to_sparse,
    "sparse CSR": Tensor.to_sparse_csr,
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "meta": lambda t: t.to("meta"),
    "nested": lambda t: torch.nested.nested_tensor(list(t)),
    "jagged": lambda t: torch.nested.nested_tensor(list(t), layout=torch.jagged),
    "int8": Tensor.char,
    "uint8": Tensor.byte,
    "bool": Tensor.bool,
    "complex64": lambda t: t.to(torch.complex64),
    "scalar": Tensor.mean,
    "one dimension": Tensor.flatten,
    "list": Tensor.tolist,
    "string": str,
    "None": lambda t: None,
    "storage": lambda t: t.clone().untyped_storage(),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", [LAST, AUTHORS])
def test_tensors_of_the_wrong_kind(key: str, kind: str, tmp_path: Path) -> None:
    """Late in the file, after weights that would fit."""
    value = KINDS[kind](STATE[LAST])
    torch.save({**STATE, key: value}, tmp_path / "model.pth")
    check_refused(tmp_path / "model.pth", *[key] * (isinstance(value, Tensor) and key in STATE))


def nested(make: Callable[[Any], Any], times: int) -> Any:
    value: Any = ()
    for _ in range(times):
        value = make(value)
    return value


def itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    return content


CONTENTS: dict[str, Callable[[], Any]] = {
    "integer key": lambda: {**STATE, 0: torch.zeros(1)},
    "tuple key": lambda: {**STATE, ("a", 1): torch.zeros(1)},
    "nested key": lambda: {**STATE, nested(lambda v: (v,), 500): torch.zeros(1)},
    "key that doubles": lambda: {**STATE, nested(lambda v: (v, v), 20): torch.zeros(1)},
    "list": lambda: [*STATE.values()],
    "tensor": lambda: STATE[LAST],
    "number": lambda: 3,
    "empty": dict,
    "itself": itself,
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_state_dict(name: str, tmp_path: Path) -> None:
    torch.save(CONTENTS[name](), tmp_path / "model.pth")
    check_refused(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("key", "values", "shape"),
    [
        ("encoder.cnn.conv1.weight", 1, (3_000_000, 3, 7, 7)),
        (AUTHORS, 1000, (500, 500, 1000)),
        ("surplus", 1, (1 << 40,)),
        ("head.hidden.0.weight", 1, (32, 1 << 40)),
    ],
)
def test_large_tensors_of_few_numbers(key: str, values: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    torch.save({**STATE, key: torch.zeros(values).expand(shape)}, tmp_path / "model.pth")
    check_refused(tmp_path / "model.pth", in_chans=1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float8_e4m3fn"])
def test_floating_point_is_accepted(dtype: str, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    state = {k: v.to(kind) for k, v in STATE.items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "model.pth")
    model = copy.deepcopy(victim())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mfsf2.load_checkpoint(model, tmp_path / "model.pth")
    own = model.state_dict()
    assert all(torch.equal(own[key], value.to(own[key].dtype)) for key, value in state.items())


@pytest.mark.parametrize("value", [math.nan, -math.inf, 1e300])
def test_numbers_that_are_not_finite(value: float, tmp_path: Path) -> None:
    keys = [LAST, "encoder.cnn.bn1.running_var"]
    state = {**STATE, **{key: STATE[key].double() for key in keys}}
    for key in keys:
        state[key].flatten()[-1] = value
    torch.save(state, tmp_path / "model.pth")
    model = copy.deepcopy(victim())
    with pytest.warns(UserWarning, match="NaN or infinite") as caught:
        mfsf2.load_checkpoint(model, tmp_path / "model.pth")
    message = str(caught[0].message)
    assert len(caught) == 1 and str(tmp_path / "model.pth") in message
    assert [key for key in STATE if key in message] == sorted(keys)
    assert torch.allclose(model.state_dict()[LAST], state[LAST].float(), equal_nan=True)
