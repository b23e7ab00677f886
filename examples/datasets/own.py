"""One's own images: class folders, or images with masks. For tables see ``own_table.py``."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from .build import Row, make_samples, sort_names
from .errors import DataError
from .images import DICOM, is_dicom
from .index import find_files, is_hidden
from .masks import MaskFormat
from .options import Data
from .records import Dataset

__all__ = ["SPLIT_NAMES", "mask_format_of", "read_folder", "read_masks"]

SPLIT_NAMES = {
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "dev"], "val"),
    **dict.fromkeys(["test", "testing"], "test"),
}
_ENDINGS = ("", "_mask", "_segmentation")
"""What a mask's name may have after its image's."""


def mask_format_of(data: Data) -> MaskFormat:
    """How masks are read."""
    return MaskFormat(tuple(data.mask_names or ()), data.ignore_index)


def read_folder(data: Data) -> Dataset:
    """``ROOT/CLASS/IMAGE``, or ``ROOT/{train,val,test}/CLASS/IMAGE``, whose division is kept.

    Raises:
        DataError: says what is missing or wrong.
    """
    root = Path(data.folder)
    rows: list[Row] = []
    others: list[Path] = []
    empty: list[Path] = []
    splits = _split_folders(root)
    for split, folder in splits:
        for of_class in _subfolders(folder):
            images, rest = find_files(of_class)
            others += rest
            empty += [] if images else [of_class]
            rows += [Row(path.relative_to(root).as_posix(), path, of_class.name, split=split) for path in images]
    for folder in dict.fromkeys([root, *(folder for _, folder in splits)]):
        others += _files_in(folder)
    if not rows:
        raise DataError(f"{root}: no images in folders of classes (ROOT/CLASS/IMAGE); {_what_is_in(root)}")
    classes = sort_names({row.label for row in rows})
    notes = (
        *_left_out(others, "files outside the class folders or that are no images"),
        *_left_out(empty, "folders without images"),
    )
    samples = make_samples(rows, classes, str(root))
    return Dataset("folder", samples, dict.fromkeys(classes, ""), license=data.license, notes=notes)


def read_masks(data: Data) -> Dataset:
    """``ROOT/images`` and ``ROOT/masks``, matched by name; with ``train``, ``val`` and ``test`` above or in both.

    A mask is called like its image, with ``_mask`` or ``_segmentation`` after it or without, whatever the suffixes are.

    Raises:
        DataError: says what is missing or wrong.
    """
    root = Path(data.folder)
    rows: list[Row] = []
    others: list[Path] = []
    spare: list[Path] = []
    for split, folder in _split_folders(root, ("images", "masks")):
        of_images, of_masks = (_subfolder(folder, name) for name in ("images", "masks"))
        images, rest = find_files(of_images)
        masks, more = find_files(of_masks)
        others += [*rest, *more]
        pairs = _match(images, of_images, masks, of_masks)
        inner = dict.fromkeys(pairs, split) if split else _splits_of(pairs, of_images)
        rows += [Row(i.relative_to(root).as_posix(), i, split=inner[i], mask=mask) for i, mask in pairs.items()]
        used = set(pairs.values())
        spare += [path for path in masks if path not in used]
    if not rows:
        raise DataError(f"{root}: no images in the folder images; {_what_is_in(root)}")
    notes = (*_left_out(others, "files that are no images"), *_left_out(spare, "masks without an image"))
    samples = make_samples(rows, (), str(root))
    return Dataset("masks", samples, mask_format=mask_format_of(data), license=data.license, notes=notes)


def _match(images: Sequence[Path], of_images: Path, masks: Sequence[Path], of_masks: Path) -> dict[Path, Path]:
    """The mask of each image.

    Raises:
        DataError: images without a mask, or with more than one; two images with the same.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in masks:
        by_name[_stem(path, of_masks).lower()].append(path)
    pairs: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    missing = []
    for image in images:
        name = _stem(image, of_images)
        known = [name + ending for ending in _ENDINGS]
        found = [path for stem in known for path in by_name.get(stem.lower(), ())]
        # Upper and lower case count where two files differ in it alone.
        found = [path for path in found if len(found) == 1 or _stem(path, of_masks) in known]
        if len(found) > 1:
            raise DataError(f"{found[0]} and {found[1]} may both be the mask of {image}")
        if not found:
            missing.append(name)
            continue
        if found[0] in taken:
            raise DataError(f"{found[0]} would be the mask of both {taken[found[0]]} and {image}; keep one of them")
        pairs[image], taken[found[0]] = found[0], image
    if missing:
        raise DataError(
            f"{of_masks}: {len(missing)} of {len(images)} masks are missing, the first are {', '.join(missing[:3])}; "
            f"known are {', '.join(f'NAME{end}' for end in _ENDINGS)}"
        )
    return pairs


def _stem(path: Path, folder: Path) -> str:
    """A file's name within a folder, without its suffix."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _splits_of(images: Iterable[Path], folder: Path) -> dict[Path, str | None]:
    """The split of each image where all lie in folders of splits, as ``images/train``."""
    first = {path: path.relative_to(folder).parts[0].lower() for path in images}
    if "train" not in {SPLIT_NAMES.get(name) for name in first.values()} or not set(first.values()) <= set(SPLIT_NAMES):
        return dict.fromkeys(first)
    return {path: SPLIT_NAMES[name] for path, name in first.items()}


def _split_folders(root: Path, own: Sequence[str] = ()) -> list[tuple[str | None, Path]]:
    """The folders of the splits, or the root alone.

    Args:
        root: the data set's folder.
        own: names of folders that it has where it is not divided.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folders = _subfolders(root)
    splits = {folder: SPLIT_NAMES[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_NAMES}
    if any(folder.name.lower() in own for folder in folders):
        return [(None, root)]
    rest = [folder for folder in folders if folder not in splits]
    if "train" not in splits.values() and (rest or not splits):
        return [(None, root)]
    of_images = [folder.name for folder in rest if find_files(folder, dicom=True)[0]]
    if of_images:
        raise DataError(
            f"{root}: {', '.join(of_images)} beside {', '.join(path.name for path in splits)}: splits or classes?"
        )
    if len(set(splits.values())) < len(splits):
        raise DataError(f"{root}: two folders of one split among {', '.join(path.name for path in splits)}")
    return [(split, folder) for folder, split in splits.items()]


def _subfolder(folder: Path, name: str) -> Path:
    """The subfolder of a name in upper or lower case."""
    found = [path for path in _subfolders(folder) if path.name.lower() == name]
    if len(found) > 1:
        raise DataError(f"{folder} has both {found[0].name} and {found[1].name}")
    if not found:
        raise DataError(
            f"{folder} is not a folder of images/NAME and masks/NAME: {name} missing; {_what_is_in(folder)}"
        )
    return found[0]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _files_in(folder: Path) -> list[Path]:
    """Files that lie in a folder itself; hidden ones do not count.

    Raises:
        DataError: DICOM files.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not is_hidden(path.name))
    for path in files:
        if is_dicom(path):
            raise DataError(f"{path}: {DICOM}")
    return files


def _what_is_in(root: Path) -> str:
    names = [path.name for path in sorted(root.iterdir())][:10]
    return f"there is {', '.join(names)}" if names else "it is empty"


def _left_out(paths: Sequence[Path], what: str) -> tuple[str, ...]:
    if not paths:
        return ()
    return (f"left out: {len(paths)} {what}, as {', '.join(path.name for path in paths[:3])}",)
