"""Which image files lie in a folder, and which of them a name means."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import DataError
from .images import DICOM, is_dicom

__all__ = ["SUFFIXES", "FileIndex", "check_unique", "find_files", "is_hidden", "require_files"]

SUFFIXES = {
    *(".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga"),
    *(".tif", ".tiff", ".webp"),
}
"""Of image files, in lower case."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden, a ``._`` copy of macOS or their folder in archives."""
    return name.startswith((".", "__MACOSX"))


def find_files(folder: Path, dicom: bool = False) -> tuple[list[Path], list[Path]]:
    """Image files in a folder and its subfolders by name, and files that are none.

    Hidden files, ``._`` copies of macOS and the like are neither.

    Args:
        folder: where to look.
        dicom: whether DICOM files may be among the files that are no images.

    Raises:
        DataError: DICOM files that may not be there.
        OSError: a folder that cannot be read.
    """
    images: list[Path] = []
    others: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            # A link to a folder that holds it.
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for path in (Path(root, name) for name in sorted(names) if not is_hidden(name)):
            if path.suffix.lower() in SUFFIXES:
                images.append(path)
            elif not dicom and is_dicom(path):
                raise DataError(f"{path}: {DICOM}")
            else:
                others.append(path)
    return images, others


def _raise(error: OSError) -> None:
    raise error


class FileIndex:
    """The image files below some folders, found by their names with or without suffix or folder.

    Args:
        root: what names may be relative to.
        folders: where to look, relative to it; by default everywhere below.
    """

    def __init__(self, root: Path, folders: Sequence[str] = (".",)) -> None:
        self.root = root
        self.where = " and ".join(str(root / folder) for folder in folders)
        self.images = [path for folder in folders for path in find_files(root / folder, dicom=True)[0]]
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        self.by_lower_name: dict[str, list[Path]] = defaultdict(list)
        for path in self.images:
            relative = path.relative_to(root).as_posix()
            for name in {relative, path.name, relative[: -len(path.suffix)], path.stem}:
                self.by_name[name].append(path)
                self.by_lower_name[name.lower()].append(path)

    def find_all(self, names: Sequence[str], what: str) -> list[Path]:
        """The file of each name.

        Args:
            names: with or without suffix; relative to the root, or to wherever there is only one of that name; or
                absolute. Upper and lower case count where two files differ in it alone.
            what: what the files are, for the message.

        Raises:
            DataError: files that are not there, names of several, DICOM files.
        """
        found = [self._find(name.replace("\\", "/").removeprefix("./")) for name in names]
        missing = [name for name, path in zip(names, found) if path is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(names)} {what} are missing from {self.where}, the first are "
                f"{', '.join(missing[:3])}"
            )
        return [path for path in found if path is not None]

    def _find(self, name: str) -> Path | None:
        found = self.by_name.get(name) or self.by_lower_name.get(name.lower(), [])
        if len(found) > 1:
            exact = [path for path in found if path.relative_to(self.root).as_posix() == name]
            if len(exact) != 1:
                raise DataError(f"{name} may be {found[0]} or {found[1]}; give its folder and suffix")
            return exact[0]
        if found:
            return found[0]
        path = self.root / name
        if not path.is_file():
            return None
        if is_dicom(path):
            raise DataError(f"{path}: {DICOM}")
        return path


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


def check_unique(ids: Sequence[str], where: Path) -> None:
    """Check that no image is listed twice."""
    twice = [identity for identity, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"{where}: {len(twice)} images are listed more than once, the first are {', '.join(twice[:3])}")
