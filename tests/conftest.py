"""A Hub of our own on 127.0.0.1, so that no test depends on, or reaches, anything outside."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer

# One thread for each of pytest-xdist's workers, which share the cores; torch reads it when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_folder = tempfile.TemporaryDirectory(prefix="mfsf2-hub-", ignore_cleanup_errors=True)  # removed at exit
_root = Path(_folder.name)
_server = HubServer(_root / "repositories")
# Read once, when the client is first imported: set before any test imports it.
os.environ["HF_ENDPOINT"] = _server.endpoint
os.environ["HF_HOME"] = str(_root / "cache")
os.environ["HF_HUB_DISABLE_XET"] = "1"


@pytest.fixture(scope="session")
def hub() -> Path:
    """Folder whose subfolders ``OWNER/NAME`` the local Hub serves."""
    return _server.root


@pytest.fixture(scope="session")
def backbones(hub: Path) -> dict[str, Any]:
    """Repositories of timm's for the tiny model's branches, with weights we know."""
    import timm
    import torch
    from safetensors.torch import save_file

    models = {}
    for name in ("resnet18", "pvt_v2_b0"):
        torch.manual_seed(5)
        models[name] = timm.create_model(name)
        folder = hub / "timm" / f"{name}.{models[name].pretrained_cfg['tag']}"
        folder.mkdir(parents=True)
        save_file(models[name].state_dict(), folder / "model.safetensors")
    return models


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the folders of saved models, by their tasks."""
    from micro import build

    import mfsf2

    root = tmp_path_factory.mktemp("saved")
    for task in ("cls", "clsseg", "rcm_cls"):
        mfsf2.save_pretrained(build(task), root / task)
    return root


@pytest.fixture
def hub_server() -> Iterator[HubServer]:
    """The local Hub, which forgets its misbehaviour after the test."""
    _server.behave()
    yield _server
    _server.behave()
    _server.tokens.clear()
    _server.branches.clear()


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same numbers for a test, whichever worker runs it after whichever other test."""
    import torch

    torch.manual_seed(0)
