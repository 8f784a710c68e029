"""Any corpus as a CSV file: one row per clip, errors told by their row."""

import csv
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ser_jax.audio import load_int16
from ser_jax.config import DataConfig
from ser_jax.corpora.grammars import ATTRIBUTES, Facts
from ser_jax.corpora.labels import find_class, make_table
from ser_jax.corpora.sources import Clip, Listing, Source, describe_file, hash_values
from ser_jax.errors import UserError, check

_REQUIRED = ("path", "emotion", "speaker")
_GENDERS = {"f": "female", "m": "male", "woman": "female", "man": "male"}


def find_manifest(data: DataConfig) -> Source:
    """The clips that the CSV file `data.root` lists; their paths are relative to its folder.

    Rows count from 1, the head being row 1, as in a spreadsheet.

    Raises:
      UserError: the file is missing, empty, no UTF-8 text or no CSV; a column is missing; a row
        lacks a value, names a file that is missing or that another row names, or an emotion that is
        not in the table of labels.
    """
    path = Path(data.root or "").expanduser()
    rows = list(_read_rows(path))
    check(len(rows) > 0, f"{path}: holds no clips; write a row for each below the head")
    table = make_table(data.labels)
    first: dict[Path, int] = {}
    clips = []
    for number, row in rows:
        where = f"{path}: row {number}"
        for column in _REQUIRED:
            check(row.get(column, "") != "", f"{where}: has no {column}; fill it in")
        find_class(table, row["emotion"], where)
        file = path.parent / Path(row["path"]).expanduser()
        check(
            file.is_file(),
            f"{where}: path={row['path']}: no such file ({file}); paths are relative to the "
            "folder of the manifest; correct it or delete the row",
        )
        known = first.setdefault(file.resolve(), number)
        check(
            known == number,
            f"{where}: path={row['path']}: stands in row {known} already; delete one of the two",
        )
        facts = _read_facts(row)
        clips.append(Clip(row["path"], partial(load_int16, file, data.rate_hz), facts, where))
    files = [describe_file(path.parent / clip.file_name, path.parent) for clip in clips]
    fingerprint = hash_values(
        [[file, *vars(clip.facts).values()] for file, clip in zip(files, clips, strict=True)]
    )
    listing = Listing(sorted(clips, key=lambda clip: clip.file_name), {})
    return Source(fingerprint, lambda: listing)


def list_words(data: DataConfig) -> list[str]:
    """The words for emotions in a manifest, each once."""
    clips = find_manifest(data).list_clips().clips
    return list(dict.fromkeys(clip.facts.emotion for clip in clips))


def _read_facts(row: dict[str, str]) -> Facts:
    values = {name: row.get(name, "") for name in ATTRIBUTES}
    gender = values["gender"].lower()
    values["gender"] = _GENDERS.get(gender, gender)
    speaker = row["speaker"]
    if values["corpus"]:  # corpora number their speakers alike
        speaker = f"{values['corpus']}/{speaker}"
    return Facts(row["emotion"], speaker, **values)


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their numbers, as dictionaries; empty ones are passed over."""
    text = _read_text(path)
    head, *_ = text.splitlines() or [""]
    check(bool(text.strip()), f"{path}: is empty; its head is path,emotion,speaker")
    delimiter = max(",;\t", key=head.count)  # spreadsheets write all three
    rows = enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), 1)
    columns: list[str] = []
    try:
        for number, cells in rows:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = _check_head(path, number, cells)
                continue
            check(
                len(cells) == len(columns),
                f"{path}: row {number}: has {len(cells)} values, but the head names "
                f"{len(columns)} columns; quote values that hold a {delimiter!r}",
            )
            yield number, dict(zip(columns, cells, strict=True))
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


def _check_head(path: Path, number: int, cells: list[str]) -> list[str]:
    columns = [cell.lower() for cell in cells]
    missing = [name for name in _REQUIRED if name not in columns]
    check(
        not missing,
        f"{path}: row {number}: the head lacks {', '.join(missing)} (it names "
        f"{', '.join(cells)[:200]}); columns are {', '.join(_REQUIRED)} and, where known, "
        f"{', '.join(ATTRIBUTES)}",
    )
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    check(not twice, f"{path}: row {number}: names {', '.join(twice)} twice; rename one")
    return columns
