"""What the tests of files from strangers share."""

import contextlib
import copy
import functools
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from micro import build

import mfsf2
import mfsf2.timm_models

STATE = build().state_dict()
LAST = "head.fc.weight"


def memory(kind: str) -> int:
    """The resident size now (``"VmRSS"``) or at its peak (``"VmHWM"``), in bytes; 0 outside Linux."""
    status = Path("/proc/self/status")
    return int(status.read_text().partition(f"{kind}:")[2].split()[0]) << 10 if status.exists() else 0


@contextlib.contextmanager
def refused(*names: str) -> Iterator[None]:
    """Expect a short ValueError with these names, soon, and without much memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    start, before = time.perf_counter(), memory("VmRSS")
    with pytest.raises(ValueError) as caught:
        yield
    elapsed, grown, message = time.perf_counter() - start, memory("VmHWM") - before, str(caught.value)
    assert elapsed < 5 and grown < 200 << 20
    assert len(message) < 100_000 and not [name for name in names if name not in message], message[:1000]


@functools.cache
def victim(**kwargs: Any) -> Any:
    """A model with other weights, to be copied."""
    return build(seed=1, **kwargs)


def check_refused(path: Path, *names: str, **kwargs: Any) -> None:
    """Refused by a model with these arguments, which keeps its weights."""
    original = victim(**kwargs)
    model, before = copy.deepcopy(original), original.state_dict()
    with refused(str(path), *names):
        mfsf2.load_checkpoint(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def repack(path: Path, name: str, chunks: list[bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Replace a record of a torch archive."""
    with zipfile.ZipFile(path) as archive:
        records = {record: [archive.read(record)] for record in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for record, content in records.items():
            with archive.open(record, "w") as file:
                file.writelines(chunks if record.endswith(name) else content)


def create_with_timm(name: str) -> Any:
    return timm.create_model(name, pretrained=True)
