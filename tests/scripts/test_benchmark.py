"""The benchmark runs, in small, and counts right."""

import json
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import benchmark
import pytest
import torch
from benchmarks import blocks, classification, loading, profiling, scaling, segmentation, timing


def test_rounds_take_turns() -> None:
    order: list[str] = []
    times = timing.rounds_of({name: partial(order.append, name) for name in "ab"}, rounds=4, seconds=0.0)
    # Two warm-up calls each, then every round starts with another one.
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab" + "ba"
    assert {name: len(series) for name, series in times.items()} == {"a": 4, "b": 4}


def test_ratio_is_that_of_one_round() -> None:
    row = timing.ratio_row("name", "", {"over": [2.0, 30.0, 8.0], "under": [1.0, 10.0, 2.0]})
    assert (row.ratio, row.values) == (3.0, {"over": 8.0, "under": 2.0})
    assert row.low < row.ratio < row.high
    slow = timing.compare("name", "", {"slow": partial(time.sleep, 0.02), "fast": partial(time.sleep, 0.002)}, 3)
    assert slow.ratio > 3


def test_peak_memory_is_what_is_held_at_a_time() -> None:
    mebibyte = 2**18

    def function() -> None:
        a = torch.empty(3 * mebibyte)
        b = torch.empty(2 * mebibyte)
        del a, b
        torch.empty(4 * mebibyte)

    assert timing.peak_memory(function) == pytest.approx(5, abs=0.01)


def test_different_outputs_are_not_timed() -> None:
    with pytest.raises(RuntimeError, match=r"block: outputs differ by 1\.0e-04"):
        timing.agree(torch.zeros(2), torch.full((2,), 1e-4), "block")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--threads", "-1"], r"threads=-1 must be in \[0, inf\)"),
        (["--rounds", "1"], r"rounds=1 must be in \[2, inf\)"),
        (["--groups", "blocks", "all"], "'all'"),
    ],
)
def test_options(given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--out", str(tmp_path / "out"), *given])
    printed = capsys.readouterr().err
    assert re.search(message, printed) and len(printed.splitlines()) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", benchmark.FILES)
def test_files_of_others_are_kept(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit, match=f"{name}: there already and not written by this script"):
        benchmark.main(["--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_threads_and_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default all groups, with torch's own number of threads."""
    called: list[tuple[list[str], int, int]] = []
    monkeypatch.setattr(
        benchmark, "benchmark", lambda groups, rounds, _: called.append((groups, rounds, torch.get_num_threads()))
    )
    own = torch.get_num_threads()
    benchmark.main(["--out", str(tmp_path)])
    benchmark.main(["--out", str(tmp_path), "--threads", str(own + 1), "--groups", "profile", "--rounds", "3"])
    assert called == [(list(benchmark.GROUPS), 9, own), (["profile"], 3, own + 1)]
    assert list(benchmark.row_groups()) == list(benchmark.ROWS)


@pytest.mark.training
def test_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything except compilation, on small models and images."""
    small: dict[Any, dict[str, Any]] = {
        blocks: dict(BATCH=2, CHANNELS=64, SECONDS=0.0),
        classification: dict(NAME="mfsf2_tiny_cls", CNN="resnet18", TRANSFORMER="pvt_v2_b0", SIZE=64, BATCHES=(1, 2)),
        scaling: dict(NAME="mfsf2_tiny_cls", SIZE=64, SIZES=(64, 96), BATCHES=(1, 2)),
        segmentation: dict(NAME="mfsf2_tiny_seg", SIZE=64),
        profiling: dict(NAME="mfsf2_tiny_cls", BATCH=2),
    }
    for module, values in small.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(classification, "TRAINING_BATCH", 2)
    # In processes of their own, which take seconds.
    monkeypatch.setattr(loading, "first_models", lambda: {"mfsf2": [1.0, 2.0], "timm": [1.0, 1.0]})
    groups = ["blocks", "inference", "training", "segmentation", "loading", "scaling", "profile"]
    benchmark.main(["--out", str(tmp_path), "--rounds", "2", "--groups", *groups])
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert len(content["rows"]) >= 40
    assert all(row["ratio"] > 0 and f"| {row['name']} |" in printed for row in content["rows"])
    assert list(content["scaling"]) == ["size", "batch"]
    for shares in content["profiles"].values():
        assert sum(shares["parts"].values()) == pytest.approx(1)
        assert 0.5 < sum(shares["operators"].values()) <= 1
    assert content["machine"]["torch"] == torch.__version__
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
