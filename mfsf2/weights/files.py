"""Folders that are replaced file by file, so that a killed process or a full disk leaves the old files."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["check_sha256", "move", "sha256_of", "staging_folder"]

_PREFIX = ".saving-"

# Where nothing tells whether a saver still runs, its folder counts as left behind after a day.
_STALE_SECONDS = 24 * 3600.0


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A folder of a unique name inside ``folder``, which is created, for files that are about to be moved there.

    It is locked while in use and removed at the end; the folders of savers that were killed are removed too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    staging, lock = _make_locked(folder)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def move(path: Path, target: Path) -> None:
    """Take the place of ``target`` at once, when the content has reached the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    path.replace(target)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, source: str) -> None:
    """Refuse a file that is not the one that a configuration names.

    Raises:
        ValueError: names the file and ``source``, the configuration.
    """
    found = sha256_of(path)
    if found != expected:
        raise ValueError(
            f"{path} is damaged, or is not the file that {source} describes: its SHA-256 is {found}, expected "
            f"{expected}; copy or download it again, or remove sha256 there if you have changed the file yourself"
        )


def _make_locked(folder: Path) -> tuple[Path, int | None]:
    while True:
        staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        # Between its creation and its lock, another saver may have taken the folder for a stale one.
        try:
            lock = _lock(staging)
        except BlockingIOError:
            continue
        if staging.exists():
            return staging, lock
        if lock is not None:
            os.close(lock)


def _lock(staging: Path) -> int | None:
    """Lock a folder until the descriptor is closed or the process ends; None where the system has no such lock.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        descriptor = os.open(staging, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_stale(folder: Path) -> None:
    for staging in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            age = time.time() - staging.stat().st_mtime
            lock = _lock(staging)
            if lock is not None or age > _STALE_SECONDS:
                shutil.rmtree(staging, ignore_errors=True)
            if lock is not None:
                os.close(lock)
