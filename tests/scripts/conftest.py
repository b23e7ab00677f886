"""Synthetic data in each layout, and a short training of each configuration."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import train
from datasets import PUBLISHED
from datasets.synthetic import write_dataset
from runs import Run, arguments, data_of, forget_accelerator


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """What scripts leave behind in their process: accelerate's state, torch's threads."""
    threads = torch.get_num_threads()
    yield
    forget_accelerator()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A synthetic data set in each layout, that no test changes."""
    root = tmp_path_factory.mktemp("data")
    return {name: write_dataset(name, root / name, lesions=6 if name == "psinkd" else 4) for name in PUBLISHED}


@pytest.fixture(scope="session")
def run(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Folder of a short training of a configuration; each is trained once."""
    root = tmp_path_factory.mktemp("runs")

    def get(config: str) -> Path:
        if not (root / config).exists():
            train.main(arguments(config, folders[data_of(config)], root / config))
            forget_accelerator()
        return root / config

    return get
