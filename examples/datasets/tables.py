"""CSV tables with named columns, from whatever program wrote them."""

import csv
import io
from collections.abc import Collection
from pathlib import Path

from .errors import DataError

__all__ = ["is_missing", "one_hot_label", "read_table"]

_MISSING = {"", "?", "n/a", "na", "nan", "none", "null", "-"}
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def is_missing(value: str) -> bool:
    """Whether a cell says that nothing is known: empty, ``nan``, ``NA``, ``?`` and the like."""
    return value.strip().lower() in _MISSING


def read_table(path: Path, columns: Collection[str] = (), encoding: str = "utf-8") -> list[dict[str, str]]:
    """Rows of a CSV file as dictionaries, without spaces around names and values.

    Columns are separated by the comma, semicolon or tab that the first line has most of.

    Args:
        path: the file.
        columns: names of columns that must be there.
        encoding: of the text.

    Raises:
        DataError: no such file or columns, a wrong encoding, no rows, rows of another length; names file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    text = _decode(path, encoding)
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, columns, path)
        rows = []
        for values in reader:
            if any(value.strip() for value in values):
                if len(values) != len(header):
                    count = f"{len(values)} values for {len(header)} columns"
                    raise DataError(f"{path}, line {reader.line_num}: {count}")
                rows.append({name: value.strip() for name, value in zip(header, values)})
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    if not rows:
        raise DataError(f"{path}: no rows")
    return rows


def _decode(path: Path, encoding: str) -> str:
    raw = path.read_bytes()
    if raw.startswith(_BYTE_ORDER_MARKS) and "16" not in encoding:
        raise DataError(f"{path}: the file is UTF-16, not {encoding}; save it as UTF-8, or give --data.encoding utf-16")
    try:
        text = raw.decode("utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding)
    except LookupError as error:
        raise DataError(f"--data.encoding {encoding}: no such encoding") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not {encoding}; save the file as UTF-8, or name its "
            "encoding, as in --data.encoding latin-1"
        ) from error
    if "\0" in text:
        raise DataError(
            f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a zero byte; this is no CSV file"
        )
    return text


def _check_header(header: list[str], columns: Collection[str], path: Path) -> None:
    absent = sorted(set(columns) - set(header))
    if absent:
        raise DataError(f"{path}: no column {', '.join(absent)}; it has {', '.join(header)}")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: more than one column is called {', '.join(map(repr, twice))}")


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
