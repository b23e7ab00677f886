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


def run(*command: str, cwd: Path) -> tuple[float, "subprocess.CompletedProcess[str]"]:
    """CPU seconds of a Python process, and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], env=environment, cwd=cwd, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> float:
    """CPU seconds of ``import torch``."""
    seconds, done = run("-c", "import torch", cwd=tmp_path_factory.mktemp("empty"))
    assert done.returncode == 0, done.stderr
    return seconds


def test_all_scripts_are_found() -> None:
    names = {path.stem for path in SCRIPTS}
    assert {"train", "evaluate", "predict", "visualize", "quickstart", "quantize", "benchmark", "synthesize"} <= names
    assert {"ablate", "overfit", "release", "train_from_cnn", "two_modalities"} <= names


@pytest.mark.training
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help(script: Path, baseline: float, tmp_path: Path) -> None:
    seconds, done = run(str(script), "--help", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith("usage: ") and script.name in done.stdout and "options:" in done.stdout
    assert not list(tmp_path.iterdir())
    assert seconds < baseline + SECONDS


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
