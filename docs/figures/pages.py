"""What the scripts of figures and tables share: where the pages are, and how a table gets into one."""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["DOCS", "FIGURES", "SIZES", "markdown", "put", "table_in"]

FIGURES = Path(__file__).resolve().parent
DOCS = FIGURES.parent
# The figures show this tree, whatever is installed, and are drawn with the examples' helpers.
sys.path.insert(0, str(DOCS.parent))
sys.path += [str(DOCS.parent / "examples"), str(DOCS.parent / "examples" / "research")]

SIZES = ("mfsf2_tiny", "mfsf2_small", "mfsf2")
"""Prefixes of the models' names, the smallest first."""


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def put(page: str, name: str, table: str) -> None:
    """Replace what a page has between ``<!-- NAME -->`` and ``<!-- end NAME -->``."""
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    before, _, after = _split(text, name)
    path.write_text(f"{before}\n\n{table}\n\n{after}", encoding="utf-8")
    print(f"docs/{page}: {name}")


def table_in(page: str, name: str) -> str:
    """What a page has there now."""
    return _split((DOCS / page).read_text(encoding="utf-8"), name)[1].strip()


def _split(text: str, name: str) -> tuple[str, str, str]:
    match = re.fullmatch(rf"(.*<!-- {name} -->)(.*)(<!-- end {name} -->.*)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"the page has no comments <!-- {name} --> and <!-- end {name} -->: put them where it belongs")
    before, table, after = match.groups()
    return before, table, after
