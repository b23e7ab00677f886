"""The pages' blocks that need the libraries of these tests, after the blocks before them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from test_docs import PREPARE, ROOT, blocks_of, run_block


@pytest.mark.parametrize("name", ["fine_tune", "interop", "mffe_in_your_network"])
def test_blocks(name: str, hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PREPARE.get(name, lambda hub: None)(hub_server)
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = blocks_of(ROOT / "docs" / f"{name}.md", "python")
    missing = [block for block in blocks if "requirements" in (block.reason or "")]
    assert missing
    for block in blocks:
        if block.reason is None or block in missing:
            run_block(block, names)
