"""Rows of a CSV file as spreadsheets write them; errors name the row."""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ser_jax.errors import UserError, check

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # Excel's "Unicode Text"
_DELIMITERS = ",;\t"  # spreadsheets write all three
_SEP = re.compile(r"\"?sep=([,;\t])\"?[,;\t]*\s*", re.IGNORECASE)  # Excel's line above the header


class Row(NamedTuple):
    """A row of a CSV file.

    Attributes:
      where: file and row, for messages.
      number: of the row; the header is row 1.
      values: by column.
    """

    where: str
    number: int
    values: dict[str, str]

    def get(self, column: str) -> str:
        """The value of a column, empty where there is none."""
        return self.values.get(column, "")


def read_columns(path: Path) -> list[str]:
    """The columns that the header of a CSV file names, in lower case; empty if unreadable."""
    try:
        with path.open("rb") as file:
            lines, delimiter = _split_lines(_decode(file.read(2**16), "ignore"))
        rows = csv.reader(lines, delimiter=delimiter)
        heads = ([cell.strip().lower() for cell in row] for row in rows)
        return next(filter(any, heads), [])
    except (OSError, csv.Error):
        return []


def read_rows(path: Path, required: Sequence[str], known: Sequence[str]) -> list[Row]:
    """The rows of a CSV file without the empty ones.

    Args:
      path: of the file: UTF-8, or UTF-16 with a byte-order mark; comma, semicolon or tab.
      required, known: columns that must be there, and those that may.

    Raises:
      UserError: no such file, not text, not CSV; a column that is missing or appears twice; a
        stray quote that takes the next rows into its cell.
    """
    try:
        lines, delimiter = _split_lines(_decode(path.read_bytes()))
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}: row {row}: is not UTF-8 text; save the file as CSV in UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}; check its permissions") from error
    check(any(map(str.strip, lines)), f"{path}: is empty; its header is {','.join(required)}")
    stray = _find_stray_quote(lines, delimiter)
    check(
        stray is None or delimiter == "\t",  # many programs quote nothing between tabs
        f"{path}: row {stray}: a quote opens here and takes the rows after it into its cell; "
        "double quotes within a cell, or delete this one",
    )
    quoting = csv.QUOTE_MINIMAL if stray is None else csv.QUOTE_NONE
    try:
        cells = list(csv.reader(lines, delimiter=delimiter, quoting=quoting))
    except csv.Error as error:
        raise UserError(f"{path}: is not CSV: {error}; export it again") from error
    if quoting == csv.QUOTE_NONE:
        cells = [[cell.strip().strip('"') for cell in row] for row in cells]
    return _make_rows(path, cells, delimiter, required, known)


def _decode(content: bytes, errors: str = "strict") -> str:
    return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig", errors)


def _split_lines(text: str) -> tuple[list[str], str]:
    """The lines, Excel's own emptied, and their delimiter."""
    lines = list(io.StringIO(text, newline=""))
    first = next((place for place, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return lines, ","
    if named := _SEP.fullmatch(lines[first]):
        lines[first] = "\n"
        return lines, named[1]
    return lines, max(_DELIMITERS, key=lines[first].count)


def _find_stray_quote(lines: Sequence[str], delimiter: str) -> int | None:
    """The first row that a stray quote opens: read without quoting, each of its lines would be a
    complete row."""
    reader = csv.reader(lines, delimiter=delimiter)
    number, n_columns, before = 0, 0, 0
    while before < len(lines):
        number += 1
        try:
            cells = next(reader)
        except csv.Error:  # a cell longer than csv allows
            cells = []
        n_columns = n_columns or len(cells)
        own, before = lines[before : reader.line_num], reader.line_num
        if len(own) > 1 or 0 < len(cells) < n_columns:
            plain = csv.reader(own, delimiter=delimiter, quoting=csv.QUOTE_NONE)
            if all(len(row) == n_columns for row in plain if row):
                return number
    return None


def _make_rows(
    path: Path,
    cells: Sequence[Sequence[str]],
    delimiter: str,
    required: Sequence[str],
    known: Sequence[str],
) -> list[Row]:
    rows: list[Row] = []
    columns: list[str] = []
    for number, row in enumerate(cells, 1):
        where, values = f"{path}: row {number}", [cell.strip() for cell in row]
        if not any(values):
            continue
        if not columns:
            columns = _check_header(where, values, required, known)
            continue
        if not any(values[len(columns) :]):
            values = values[: len(columns)]  # spreadsheets write cells that were once filled
        remedy = f"quote values that hold a {delimiter!r}"
        if len(values) < len(columns):
            remedy = f"write a {delimiter!r} for each column, even where its value is empty"
        check(
            len(values) == len(columns),
            f"{where}: has {len(values)} values, but the header names {len(columns)} columns; "
            f"{remedy}",
        )
        rows.append(Row(where, number, dict(zip(columns, values, strict=True))))
    return rows


def _check_header(
    where: str, cells: Sequence[str], required: Sequence[str], known: Sequence[str]
) -> list[str]:
    columns = [cell.lower() for cell in cells]
    missing = [name for name in required if name not in columns]
    check(
        not missing,
        f"{where}: the header lacks {', '.join(missing)} (it names {', '.join(cells)[:200]}); "
        f"columns are {', '.join(required)} and, where known, {', '.join(known)}",
    )
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    check(not twice, f"{where}: names {', '.join(twice)} twice; rename one")
    return columns
