"""Which image files lie in a folder, and which of them a name means."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import DataError
from .images import DICOM, is_dicom

__all__ = ["SUFFIXES", "FileIndex", "check_unique", "find_files", "require_files"]

SUFFIXES = {".bmp", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
"""Of image files, in lower case."""


def find_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Image files in a folder and its subfolders by name, and files that are none.

    Hidden files, ``._`` copies of macOS and the like are neither.

    Raises:
        DataError: DICOM files.
    """
    images: list[Path] = []
    others: list[Path] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            path = Path(root, name)
            if path.suffix.lower() in SUFFIXES:
                images += [] if name.startswith(".") else [path]
            elif not name.startswith("."):
                if path.suffix.lower() in (".dcm", ".dicom") or (not path.suffix and is_dicom(path)):
                    raise DataError(f"{path}: {DICOM}")
                others.append(path)
    return images, others


class FileIndex:
    """The image files below some folders, found by their names with or without suffix or folder.

    Args:
        root: what names may be relative to.
        folders: where to look, relative to it; by default everywhere below.
    """

    def __init__(self, root: Path, folders: Sequence[str] = (".",)) -> None:
        self.root = root
        self.where = " and ".join(str(root / folder) for folder in folders)
        found = [find_files(root / folder) for folder in folders]
        self.images = [path for images, _ in found for path in images]
        self.others = [path for _, others in found for path in others]
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        for path in self.images:
            relative = path.relative_to(root).as_posix()
            for name in {relative, path.name, relative[: -len(path.suffix)], path.stem}:
                self.by_name[name].append(path)

    def find_all(self, names: Sequence[str], what: str) -> list[Path]:
        """The file of each name.

        Args:
            names: with or without suffix; relative to the root, or to wherever there is only one of that name; or
                absolute.
            what: what the files are, for the message.

        Raises:
            DataError: files that are not there, or names of several.
        """
        found = [self._find(name) for name in names]
        missing = [name for name, path in zip(names, found) if path is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(names)} {what} are missing from {self.where}, the first are "
                f"{', '.join(missing[:3])}"
            )
        return [path for path in found if path is not None]

    def _find(self, name: str) -> Path | None:
        found = self.by_name.get(name.replace("\\", "/").removeprefix("./"), [])
        if len(found) > 1:
            exact = [path for path in found if path.relative_to(self.root).as_posix() == name]
            if len(exact) != 1:
                raise DataError(f"{name} may be {found[0]} or {found[1]}; give its folder and suffix")
            return exact[0]
        if found:
            return found[0]
        path = self.root / name
        return path if path.is_file() else None


def require_files(folder: Path, names: Iterable[str], what: str) -> None:
    """Check that a folder holds files or folders.

    Raises:
        DataError: says which are missing, and what is there instead.
    """
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        found = sorted(path.name for path in folder.iterdir())[:10] if folder.is_dir() else []
        there = f"there is {', '.join(found)}" if found else "it does not exist or is empty"
        raise DataError(f"{folder} is not the folder of {what}: {', '.join(missing)} missing; {there}")


def check_unique(ids: Sequence[str], table: Path) -> None:
    """Check that no image is listed twice."""
    twice = [identity for identity, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"{table}: {len(twice)} images are listed more than once, the first are {', '.join(twice[:3])}")
