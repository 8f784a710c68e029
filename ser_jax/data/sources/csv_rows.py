"""Rows of a CSV file as people's programs write them, errors told by their row."""

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
_SEP = re.compile(r"\"?sep=([,;\t])\"?[,;\t]*\s*", re.IGNORECASE)  # Excel's own line above the head


class Row(NamedTuple):
    """A row of a CSV file.

    Attributes:
      where: file and row, for messages.
      number: of the row, the head being 1.
      values: by column.
    """

    where: str
    number: int
    values: dict[str, str]

    def get(self, column: str) -> str:
        """The value of a column, empty where there is none."""
        return self.values.get(column, "")


def read_rows(path: Path, required: Sequence[str], known: Sequence[str]) -> list[Row]:
    """The rows of a CSV file; empty ones are passed over.

    Args:
      path: of the file: UTF-8, or UTF-16 that says so; comma, semicolon or tab.
      required, known: columns that must be there, and those that may.

    Raises:
      UserError: no such file, no such text, no CSV; a column that is missing or stands twice; a
        quote that opens and takes rows up to the next one into a cell.
    """
    text = _read_text(path)
    check(bool(text.strip()), f"{path}: is empty; its head is {','.join(required)}")
    lines = list(io.StringIO(text, newline=""))
    first = next(place for place, line in enumerate(lines) if line.strip())
    delimiter = max(_DELIMITERS, key=lines[first].count)
    if named := _SEP.fullmatch(lines[first]):
        delimiter, lines[first] = named[1], "\n"
    swallowed = _find_swallowed(lines, delimiter)
    check(
        swallowed is None or delimiter == "\t",  # of which many programs quote nothing
        f"{path}: row {swallowed}: a quote opens here that takes what follows into its cell; "
        "write quotes within a cell twice, or take this one out",
    )
    quoting = csv.QUOTE_MINIMAL if swallowed is None else csv.QUOTE_NONE
    try:
        cells = list(csv.reader(lines, delimiter=delimiter, quoting=quoting))
    except csv.Error as error:
        raise UserError(f"{path}: is not CSV: {error}; export it again") from error
    if quoting == csv.QUOTE_NONE:
        cells = [[cell.strip().strip('"') for cell in row] for row in cells]
    return _make_rows(path, cells, delimiter, required, known)


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
        values = [cell.strip() for cell in row]
        if not any(values):
            continue
        if not columns:
            columns = _check_head(path, number, values, required, known)
            continue
        if len(values) > len(columns) and not any(values[len(columns) :]):
            values = values[: len(columns)]  # spreadsheets write cells that once were filled
        remedy = f"quote values that hold a {delimiter!r}"
        if len(values) < len(columns):
            remedy = f"write a {delimiter!r} for each, also where a value is empty"
        check(
            len(values) == len(columns),
            f"{path}: row {number}: has {len(values)} values, but the head names "
            f"{len(columns)} columns; {remedy}",
        )
        rows.append(Row(f"{path}: row {number}", number, dict(zip(columns, values, strict=True))))
    return rows


def _find_swallowed(lines: Sequence[str], delimiter: str) -> int | None:
    """The first row in which a quote opens that is none: of which each line would be a whole row,
    were its quotes mere text."""
    reader = csv.reader(lines, delimiter=delimiter)
    number, n_columns, before = 0, 0, 0
    while before < len(lines):
        number += 1
        try:
            cells = next(reader)
        except csv.Error:  # a cell beyond the limit of a cell's length
            cells = []
        n_columns = n_columns or len(cells)
        own, before = lines[before : reader.line_num], reader.line_num
        if len(own) > 1 or 0 < len(cells) < n_columns:
            plain = csv.reader(own, delimiter=delimiter, quoting=csv.QUOTE_NONE)
            if all(len(row) == n_columns for row in plain if row):
                return number
    return None


def _read_text(path: Path) -> str:
    check(
        path.exists() and not path.is_dir(),
        f"data.root={path}: {'is a folder' if path.exists() else 'no such file'}; with "
        "data.corpus=manifest give the CSV file",
    )
    try:
        content = path.read_bytes()
        return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}: row {row}: is not UTF-8 text; save the file as CSV in UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}; check its permissions") from error


def _check_head(
    path: Path, number: int, cells: list[str], required: Sequence[str], known: Sequence[str]
) -> list[str]:
    columns = [cell.lower() for cell in cells]
    missing = [name for name in required if name not in columns]
    check(
        not missing,
        f"{path}: row {number}: the head lacks {', '.join(missing)} (it names "
        f"{', '.join(cells)[:200]}); columns are {', '.join(required)} and, where known, "
        f"{', '.join(known)}",
    )
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    check(not twice, f"{path}: row {number}: names {', '.join(twice)} twice; rename one")
    return columns
