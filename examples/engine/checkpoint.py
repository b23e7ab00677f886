"""Checkpoints of a training, written so that a killed run or a full disk leaves the last good one.

``last.pt`` is a ``torch.save`` of ``format``, ``model`` and ``model_ema`` (state dicts; None without an average),
``optimizer``, ``history`` and ``best``. ``mfsf2.load_checkpoint`` reads it too.
"""

import os
from pathlib import Path
from typing import Any

import torch
from readers import DataError

__all__ = ["check_folder", "load_checkpoint", "save_checkpoint", "write_text"]


_FORMAT = "mfsf2-training-1"


def check_folder(folder: Path) -> None:
    """Check, before anything slow, that files can be written into a folder, which may be yet to be made.

    Raises:
        DataError: names what is in the way.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DataError(f"out={folder}: {there} is not a folder that can be written to")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside the old file, then take its place.

    Raises:
        DataError: the disk is full, or the like; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": _FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch reports a file that it cannot write as a RuntimeError.
        raise DataError(f"{path} could not be written: {error}; the one before it is as it was") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote; tensors and plain values only, no code is run.

    Raises:
        DataError: not a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"resume: {path} cannot be read: {error}") from error
    if state.get("format") != _FORMAT:
        raise DataError(f"resume: {path} has the format {state.get('format')!r}, expected {_FORMAT!r}: start a new run")
    return state


def write_text(path: Path, text: str) -> None:
    """Write a text file beside the old one, then take its place.

    Raises:
        DataError: the disk is full, or the like; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path} could not be written: {error}; the one before it is as it was") from error
    finally:
        temporary.unlink(missing_ok=True)
