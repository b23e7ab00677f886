"""Files that scripts write: whole or not at all, and never over a file that no script wrote.

Each folder keeps a list of what scripts wrote into it, ``.mfsf2-written``: a line for each file, its content's hash and
its name. A file may be replaced if it is on the list with the content that it has, so that neither masks that lay there
before nor predictions that were corrected by hand are lost.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datasets import DataError

__all__ = ["OutputFolder", "WrittenFiles", "check_folder", "to_json"]

LIST = ".mfsf2-written"
_ANY = "*" * 16
"""In the place of a hash: a file that its script goes on writing, as a log or a model."""


class WrittenFiles:
    """The files that scripts wrote and nobody changed since: ``path in written``."""

    def __init__(self) -> None:
        self._lists: dict[Path, dict[str, set[str]]] = {}

    def __contains__(self, path: Path) -> bool:
        hashes = self.listed(path)
        return path.exists() and (_ANY in hashes or (bool(hashes) and path.is_file() and _hash(path) in hashes))

    def listed(self, path: Path) -> set[str]:
        """Hashes of the contents that scripts gave a file."""
        folder = path.parent
        if folder not in self._lists:
            found: dict[str, set[str]] = {}
            lines = (folder / LIST).read_text(encoding="utf-8").splitlines() if (folder / LIST).is_file() else []
            for line in lines:
                code, _, name = line.partition(" ")
                found.setdefault(name, set()).add(code)
            self._lists[folder] = found
        return self._lists[folder].setdefault(path.name, set())

    def add(self, path: Path, code: str) -> None:
        """Note a file that is about to be written."""
        self.listed(path).add(code)
        # One short write at the end: processes that share a folder do not mix their lines.
        with (path.parent / LIST).open("a", encoding="utf-8") as file:
            file.write(f"{code} {path.name}\n")


class OutputFolder:
    """A folder, or subfolders of it, that a script writes to."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        check_folder(self.folder)
        self.written = WrittenFiles()

    def check(self, names: Iterable[str | Path]) -> None:
        """Check, before anything slow, that none of these files would take the place of somebody's.

        Raises:
            DataError: names the first few that would.
        """
        paths = [self.folder / name for name in names]
        foreign = [str(path) for path in paths if path.exists() and path not in self.written]
        if foreign:
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
            raise DataError(
                f"{', '.join(foreign[:3])}{more}: there already and not written by this script, or changed since; give "
                "another --out, or move them away"
            )

    def write(self, name: str | Path, content: str | bytes | Callable[[Path], Any], sync: bool = False) -> Path:
        """Write a file beside the old one, then take its place.

        Args:
            name: relative to the folder; missing folders are made.
            content: text, bytes, or a function that writes to the path that it is given.
            sync: wait for the disk, so that not even a power cut loses both the old file and the new one.

        Raises:
            DataError: a file that no script wrote is there, the disk is full, or the like; the old file is as it was.
        """
        path = self.folder / name
        self.check([name])
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(temporary)
            else:
                temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            if sync:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            if _ANY not in self.written.listed(path):
                # Before the move: a file that is there is then on the list, whenever the script is killed.
                self.written.add(path, _hash(temporary))
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            # torch reports a file that it cannot write as a RuntimeError.
            raise DataError(f"{path} could not be written: {error}; what was there before is as it was") from error
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def claim(self, names: Iterable[str]) -> None:
        """Check files or folders that the script is about to write in its own way, and keep them as its own.

        Raises:
            DataError: one of them is there and no script's.
        """
        names = list(names)
        self.check(names)
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.folder / name for name in names):
            if _ANY not in self.written.listed(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self.written.add(path, _ANY)


def check_folder(folder: Path) -> None:
    """Check that files can be written into a folder, which may be yet to be made.

    Raises:
        DataError: names what is in the way.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DataError(f"out={folder}: {there} is not a folder that can be written to")


def to_json(values: Any) -> str:
    """JSON that every reader takes: null for what is not a number."""
    return json.dumps(_finite(values), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
