"""Command lines: --help is quick, and a typo is answered with the error alone."""

import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
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
