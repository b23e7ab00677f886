"""One's own images: class folders, or images with masks. For tables see ``own_table.py``."""

from collections.abc import Sequence
from pathlib import Path

from .build import Row, make_samples, sort_names
from .errors import DataError
from .index import find_files, require_files
from .masks import MaskFormat
from .options import Data
from .records import Dataset

__all__ = ["SPLIT_NAMES", "mask_format_of", "read_folder", "read_masks"]

SPLIT_NAMES = {
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "dev"], "val"),
    **dict.fromkeys(["test", "testing"], "test"),
}
_ENDINGS = ("_mask", "_segmentation")
"""What a mask's name may have after its image's."""


def mask_format_of(data: Data) -> MaskFormat:
    return MaskFormat(tuple(data.mask_names or ()), data.ignore_index)


def read_folder(data: Data) -> Dataset:
    """``ROOT/CLASS/IMAGE``, or ``ROOT/{train,val,test}/CLASS/IMAGE``, whose division is kept.

    Raises:
        DataError: says what is missing or wrong.
    """
    root = Path(data.folder)
    rows: list[Row] = []
    others: list[Path] = []
    for split, folder in _split_folders(root):
        for of_class in _subfolders(folder):
            images, rest = find_files(of_class)
            others += rest
            rows += [Row(path.relative_to(root).as_posix(), path, of_class.name, split=split) for path in images]
        loose = [path for path in find_files_here(folder)]
        others += loose
    if not rows:
        raise DataError(f"{root}: no images in folders of classes (ROOT/CLASS/IMAGE); {_what_is_in(root)}")
    classes = sort_names({row.label for row in rows})
    notes = _left_out(others, "files outside the class folders or that are no images")
    samples = make_samples(rows, classes, str(root))
    return Dataset("folder", samples, dict.fromkeys(classes, ""), license=data.license, notes=notes)


def read_masks(data: Data) -> Dataset:
    """``ROOT/images`` and ``ROOT/masks``, also below ``ROOT/{train,val,test}``, matched by name.

    A mask is called like its image, with ``_mask`` or ``_segmentation`` after it or without, whatever the suffixes are.

    Raises:
        DataError: says what is missing or wrong.
    """
    root = Path(data.folder)
    rows: list[Row] = []
    others: list[Path] = []
    spare: list[Path] = []
    for split, folder in _split_folders(root, ("images", "masks")):
        require_files(folder, ["images", "masks"], "images and masks (images/NAME and masks/NAME)")
        images, rest = find_files(folder / "images")
        masks, more = find_files(folder / "masks")
        others += [*rest, *more]
        by_name = _by_name(masks, folder / "masks")
        names = {path: path.relative_to(folder / "images").with_suffix("").as_posix() for path in images}
        missing = [name for name in names.values() if name not in by_name]
        if missing:
            raise DataError(
                f"{folder / 'masks'}: {len(missing)} of {len(images)} masks are missing, the first are "
                f"{', '.join(missing[:3])}; known are NAME, {', '.join(f'NAME{end}' for end in _ENDINGS)}"
            )
        spare += [path for name, path in by_name.items() if name not in set(names.values())]
        rows += [
            Row(path.relative_to(root).as_posix(), path, split=split, mask=by_name[name])
            for path, name in names.items()
        ]
    if not rows:
        raise DataError(f"{root / 'images'}: no images in it")
    notes = (*_left_out(others, "files that are no images"), *_left_out(spare, "masks without an image"))
    samples = make_samples(rows, (), str(root))
    return Dataset("masks", samples, mask_format=mask_format_of(data), license=data.license, notes=notes)


def _by_name(masks: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Masks by the names of their images."""
    found: dict[str, Path] = {}
    for path in masks:
        name = path.relative_to(folder).with_suffix("").as_posix()
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        if name in found:
            raise DataError(f"{folder}: {found[name].name} and {path.name} may both be the mask of {name}")
        found[name] = path
    return found


def _split_folders(root: Path, own: Sequence[str] = ()) -> list[tuple[str | None, Path]]:
    """The folders of the splits, or the root alone."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folders = _subfolders(root)
    splits = {folder: SPLIT_NAMES[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_NAMES}
    if "train" not in splits.values() or any(folder.name in own for folder in folders):
        return [(None, root)]
    rest = [folder.name for folder in folders if folder not in splits]
    if rest:
        raise DataError(
            f"{root}: {', '.join(rest)} beside {', '.join(path.name for path in splits)}: splits or classes?"
        )
    if len(set(splits.values())) < len(splits):
        raise DataError(f"{root}: two folders of one split among {', '.join(path.name for path in splits)}")
    return [(split, folder) for folder, split in splits.items()]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def find_files_here(folder: Path) -> list[Path]:
    """Files that lie in a folder itself; hidden ones do not count."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _what_is_in(root: Path) -> str:
    names = [path.name for path in sorted(root.iterdir())][:10]
    return f"there is {', '.join(names)}" if names else "it is empty"


def _left_out(paths: Sequence[Path], what: str) -> tuple[str, ...]:
    if not paths:
        return ()
    return (f"left out: {len(paths)} {what}, as {', '.join(path.name for path in paths[:3])}",)
