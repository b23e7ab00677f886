"""One's own images as a CSV table lists them."""

from pathlib import Path

from .build import Row, make_samples, sort_names
from .errors import DataError
from .index import FileIndex, check_unique
from .options import Data
from .own import SPLIT_NAMES, mask_format_of
from .records import Dataset
from .tables import read_table

__all__ = ["read_own_table"]

_Table = list[dict[str, str]]


def read_own_table(data: Data) -> Dataset:
    """A CSV file with a line for each image: ``image,label[,group][,split][,mask][,stack...]``.

    Raises:
        DataError: says what is missing or wrong.
    """
    root = Path(data.folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    path = _table_of(data, root)
    columns = [data.image_column, *_named(data)]
    table = read_table(path, columns, data.encoding)
    ids = [row[data.image_column] for row in table]
    check_unique(ids, path)
    index = FileIndex(root)
    images = index.find_all(ids, "images")
    mask_column, stack_columns = _optional(table, data.mask_column, "mask"), _stack_columns(table, data)
    masks = index.find_all([row[mask_column] for row in table], "masks") if mask_column else None
    stacks = [index.find_all([row[column] for row in table], "slices") for column in stack_columns]
    group_column, split_column = (
        _optional(table, data.group_column, "group"),
        _optional(table, data.split_column, "split"),
    )
    classes, texts, labels = _labels(table, data, path, has_masks=masks is not None)
    rows = [
        Row(
            name,
            image,
            texts[number] if texts else "",
            labels[number] if labels else (),
            table[number].get(group_column, ""),
            _split(table[number][split_column], path, name) if split_column else None,
            masks[number] if masks else None,
            tuple(slices[number] for slices in stacks),
        )
        for number, (name, image) in enumerate(zip(ids, images))
    ]
    unlisted = len(set(index.images) - {*images, *(masks or ()), *(file for slices in stacks for file in slices)})
    notes = [f"left out: {unlisted} images that {path.name} does not list"] if unlisted else []
    if labels and len(classes) > 1 and all(sum(values) == 1 for values in labels):
        notes.append(
            f"every image has exactly one of {', '.join(classes)}: if they exclude each other, use one column of names"
        )
    kind = group_column if any(row.group for row in rows) else "image"
    return Dataset(
        "table",
        make_samples(rows, classes, str(path)),
        dict.fromkeys(classes, ""),
        multi_label=labels is not None,
        mask_format=mask_format_of(data),
        group_kind=kind.removesuffix("_id"),
        license=data.license,
        notes=tuple(notes),
    )


def _table_of(data: Data, root: Path) -> Path:
    if data.table is not None:
        path = Path(data.table).expanduser()
        return path if path.is_file() or path.is_absolute() else root / path
    found = sorted(path for path in root.glob("*.csv") if not path.name.startswith("."))
    if len(found) != 1:
        raise DataError(f"{root}: {len(found)} files end in .csv; give --data.table FILE")
    return found[0]


def _named(data: Data) -> list[str]:
    """Columns that the options name, which must therefore be there."""
    labels = [data.label_column] if isinstance(data.label_column, str) else data.label_column or []
    single = [data.split_column, data.mask_column, None if data.group_table else data.group_column]
    return [*labels, *(name for name in single if name), *(data.stack_columns or ())]


def _optional(table: _Table, named: str | None, usual: str) -> str:
    """The column to use: the one that is named, else the usual one if there is one, else none."""
    return named if named in table[0] else usual if usual in table[0] and not named else ""


def _stack_columns(table: _Table, data: Data) -> list[str]:
    return data.stack_columns or [name for name in table[0] if name.startswith("stack")]


def _split(text: str, path: Path, name: str) -> str:
    split = SPLIT_NAMES.get(text.lower())
    if split is None:
        raise DataError(f"{path}: {name} has the split {text!r}; known are {', '.join(SPLIT_NAMES)}")
    return split


def _labels(
    table: _Table, data: Data, path: Path, has_masks: bool
) -> tuple[list[str], list[str] | None, list[tuple[int, ...]] | None]:
    """Classes; then the class of each image, or 0 and 1 for each class."""
    column = data.label_column
    if column is None and "label" in table[0]:
        column = "label"
    if isinstance(column, str):
        texts = [row[column] for row in table]
        unlabeled = [row[data.image_column] for row, text in zip(table, texts) if text.lower() in ("", "nan")]
        if unlabeled:
            raise DataError(
                f"{path}: {len(unlabeled)} images have no {column}, the first are {', '.join(unlabeled[:3])}"
            )
        return sort_names(set(texts)), texts, None
    names = column or _zero_one_columns(table, data)
    if not names:
        if has_masks:
            return [], None, None
        raise DataError(
            f"{path}: no column label, and none of 0 and 1; it has {', '.join(table[0])}: give --data.label_column"
        )
    for row in table:
        wrong = [name for name in names if _number(row[name]) not in (0, 1)]
        if wrong:
            raise DataError(
                f"{path}: {row[data.image_column]} has {row[wrong[0]]!r} in column {wrong[0]}, expected 0 or 1"
            )
    return list(names), None, [tuple(int(float(row[name])) for name in names) for row in table]


def _zero_one_columns(table: _Table, data: Data) -> list[str]:
    used = {data.image_column, *_named(data), "group", "split", "mask", *_stack_columns(table, data)}
    return [
        name for name in table[0] if name and name not in used and all(_number(row[name]) in (0, 1) for row in table)
    ]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
