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

    Columns are separated by the comma, semicolon or tab that finds all of ``columns`` in the first line, else by the
    one that this line has most of.

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
    delimiter = _delimiter(text, columns)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    header: list[str] = []
    line = 1
    try:
        for values in reader:
            cells = [value.strip() for value in values]
            if not header and any(cells):
                header = cells
                _check_header(header, columns, f"{path}, line {line}")
            elif any(cells):
                if len(cells) != len(header):
                    raise DataError(f"{path}, line {line}: {len(cells)} values for {len(header)} columns")
                rows.append(dict(zip(header, cells)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, row from line {line} on: not CSV ({error}); is a quote unclosed?") from error
    if not rows:
        raise DataError(f"{path}: no rows")
    return rows


def _delimiter(text: str, columns: Collection[str]) -> str:
    first = text.lstrip().split("\n", 1)[0]

    def fit(delimiter: str) -> tuple[bool, int]:
        names = {name.strip().strip('"').strip() for name in first.split(delimiter)}
        return bool(columns) and set(columns) <= names, first.count(delimiter)

    return max(",;\t", key=fit)


def _decode(path: Path, encoding: str) -> str:
    raw = path.read_bytes()
    if raw.startswith(_BYTE_ORDER_MARKS) and "16" not in encoding:
        raise DataError(f"{path}: the file is UTF-16, not {encoding}; save it as UTF-8, or give --data.encoding utf-16")
    try:
        text = raw.decode(encoding)
    except LookupError as error:
        raise DataError(f"--data.encoding {encoding}: no such encoding") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is not {encoding}; save the file as UTF-8, "
            "or name its encoding, as in --data.encoding latin-1"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"{path}, line {line}: a zero byte, read as {encoding}; this is no CSV file, or one in UTF-16 without its "
            "mark (--data.encoding utf-16-le)"
        )
    return text.removeprefix("\ufeff")


def _check_header(header: list[str], columns: Collection[str], where: str) -> None:
    absent = sorted(set(columns) - set(header))
    if absent:
        raise DataError(f"{where}: no column {', '.join(absent)}; it has {', '.join(header)}")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{where}: more than one column is called {', '.join(map(repr, twice))}")


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
