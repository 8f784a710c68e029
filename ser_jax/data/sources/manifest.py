"""Any corpus as a CSV file with one row per clip; errors name the row."""

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ser_jax.audio.reading import load_clip, measure_audio
from ser_jax.config import DataConfig
from ser_jax.data.labels import check_words
from ser_jax.data.sources.filenames import ATTRIBUTES, Facts
from ser_jax.data.sources.listing import Clip, Listing
from ser_jax.data.sources.manifest_cells import find_files, read_cells, warn_of_spellings
from ser_jax.errors import UserError, check, count_noun, warn_once
from ser_jax.files.atomic import expand
from ser_jax.files.csv_rows import Row, read_rows

_REQUIRED = ("path", "emotion", "speaker")
_OPTIONAL = (*ATTRIBUTES, "start", "end")
_GENDERS = {
    "f": "female", "woman": "female", "female_feminine": "female",  # Common Voice's words
    "m": "male", "man": "male", "male_masculine": "male",
}  # fmt: skip
_PARTS = {
    "train": "train", "training": "train", "trn": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "devel": "val",
    "development": "val",
    "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
_EVAL = ("eval", "evaluation")  # validation where another part is the test, else the test
_SPARE_S = 0.1  # a segment may end this much after its file without a warning, as if rounded


def list_manifest(data: DataConfig) -> Listing:
    """The clips that the CSV file `data.root` lists; their paths are relative to its folder.

    Rows count from 1, which is the header, as in a spreadsheet. A row with `start` and `end`, in
    seconds, is a segment of its file.

    Raises:
      UserError: the file is missing, empty, not UTF-8 text or not CSV; a column is missing; a row
        lacks a value, names a missing file, names what another row names, or has an unknown split;
        emotions outside the label table; a speaker of two genders.
    """
    path = expand(data.root or "")
    check(
        path.exists() and not path.is_dir(),
        f"data.root={path}: {'is a folder' if path.exists() else 'no such file'}; with "
        "data.corpus=manifest give the CSV file",
    )
    rows = read_rows(path, _REQUIRED, _OPTIONAL)
    check(len(rows) > 0, f"{path}: holds no clips; write a row for each below the header")
    for row in rows:
        for column in _REQUIRED:
            check(row.get(column) != "", f"{row.where}: has no {column}; fill it in")
    rows = _drop_repeated(read_cells(rows, _OPTIONAL), data.strict)
    check_words(data.labels, [row.get("emotion") for row in rows], path, [r.number for r in rows])
    warn_of_spellings(path, rows)
    parts = _read_parts(path, rows, needed=data.protocol == "given")
    files = find_files(path.parent, rows)
    clips = [_make_clip(*one, data) for one in zip(rows, files, parts, strict=True)]
    _check_once(rows, clips)
    clips = _check_spans(rows, clips)
    _check_genders(path, rows, clips)
    return Listing(sorted(clips, key=lambda clip: clip.file_name), {})


def _drop_repeated(rows: Sequence[Row], strict: bool) -> list[Row]:
    """The rows without those that say the same as an earlier row."""
    first: dict[tuple[str, ...], Row] = {}
    again: list[Row] = []
    for row in rows:
        if first.setdefault(tuple(map(row.get, (*_REQUIRED, *_OPTIONAL))), row) is not row:
            again.append(row)
    if again:
        more = f", as do {len(again) - 1} more" if len(again) > 1 else ""
        said = f"{again[0].where}: path={again[0].get('path')}: repeats a row above{more}"
        check(not strict, f"{said} (data.strict=true; otherwise such rows are left out)")
        warn_once(f"{said}; {'they are' if more else 'it is'} left out")
    return list(first.values())


def _make_clip(row: Row, file: Path, part: str, data: DataConfig) -> Clip:
    name = row.get("path")
    facts = _read_facts(row, part)
    start, end = row.get("start"), row.get("end")
    if not start and not end:
        return Clip(name, partial(load_clip, file, data.rate_hz), facts, row.where, file)
    part_s = (_read_seconds(row, "start", 0.0), _read_seconds(row, "end", np.inf))
    check(
        0 <= part_s[0] < part_s[1],
        f"{row.where}: start={start}, end={end}: a segment starts at 0 s or later and before "
        "its end; correct it",
    )
    load = partial(_load_segment, file, data.rate_hz, *part_s)
    return Clip(f"{name}#{start or 0}-{end}", load, facts, row.where, file, part_s)


def _load_segment(file: Path, rate_hz: int, start_s: float, end_s: float) -> np.ndarray:
    """A segment of a file, int16 [N]."""
    length_s = None if np.isinf(end_s) else end_s - start_s
    return load_clip(file, rate_hz, length_s, start_s)


def _read_seconds(row: Row, column: str, default: float) -> float:
    text = row.get(column)
    try:
        seconds = float(text.replace(",", ".")) if text else default
    except ValueError:
        seconds = np.nan
    check(
        not np.isnan(seconds),
        f"{row.where}: {column}={text}: is not a number of seconds; correct it",
    )
    return seconds


def _read_parts(path: Path, rows: Sequence[Row], *, needed: bool) -> list[str]:
    """Each row's part by its column `split`: train, val, test, or empty where there is none."""
    words = [row.get("split").lower() for row in rows]
    has_test = any(_PARTS.get(word) == "test" for word in words)
    known = _PARTS | dict.fromkeys(_EVAL, "val" if has_test else "test")
    if needed:
        for row, word in zip(rows, words, strict=True):
            check(word != "", f"{row.where}: has no split; fill it in")
        unknown = Counter(word for word in words if word not in known)
        said = ", ".join(f"{word} ({count_noun(count, 'row')})" for word, count in unknown.items())
        check(
            not unknown,
            f"{path}: split: unknown: {said}; known are train, val (validation, dev) and test; "
            "correct them, or choose another data.protocol",
        )
    return [known.get(word, "") for word in words]


def _read_facts(row: Row, part: str) -> Facts:
    values = {name: row.get(name) for name in ATTRIBUTES}
    gender = values["gender"].lower()
    values["gender"] = _GENDERS.get(gender, gender)
    values["split"] = part
    speaker = row.get("speaker")
    if values["corpus"]:  # each corpus numbers its speakers from 1
        speaker = f"{values['corpus']}/{speaker}"
    return Facts(row.get("emotion"), speaker, **values)


def _check_once(rows: Sequence[Row], clips: Sequence[Clip]) -> None:
    """Raise if two rows name the same file, or the same segment of it."""
    first: dict[tuple, Row] = {}
    again: list[tuple[Row, Clip, Row]] = []
    for row, clip in zip(rows, clips, strict=True):
        known = first.setdefault((clip.path, clip.part_s), row)
        if known is not row:
            again.append((row, clip, known))
    if not again:
        return
    row, clip, known = again[0]
    what = f"path={row.get('path')}"
    remedy = "delete one of the two"
    if clip.part_s is None:
        remedy += ", or give their segments of the file in columns start and end"
    else:
        what += f", start={row.get('start')}, end={row.get('end')}"
    where = f"row {known.number} already"
    if known.get("path") != row.get("path"):  # another spelling, or a link
        where += f" as path={known.get('path')}"
    if len(again) > 1:
        where += f", as do {len(again) - 1} more files"
    raise UserError(f"{row.where}: {what}: appears in {where}; {remedy}")


def _check_spans(rows: Sequence[Row], clips: Sequence[Clip]) -> list[Clip]:
    """The clips, of which a segment that starts after its file's end fails to load; warns of
    segments that only end after it. A file that cannot be read reports so when it is loaded."""

    @functools.cache
    def measure(file: Path) -> float:
        try:
            return measure_audio(file)
        except UserError:
            return np.inf

    checked: list[Clip] = []
    late: list[str] = []
    for row, clip in zip(rows, clips, strict=True):
        if clip.part_s is not None and clip.path is not None:
            (start_s, end_s), length_s = clip.part_s, measure(clip.path)
            span = f"{row.where}: start={start_s:g}, end={end_s:g}"
            said = f"{span}: {row.get('path')} lasts {length_s:.3f} s"
            if start_s >= length_s:
                clip = clip._replace(load=partial(_raise_beyond, said))
            elif length_s + _SPARE_S < end_s < np.inf:
                late.append(said)
        checked.append(clip)
    if late:
        ends = (
            "rows end after their files; they are"
            if len(late) > 1
            else "row ends after its file; it is"
        )
        warn_once(f"{len(late)} {ends} cut there; the first: {late[0]}")
    return checked


def _raise_beyond(said: str) -> np.ndarray:
    raise UserError(f"{said}; times are in seconds; correct them")


def _check_genders(path: Path, rows: Sequence[Row], clips: Sequence[Clip]) -> None:
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row, clip in zip(rows, clips, strict=True):
        if clip.facts.gender:
            found[clip.facts.speaker].setdefault(clip.facts.gender, row.number)
    for speaker, genders in found.items():
        said = " and ".join(f"{gender} in row {number}" for gender, number in genders.items())
        check(
            len(genders) < 2,
            f"{path}: speaker={speaker}: is {said}; correct one, or give two speakers two names",
        )
