"""CSV tables with named columns."""

import csv
from collections.abc import Collection
from pathlib import Path

from .records import DataError

__all__ = ["one_hot_label", "read_table"]


def read_table(path: Path, columns: Collection[str]) -> list[dict[str, str]]:
    """Rows of a CSV file as dictionaries.

    Raises:
        DataError: no such file, no such columns, no rows, rows of another length.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        absent = sorted(set(columns) - set(reader.fieldnames or ()))
        if absent:
            raise DataError(f"{path}: no column {', '.join(absent)}; it has {', '.join(reader.fieldnames or ())}")
        rows = list(reader)
    if not rows:
        raise DataError(f"{path}: no rows")
    for number, row in enumerate(rows, start=2):
        if any(row[column] is None for column in columns):
            raise DataError(f"{path}, line {number}: fewer values than columns")
    return rows


def one_hot_label(row: dict[str, str], codes: list[str], where: str) -> int:
    """Index of the one column of ``codes`` that is 1.

    Raises:
        DataError: a value that is no number, or not exactly one column is 1.
    """
    try:
        marked = [index for index, code in enumerate(codes) if float(row[code]) == 1]
        others = [code for code in codes if float(row[code]) not in (0, 1)]
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if len(marked) != 1 or others:
        raise DataError(f"{where}: the row must have a single 1 among {', '.join(codes)}, it has {len(marked)}")
    return marked[0]
