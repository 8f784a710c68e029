"""Rows of a CSV file as people's programs write them, errors told by their row."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ser_jax.errors import UserError, check


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


def read_rows(path: Path, required: Sequence[str], known: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV file; empty ones are passed over.

    Args:
      path: of the file: UTF-8; comma, semicolon or tab.
      required, known: columns that must be there, and those that may.

    Raises:
      UserError: no such file, no UTF-8 text, no CSV; a column that is missing or stands twice.
    """
    text = _read_text(path)
    head, *_ = text.splitlines() or [""]
    check(bool(text.strip()), f"{path}: is empty; its head is {','.join(required)}")
    delimiter = max(",;\t", key=head.count)  # spreadsheets write all three
    rows = enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), 1)
    columns: list[str] = []
    try:
        for number, cells in rows:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = _check_head(path, number, cells, required, known)
                continue
            check(
                len(cells) == len(columns),
                f"{path}: row {number}: has {len(cells)} values, but the head names "
                f"{len(columns)} columns; quote values that hold a {delimiter!r}",
            )
            yield Row(f"{path}: row {number}", number, dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}: is not CSV: {error}; export it again") from error


def _read_text(path: Path) -> str:
    check(
        path.exists() and not path.is_dir(),
        f"data.root={path}: {'is a folder' if path.exists() else 'no such file'}; with "
        "data.corpus=manifest give the CSV file",
    )
    try:
        return path.read_bytes().decode("utf-8-sig")
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
