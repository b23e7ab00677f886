"""One's own images as a CSV table lists them."""

from collections.abc import Sequence
from pathlib import Path

from .build import Row, make_samples, note_alone, sort_names
from .errors import DataError
from .index import FileIndex, check_unique
from .options import Data
from .own import SPLIT_NAMES, mask_format_of
from .records import Dataset
from .tables import is_missing, read_table

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
    table = read_table(path, [data.image_column, *_named(data)], data.encoding)
    ids = [row[data.image_column] for row in table]
    if "" in ids:
        raise DataError(f"{path}: {ids.count('')} rows have no {data.image_column}")
    check_unique(ids, path)
    index = FileIndex(root)
    images = index.find_all(ids, "images")
    check_unique([str(image) for image in images], path)
    masks = _files(table, _optional(table, data.mask_column, "mask"), index, "masks")
    columns = _stack_columns(table, data)
    stacks = _stacks([_files(table, column, index, f"slices of the column {column}") for column in columns], ids, path)
    # Groups from elsewhere are applied later.
    is_elsewhere = data.group_table is not None or data.group_regex is not None
    group_column = "" if is_elsewhere else _optional(table, data.group_column, "group")
    split_column = _optional(table, data.split_column, "split")
    classes, texts, labels = _labels(table, data, path, has_masks=masks is not None)
    rows = [
        Row(
            name,
            image,
            texts[number] if texts else "",
            labels[number] if labels else (),
            table[number].get(group_column, ""),
            _split(table[number].get(split_column, ""), path, name),
            masks[number] if masks else None,
            stacks[number] if stacks else (),
        )
        for number, (name, image) in enumerate(zip(ids, images))
    ]
    listed = {file for row in rows for file in (row.image, row.mask, *row.stack)}
    unlisted = len(set(index.images) - listed)
    notes = [f"left out: {unlisted} images that {path.name} does not list"] if unlisted else []
    notes += note_alone([row.id for row in rows if row.is_alone], group_column) if group_column else ()
    for what, number in (
        ("mask", sum(row.mask is not None for row in rows)),
        ("stack", sum(bool(row.stack) for row in rows)),
    ):
        if 0 < number < len(rows):
            notes.append(f"{len(rows) - number} of {len(rows)} images have no {what}")
    if labels and len(classes) > 1 and all(sum(values) == 1 for values in labels):
        notes.append(
            f"every image has exactly one of {', '.join(classes)}: if they exclude each other, use one column of names"
        )
    return Dataset(
        "table",
        make_samples(rows, classes, str(path)),
        dict.fromkeys(classes, ""),
        multi_label=labels is not None,
        mask_format=mask_format_of(data),
        group_kind="image" if all(row.is_alone for row in rows) else group_column.removesuffix("_id"),
        license=data.license,
        notes=tuple(notes),
    )


def _table_of(data: Data, root: Path) -> Path:
    if data.table is not None:
        path = Path(data.table).expanduser()
        return path if path.is_file() or path.is_absolute() else root / path
    found = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and not path.name.startswith("."))
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
    return named or (usual if usual in table[0] else "")


def _stack_columns(table: _Table, data: Data) -> list[str]:
    return data.stack_columns or [name for name in table[0] if name.startswith("stack")]


def _files(table: _Table, column: str, index: FileIndex, what: str) -> list[Path | None] | None:
    """The files that a column names, None for those it leaves out; None without a column, or where it is empty."""
    named = {number: row[column] for number, row in enumerate(table) if column and not is_missing(row[column])}
    if not named:
        return None
    found = dict(zip(named, index.find_all(list(named.values()), what)))
    return [found.get(number) for number in range(len(table))]


def _stacks(
    columns: Sequence[list[Path | None] | None], ids: Sequence[str], path: Path
) -> list[tuple[Path, ...]] | None:
    """The slices of each image: all or none."""
    if not columns or all(column is None for column in columns):
        return None
    rows = list(zip(*(column or [None] * len(ids) for column in columns)))
    partly = [name for name, row in zip(ids, rows) if 0 < row.count(None) < len(row)]
    if partly:
        raise DataError(
            f"{path}: {len(partly)} images have some slices and lack others, the first are {', '.join(partly[:3])}"
        )
    return [tuple(file for file in row if file is not None) for row in rows]


def _split(text: str, path: Path, name: str) -> str | None:
    split = SPLIT_NAMES.get(text.lower())
    if split is None and not is_missing(text):
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
        # "none" and "-" may well be classes.
        unlabeled = [row[data.image_column] for row in table if is_missing(row[column]) and row[column] not in _CLASSES]
        if unlabeled:
            raise DataError(
                f"{path}: {len(unlabeled)} images have no {column}, the first are {', '.join(unlabeled[:3])}"
            )
        return sort_names(set(texts)), texts, None
    names = _zero_one_columns(table, data) if column is None else column
    if not names:
        if has_masks:
            return [], None, None
        raise DataError(
            f"{path}: no column label, and none of 0 and 1; it has {', '.join(table[0])}: give --data.label_column"
        )
    if len(set(names)) < len(names):
        raise DataError(f"data.label_column={names} names a column twice")
    for row in table:
        wrong = [name for name in names if _number(row[name]) not in (0, 1)]
        if wrong:
            raise DataError(
                f"{path}: {row[data.image_column]} has {row[wrong[0]]!r} in column {wrong[0]}, expected 0 or 1; to use "
                "other columns or none, give --data.label_column"
            )
    return list(names), None, [tuple(int(float(row[name])) for name in names) for row in table]


_CLASSES = ("-", "none", "None")


def _zero_one_columns(table: _Table, data: Data) -> list[str]:
    """Columns of 0 and 1, also those where a value is missing or uncertain (-1), for which there is an error then."""
    used = {data.image_column, *_named(data), "group", "split", "mask", *_stack_columns(table, data)}
    columns = {name: {row[name] for row in table} for name in table[0] if name and name not in used}
    return [
        name
        for name, values in columns.items()
        if any(_number(value) in (0, 1) for value in values)
        and all(_number(value) in (-1, 0, 1) or is_missing(value) for value in values)
    ]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
