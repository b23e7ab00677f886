"""Importing the library is quick, and loads neither timm nor the Hub client."""

import subprocess
import sys
from pathlib import Path


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_import_time() -> None:
    """At most 0.3 s over torch: the smallest of three runs, as other work on the machine only adds to it."""
    times = []
    for _ in range(3):
        lines = run("import torch; import mfsf2", "-X", "importtime").stderr.splitlines()
        (cumulative,) = (line.split("|")[1] for line in lines if line.split("|")[-1].strip() == "mfsf2")
        times.append(int(cumulative) / 1e6)
    assert min(times) <= 0.3


def test_import_loads_no_more_than_torch() -> None:
    code = """
import sys, mfsf2
mfsf2.list_models(), mfsf2.list_pretrained(), mfsf2.MFFE(256), mfsf2.ClassificationHead(8, 2)
mfsf2.MultiFreqMultiScaleFusion([8], [8], 16, 16, 64)
loaded = {"timm", "torchvision", "huggingface_hub", "scipy", "onnx", "PIL", "matplotlib"} & set(sys.modules)
assert not loaded, loaded
"""
    run(code)


def test_typed() -> None:
    import mfsf2

    assert (Path(mfsf2.__file__).parent / "py.typed").is_file()
