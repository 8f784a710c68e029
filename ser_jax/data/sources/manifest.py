"""Any corpus as a CSV file: one row per clip, errors told by their row."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ser_jax.audio.reading import load_clip, measure_audio
from ser_jax.config import DataConfig
from ser_jax.data.labels import check_words
from ser_jax.data.sources.csv_rows import Row, read_rows
from ser_jax.data.sources.filenames import ATTRIBUTES, Facts
from ser_jax.data.sources.listing import Clip, Listing
from ser_jax.data.sources.manifest_cells import find_files, read_cells, warn_of_spellings
from ser_jax.errors import UserError, check, count_noun, warn_once
from ser_jax.files.atomic import expand

REQUIRED = ("path", "emotion", "speaker")
_SPAN = ("start", "end")
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
_EVAL = ("eval", "evaluation")  # means test beside dev, and validation beside test
_SPARE_S = 0.1  # by which a segment's end may lie beyond its file's without a word, as if rounded


def list_manifest(data: DataConfig) -> Listing:
    """The clips that the CSV file `data.root` lists; their paths are relative to its folder.

    Rows count from 1, the head being row 1, as in a spreadsheet. Rows with `start` and `end`,
    seconds, are parts of their files.

    Raises:
      UserError: the file is missing, empty, no UTF-8 text or no CSV; a column is missing; a row
        lacks a value, names a file that is missing or what another row names, an unknown
        split; emotions that are not in the table of labels; a speaker of two genders.
    """
    path = expand(data.root or "")
    rows = read_rows(path, REQUIRED, (*ATTRIBUTES, *_SPAN))
    check(len(rows) > 0, f"{path}: holds no clips; write a row for each below the head")
    for row in rows:
        for column in REQUIRED:
            check(row.get(column) != "", f"{row.where}: has no {column}; fill it in")
    rows = _leave_out_repeated(path, read_cells(rows, (*ATTRIBUTES, *_SPAN)), data)
    check_words(data.labels, [row.get("emotion") for row in rows], path, [r.number for r in rows])
    warn_of_spellings(path, rows)
    parts = _read_parts(path, rows, needed=data.protocol == "given")
    files = find_files(path.parent, rows)
    clips = [_make_clip(*one, data) for one in zip(rows, files, parts, strict=True)]
    _check_once(rows, clips)
    clips = _hold_parts(rows, clips)
    _check_genders(path, rows, clips)
    return Listing(sorted(clips, key=lambda clip: clip.file_name), {})


def _leave_out_repeated(path: Path, rows: Sequence[Row], data: DataConfig) -> list[Row]:
    """The rows without those that say of a clip what a row above has said of it."""
    first: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first.setdefault(tuple(map(row.get, (*REQUIRED, *ATTRIBUTES, *_SPAN))), row)
    kept = list(first.values())
    if n_repeated := len(rows) - len(kept):
        numbers = {row.number for row in kept}
        again = next(row for row in rows if row.number not in numbers)
        is_one = n_repeated == 1
        said = (
            f"{again.where}: path={again.get('path')}: repeats a row above"
            f"{'' if is_one else f', as do {n_repeated - 1} more'}"
        )
        check(not data.strict, f"{said} (data.strict=true; without it such rows are left out)")
        warn_once(f"{said}; {'it is' if is_one else 'they are'} left out")
    return kept


def _make_clip(row: Row, file: Path, part: str, data: DataConfig) -> Clip:
    name = row.get("path")
    facts = _read_facts(row, part)
    start, end = row.get("start"), row.get("end")
    if not start and not end:
        return Clip(name, partial(load_clip, file, data.rate_hz), facts, row.where, file)
    part_s = (_read_seconds(row, "start", 0.0), _read_seconds(row, "end", np.inf))
    check(
        0 <= part_s[0] < part_s[1],
        f"{row.where}: start={start}, end={end}: a part starts at 0 s or later and before its end; "
        "correct it",
    )
    load = partial(_load_part, file, data.rate_hz, *part_s)
    return Clip(f"{name}#{start or 0}-{end}", load, facts, row.where, file, part_s)


def _load_part(file: Path, rate_hz: int, start_s: float, end_s: float) -> np.ndarray:
    """Part of a file, int16 [N]."""
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
    """Of each row train, val or test by its column `split`; empty where there is none."""
    words = [row.get("split").lower() for row in rows]
    if not any(words) and not needed:
        return words
    known = dict(_PARTS)
    has_test = any(_PARTS.get(word) == "test" for word in words)
    known |= dict.fromkeys(_EVAL, "val" if has_test else "test")
    if not needed and "" in words:
        known[""] = ""
    for row, word in zip(rows, words, strict=True):
        check(word != "" or not needed, f"{row.where}: has no split; fill it in")
    unknown = Counter(word for word in words if word not in known)
    said = ", ".join(f"{word} ({count_noun(count, 'row')})" for word, count in unknown.items())
    check(
        not unknown or not needed,
        f"{path}: split: unknown: {said}; known are train, val (validation, dev) and test; correct "
        "them, or take another data.protocol",
    )
    return [known.get(word, "") for word in words]


def _read_facts(row: Row, part: str) -> Facts:
    values = {name: row.get(name) for name in ATTRIBUTES}
    gender = values["gender"].lower()
    values["gender"] = _GENDERS.get(gender, gender)
    values["split"] = part
    speaker = row.get("speaker")
    if values["corpus"]:  # corpora number their speakers alike
        speaker = f"{values['corpus']}/{speaker}"
    return Facts(row.get("emotion"), speaker, **values)


def _check_once(rows: Sequence[Row], clips: Sequence[Clip]) -> None:
    """Raise where two rows name one file, or one part of it."""
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
    if clip.part_s is not None:
        what += f", start={row.get('start')}, end={row.get('end')}"
    where = f"row {known.number} already"
    if known.get("path") != row.get("path"):  # spelt otherwise, or a link to it
        where += f" as path={known.get('path')}"
    if len(again) > 1:
        where += f", as do {len(again) - 1} more files"
    remedy = "delete one of the two"
    if clip.part_s is None:
        remedy += ", or give their parts of the file in columns start and end"
    raise UserError(f"{row.where}: {what}: stands in {where}; {remedy}")


def _hold_parts(rows: Sequence[Row], clips: Sequence[Clip]) -> list[Clip]:
    """The clips, held against their files' lengths: a part that begins beyond its file's end cannot
    be read, and of one that only ends there a warning tells.

    What cannot be read is told when it is.
    """
    lengths: dict[Path, float] = {}
    held = list(clips)
    beyond: list[str] = []
    for place, (row, clip) in enumerate(zip(rows, clips, strict=True)):
        if clip.part_s is None or clip.path is None:
            continue
        if clip.path not in lengths:
            try:
                lengths[clip.path] = measure_audio(clip.path)
            except UserError:
                lengths[clip.path] = np.inf
        start_s, end_s = clip.part_s
        length_s = lengths[clip.path]
        said = (
            f"{row.where}: start={start_s:g}, end={end_s:g}: {row.get('path')} lasts "
            f"{length_s:.3f} s"
        )
        if start_s >= length_s:
            held[place] = clip._replace(load=partial(_raise_beyond, said))
        elif end_s > length_s + _SPARE_S and not np.isinf(end_s):
            beyond.append(said)
    if beyond:
        one = len(beyond) == 1
        count = f"{len(beyond)} {'row ends' if one else 'rows end'}"
        cut = f"beyond the file and {'is' if one else 'are'} cut there"
        warn_once(f"{count} {cut}; the first: {beyond[0]}")
    return held


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
