"""What a manifest's cells mean, however other programs and systems write them."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

from ser_jax.config.paths import is_url
from ser_jax.errors import UserError, check, warn_once
from ser_jax.files.atomic import expand
from ser_jax.files.csv_rows import Row

_BLANKS = {"nan", "<na>", "na", "n/a", "#n/a", "nat", "none", "null", "unknown", "-", "?"}
_NAMELESS = {"nan", "<na>", "#n/a", "nat", "none", "null"}  # na may be a person's initials
_SHOWN = 3  # names in a line


def read_cells(rows: Iterable[Row], optional: Sequence[str]) -> list[Row]:
    """The rows in Unicode's composed form (NFC), except paths; optional cells that hold a program's
    word for an empty cell, such as 'nan', become empty.

    Raises:
      UserError: a speaker that is such a word.
    """
    cleaned = []
    for row in rows:
        values = {}
        for column, value in row.values.items():
            if column != "path":
                value = unicodedata.normalize("NFC", value)
            values[column] = "" if column in optional and value.lower() in _BLANKS else value
        check(
            values.get("speaker", "").lower() not in _NAMELESS,
            f"{row.where}: speaker={values.get('speaker')}: stands for an empty cell; fill it in",
        )
        cleaned.append(row._replace(values=values))
    return cleaned


def find_files(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """The file of each row's `path`, even if written with backslashes or composed differently.

    Args:
      folder: base of relative paths.
      rows: of a manifest.

    Raises:
      UserError: files are missing; the message names the first and counts them.
    """
    found = [_find_file(folder, row.get("path")) for row in rows]
    missing = [row for row, file in zip(rows, found, strict=True) if file is None]
    if missing:
        row, name = missing[0], missing[0].get("path")
        more = f", as with {len(missing) - 1} more rows" if len(missing) > 1 else ""
        raise UserError(
            f"{row.where}: path={name}: no such file ({folder / expand(name)}){more}; "
            f"{_find_remedy(folder, name)}"
        )
    return [file for file in found if file is not None]


def _find_file(folder: Path, name: str) -> Path | None:
    for path in _list_spellings(name):
        file = folder / expand(path)
        if file.is_file():
            return file.resolve()
    return None


def _list_spellings(name: str) -> list[str]:
    spelt = [name, name.replace("\\", "/")]
    spelt += [unicodedata.normalize(form, one) for form in ("NFC", "NFD") for one in spelt]
    return list(dict.fromkeys(spelt))


def _find_remedy(folder: Path, name: str) -> str:
    if is_url(name):
        return "URLs are not downloaded; download them first, and give the files' paths"
    if PureWindowsPath(name).drive:
        return "this is a Windows path; give paths relative to the folder of the manifest"
    file = folder / expand(name.replace("\\", "/"))
    if file.parent.is_dir():
        for other in file.parent.iterdir():
            if other.name.casefold() == file.name.casefold():
                return f"there is {other.name}; use the same letter case"
    return "paths are relative to the folder of the manifest; correct it or delete the row"


def warn_of_spellings(path: Path, rows: Iterable[Row]) -> None:
    """Warn of speakers whose names differ only in letter case, leading zeros or a trailing `.0`, as
    spreadsheets add them: the same person in training and test makes the test easier.

    Args:
      path: of the manifest.
      rows: of it.
    """
    spelt: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for row in rows:
        name = row.get("speaker")
        spelt[row.get("corpus"), _simplify(name)][name] = None
    several = [names for names in spelt.values() if len(names) > 1]
    if several:
        said = "; ".join(", ".join(names) for names in several[:_SHOWN])
        more = f" and {len(several) - _SHOWN} more" if len(several) > _SHOWN else ""
        warn_once(
            f"{path}: speaker: {said}{more}: count as different people, so one may be in training "
            "and another in the test; if they are the same person, spell them alike"
        )


def _simplify(name: str) -> str:
    name = re.sub(r"[\s_-]+", " ", name.casefold())
    name = re.sub(r"(?<=\d)\.0+$", "", name)
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)
