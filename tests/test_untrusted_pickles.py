"""Pickles from strangers are refused by name: they run no code, and leave the model as it was."""

import builtins
import contextlib
import copy
import functools
import gzip
import importlib
import io
import operator
import os
import pickle
import runpy
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from micro import build, create
from torch import nn
from untrusted import LAST, STATE, check_refused, refused, repack, victim

import mfsf2
import mfsf2.timm_models


class Call:
    """Pickled as the call of a function, which a careless reader makes."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __call__(self) -> None:
        """Pickle asks for it where the function is the result of another call."""

    def __reduce__(self) -> Any:
        return self.function, self.args


class Trick:
    """Pickled as an object whose state, the path of a file to write, is set by the BUILD instruction."""

    def __init__(self, marker: str = "") -> None:
        self.marker = marker

    def __getstate__(self) -> str:
        return self.marker

    def __setstate__(self, marker: str) -> None:
        Path(marker).touch()


def script(marker: str) -> str:
    """The path of a Python module that writes the marker."""
    path = Path(marker).with_name("of_a_stranger.py")
    path.write_text(f"open({marker!r}, 'w').close()")
    return str(path)


# What a pickle calls to write a marker.
PAYLOADS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda m: Call(os.system, f"touch {m}"),
    "subprocess": lambda m: Call(subprocess.check_call, ["touch", m]),
    "exec": lambda m: Call(exec, f"open({m!r}, 'w').close()"),
    "eval": lambda m: Call(eval, f"open({m!r}, 'w').close()"),
    "open": lambda m: Call(builtins.open, m, "w"),
    "importlib": lambda m: Call(importlib.import_module, Path(script(m)).stem),
    "runpy": lambda m: Call(runpy.run_path, script(m)),
    "pathlib": lambda m: Call(Path.touch, Path(m)),
    "partial": lambda m: Call(functools.partial(Path.touch, Path(m))),
    "attrgetter": lambda m: Call(Call(operator.attrgetter("touch"), Path(m))),
    "methodcaller": lambda m: Call(operator.methodcaller("touch"), Path(m)),
    "torch's own rebuild": lambda m: Call(torch._tensor._rebuild_from_type_v2, Path.touch, Path, (Path(m),), {}),
    "BUILD": Trick,
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_calls_in_pickles(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    marker, path = tmp_path / "marker", tmp_path / "model.pth"
    torch.save({"state_dict": {**STATE, LAST: PAYLOADS[name](str(marker))}}, path)
    with refused(str(path)):
        create("cls", checkpoint_path=path)
    assert not marker.exists()
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert marker.exists(), "the payload does nothing"


def write_tar(payload: Any, path: Path) -> None:
    """The format of torch before version 0.1.12."""
    with tarfile.open(path, "w") as archive:
        for name, contents in (("storages", (0, [])), ("tensors", (0,)), ("pickle", (payload,))):
            data = b"".join(pickle.dumps(content, 2) for content in contents)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_repacked(payload: Any, path: Path) -> None:
    torch.save(STATE, path)
    repack(path, "data.pkl", [pickle.dumps(payload, 2)])


def write_module(payload: Any, path: Path) -> None:
    model = build()
    model.trick = payload
    torch.save(model, path)


def saver(wrap: Callable[[Any], Any] = lambda payload: payload, **kwargs: Any) -> Callable[[Any, Path], None]:
    return lambda payload, path: torch.save(wrap(payload), path, **kwargs)


def dumper(protocol: int, pack: Callable[[bytes], bytes] = bytes) -> Callable[[Any, Path], object]:
    return lambda payload, path: path.write_bytes(pack(pickle.dumps(payload, protocol)))


LEGACY: dict[str, Any] = dict(_use_new_zipfile_serialization=False)
WRITERS: dict[str, tuple[str, Callable[[Any, Path], object]]] = {
    "pickle 0": ("model.pkl", dumper(0)),
    "pickle 2": ("model.bin", dumper(2)),
    "pickle 4": ("model.ckpt", dumper(4)),
    "pickle 5": ("model", dumper(5)),
    "gzip": ("model.pt.gz", dumper(2, gzip.compress)),
    "zip": ("model.pt", saver()),
    "zip 4": ("model.pth", saver(pickle_protocol=4)),
    "zip 5": ("model.ckpt", saver(pickle_protocol=5)),
    "legacy": ("model.pt", saver(**LEGACY)),
    "legacy 4": ("model.pkl", saver(pickle_protocol=4, **LEGACY)),
    "legacy, after the weights": ("model.bin", saver(lambda p: {**STATE, "epoch": p}, **LEGACY)),
    "key": ("model.pth", saver(lambda p: {**STATE, p: torch.zeros(1)})),
    "optimizer": ("a.ckpt", saver(lambda p: {"state_dict": STATE, "optimizer": {"state": {0: {"exp_avg": p}}}})),
    "tensor's attribute": ("model.pth", saver(lambda p: {**STATE, LAST: with_attributes(STATE[LAST], hook=p)})),
    "tar": ("model.tar", write_tar),
    "safetensors": ("model.safetensors", saver()),
    "replaced data.pkl": ("model.pth", write_repacked),
    "whole module": ("model.pth", write_module),
}


def with_attributes(value: Any, **attributes: Any) -> Any:
    value = copy.deepcopy(value)
    vars(value).update(attributes)
    return value


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("name", WRITERS)
def test_disguised_pickles(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    file, write = WRITERS[name]
    write(Trick(str(marker)), tmp_path / file)
    marker.unlink(missing_ok=True)
    check_refused(tmp_path / file)
    assert not marker.exists()
    content = (tmp_path / file).read_bytes()
    (tmp_path / "copy").write_bytes(gzip.decompress(content) if name == "gzip" else content)
    with contextlib.suppress(Exception):
        torch.load(tmp_path / "copy", weights_only=False)
    assert marker.exists(), "the payload does nothing"


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*TorchScript:UserWarning")
def test_torchscript(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "model.pt")
    check_refused(tmp_path / "model.pt")


def test_compressed_zeros(tmp_path: Path) -> None:
    path, size = tmp_path / "model.pth", 75_000_000
    torch.save({"a": torch.zeros(70_000)}, path)
    with zipfile.ZipFile(path) as archive:
        text = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    repack(path, "data.pkl", [text.replace(b"J" + struct.pack("<i", 70_000), b"J" + struct.pack("<i", size))])
    repack(path, "data/0", [bytes(1_000_000)] * (size // 250_000), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 3_000_000
    check_refused(path)


PICKLES: dict[str, bytes] = {
    "1000 levels": b"}X\1\0\0\0a" * 1000 + b"}" + b"s" * 1000,
    "1000 entries": b"}X\12\0\0\0state_dict" * 1000 + b"}" + b"s" * 1000,
    "key of 5000 levels": b"})" + b"\x85" * 5000 + b"ctorch\nTensor\n)Rs",
    "values that is no method": b"ccollections\nOrderedDict\n)R}X\6\0\0\0valuesK\1sb",
    "get that is no method": b"ccollections\nOrderedDict\n)R}X\3\0\0\0getK\1sb",
    "no end": b"}",
    "empty stack": b"s",
}


@pytest.mark.parametrize("name", PICKLES)
def test_odd_pickles(name: str, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.pth")
    repack(tmp_path / "model.pth", "data.pkl", [b"\x80\2", PICKLES[name], b"." * (name != "no end")])
    check_refused(tmp_path / "model.pth")


def test_attributes_in_the_place_of_methods(tmp_path: Path) -> None:
    """They do not come along, and the numbers are as good as others."""
    torch.save({**STATE, LAST: with_attributes(STATE[LAST], is_floating_point="x", dim=1)}, tmp_path / "model.pth")
    model = copy.deepcopy(victim())
    mfsf2.load_checkpoint(model, tmp_path / "model.pth")
    assert torch.equal(model.state_dict()[LAST], STATE[LAST].detach())
