"""The public names and their signatures are those of tests/public_api.txt: what others' code relies on."""

import difflib
from pathlib import Path

import pytest
from public_api import parameters, public_api

import mfsf2

SNAPSHOT = Path(__file__).with_name("public_api.txt")


def differences() -> list[str]:
    expected, actual = SNAPSHOT.read_text(encoding="utf-8"), public_api()
    return list(difflib.unified_diff(expected.splitlines(), actual.splitlines(), "snapshot", "now", lineterm="", n=0))


def test_public_api() -> None:
    found = differences()
    assert not found, "\n".join(
        [
            "Names or signatures changed. If that is intended, say so in CHANGELOG.md and renew the snapshot:",
            "    PYTHONPATH=. python tests/public_api.py > tests/public_api.txt",
            *found,
        ]
    )


def test_changes_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that vanishes, an argument that is renamed, a method that is new."""
    monkeypatch.setattr(mfsf2, "__all__", [name for name in mfsf2.__all__ if name != "list_models"])
    monkeypatch.setattr(mfsf2.GlobalPool, "feat_mult", lambda self: 1)
    monkeypatch.setattr(mfsf2.MFFE, "__init__", lambda self, chans: None)
    changed = "\n".join(differences())
    assert "-mfsf2.list_models(filter='*')" in changed and "-    feat_mult(self)" in changed
    assert "+class mfsf2.MFFE(chans)" in changed


def test_parameters() -> None:
    def function(a: int, /, b: str = "x", *args: int, c: float = 0.5, **more: int) -> None: ...

    assert parameters(function) == "(a, /, b='x', *args, c=0.5, **more)"
