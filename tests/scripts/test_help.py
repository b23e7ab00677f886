"""Command lines: --help is quick, a typo is answered with the error alone, numbers are checked."""

import importlib
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from cli import check_ranges, run_function
from runs import EXAMPLES

SCRIPTS = sorted(
    path
    for folder in (EXAMPLES, EXAMPLES / "research")
    for path in folder.glob("*.py")
    if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
SUBCOMMANDS = {"visualize": ["gradcam", "contours"]}
SECONDS = 3.0
"""Of user and system time that --help may take beyond ``import torch``."""


class Process:
    """Runs Python with packages installed that are called as the modules here are."""

    def __init__(self, root: Path) -> None:
        self.packages, self.cwd = root / "packages", root / "cwd"
        for folder in (self.packages, self.cwd):
            folder.mkdir()
        for name in [path.stem for path in EXAMPLES.glob("*.py")] + ["datasets"]:
            (self.packages / f"{name}.py").write_text("raise ImportError('another package of this name')")
        self.baseline, done = self.run("-c", "import torch")
        assert done.returncode == 0, done.stderr

    def run(self, *command: str) -> tuple[float, "subprocess.CompletedProcess[str]"]:
        """User and system time in seconds, and what was said."""
        environment = {**os.environ, "PYTHONPATH": f"{EXAMPLES.parent}{os.pathsep}{self.packages}"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, *command], env=environment, cwd=self.cwd, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Process:
    return Process(tmp_path_factory.mktemp("help"))


def test_all_scripts_are_found() -> None:
    names = {path.stem for path in SCRIPTS}
    assert {"train", "evaluate", "predict", "visualize", "quickstart", "quantize", "benchmark", "synthesize"} <= names
    assert {"ablate", "overfit", "release", "train_from_cnn", "two_modalities"} <= names


@pytest.mark.training
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help(script: Path, process: Process) -> None:
    seconds, done = process.run(str(script), "--help")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith("usage: ") and script.name in done.stdout and "options:" in done.stdout
    assert not list(process.cwd.iterdir())
    assert seconds < process.baseline + SECONDS


@pytest.mark.parametrize(
    ("script", "before"),
    [(path, given) for path in SCRIPTS for given in [[name] for name in SUBCOMMANDS.get(path.stem, [])] or [[]]],
    ids=lambda value: value.stem if isinstance(value, Path) else "-".join(value),
)
def test_unknown_option(
    script: Path, before: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    main = importlib.import_module(script.stem).main
    with pytest.raises(SystemExit) as caught:
        main([*before, "--no_such_option=1"])
    printed = capsys.readouterr()
    assert caught.value.code == 2 and not printed.out
    assert "no_such_option" in printed.err and "usage" not in printed.err and len(printed.err.splitlines()) <= 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--names", "a", "b.c,d"], {"names": ["a", "b.c,d"]}),
        (["--names=a", "--numbers", "3"], None),
        (["--names", "a", "--numbers", "3", "-1"], {"names": ["a"], "numbers": (3, -1)}),
        (["--names", '["a", "1"]', "--numbers", "[1, 2]"], {"names": ["a", "1"], "numbers": (1, 2)}),
        (["--names", "1", "--text", "[x]"], {"names": ["1"], "text": "[x]"}),
        (["--names", "a", "--text", "x", "y"], None),
        (["--names", "a", "--numbers", "x"], None),
    ],
)
def test_lists(given: list[str], expected: dict[str, Any] | None) -> None:
    """Values of a list stand one after the other, as a shell expands them."""

    def function(names: list[str], numbers: tuple[int, ...] = (0,), text: str = "") -> dict[str, Any]:
        return {"names": names, "numbers": numbers, "text": text}

    if expected is None:
        with pytest.raises(SystemExit):
            run_function(function, given)
    else:
        assert run_function(function, given) == {"numbers": (0,), "text": "", **expected}


@dataclass
class Inner:
    number: float


@dataclass
class Outer:
    number: Any = 1
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("interval", "allowed", "refused"),
    [
        ("[0, 1]", [0, 0.5, 1, [0, 1], (1.0,), []], [-1e-9, 1.1, nan, inf, -inf, [0, 2], [0.5, nan], (2, 0)]),
        ("(0, 1)", [1e-9, 0.5, [0.1, 0.9]], [0, 1, [0.5, 1], nan, inf]),
        ("[0, 1)", [0, 0.999], [1, -0.1, nan]),
        ("(0, 1]", [0.001, 1], [0, 1.001, nan]),
        ("[1, inf)", [1, 10**9], [0, inf, nan, -inf]),
        ("(0, inf)", [1e-300], [0, -1, inf, nan]),
        ("(-inf, inf]", [0, inf, -1e300], [-inf, nan]),
        ("[-2, -1]", [-2, -1], [0, -3]),
    ],
)
def test_ranges(interval: str, allowed: list[Any], refused: list[Any]) -> None:
    for value in allowed:
        check_ranges(Outer(value), {interval: "number"})
    for value in refused:
        with pytest.raises(ValueError) as caught:
            check_ranges(Outer(value), {interval: "number"})
        assert str(caught.value) == f"number={value} must be in {interval}"


def test_ranges_of_several_names() -> None:
    ranges = {"[0, 9]": "number inner.number", "(5, 6)": "inner.number"}
    check_ranges(Outer(0, Inner(5.5)), ranges)
    with pytest.raises(ValueError, match=r"inner\.number=10 must be in \[0, 9\]"):
        check_ranges(Outer(0, Inner(10)), ranges)
    with pytest.raises(ValueError, match=r"inner\.number=6 must be in \(5, 6\)"):
        check_ranges(Outer(0, Inner(6)), ranges)
