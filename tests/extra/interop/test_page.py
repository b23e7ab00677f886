"""The code of docs/interop.md, from top to bottom, also what the other tests lack the libraries for."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


def test_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "tests" / "lesions" / "lesion_1.png", "lesion.png")
    page = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^<!-- no test: (.*?) -->\n)?^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "__main__"}
    for reason, code in blocks:
        if reason != "needs several processes":
            exec(compile(code, "interop.md", "exec"), names)  # noqa: S102
    assert names["masks"].shape == (1, 1, 256, 320)
    assert names["heat"].shape == (1, 128, 128)
