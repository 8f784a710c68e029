"""The store of a corpus on disk: built once, moved into place, then read in about a second."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.audio.reading import import_decoders
from ser_jax.config import DataConfig
from ser_jax.data.assembly import assemble, chooses_clips, cut_clip, with_samples
from ser_jax.data.corpus import Corpus, PrepareReport
from ser_jax.data.intake import Copy, Intake, raise_strict
from ser_jax.data.labels import find_class, list_in_order, make_label_table
from ser_jax.data.records import damaged, iterate_clips, write_records
from ser_jax.data.sources.checksums import save_checksums
from ser_jax.data.sources.find import find_cache, find_source
from ser_jax.data.sources.listing import Source
from ser_jax.errors import SHOWN_WARNINGS, FewWarnings, check, count_noun, warn
from ser_jax.files.atomic import expand, locked, new_folder, write_atomic

# Part of a store's name. Raise it when the contents change; older stores are then left alone.
_STORE_VERSION = 4
_REPORT = "report.json"


def prepare(data: DataConfig) -> PrepareReport:
    """Build the corpus' store unless one of the same input and settings exists.

    Raises:
      UserError: no usable recordings; a write failed; a bad clip with `data.strict`.
    """
    started_s = time.monotonic()
    source = find_source(data)
    name = f"{data.corpus}-{data.rate_hz}hz-v{_STORE_VERSION}-{source.fingerprint}"
    folder = expand(data.store_dir) / name
    check(
        not any("\ud800" <= letter <= "\udfff" for letter in str(folder)),
        f"data.store_dir={data.store_dir}: its name is not UTF-8 text, which array_record needs; "
        "choose another",
    )
    built = False
    if not (folder / _REPORT).exists():
        with locked(folder):
            if not (folder / _REPORT).exists():
                _build(folder, source, data)
                built = True
    save_checksums(source.paths, find_cache(data))
    found = _read_report(folder)
    where = (
        {clip.file_name: clip.path for clip in source.list_clips().clips} if source.paths else {}
    )
    bad = tuple(f"{where.get(name) or name}: {reason}" for name, reason in found["bad"])
    copies = tuple(Copy(*copy) for copy in found["copies"])
    if data.strict and (wrong := [*bad, *(copy.describe() for copy in copies if copy.differs)]):
        raise_strict(wrong[0])
    _warn_of_bad(bad)
    _warn_of_copies(copies)
    skipped = {kind: tuple(names) for kind, names in found["skipped"].items()}
    return PrepareReport(
        corpus=data.title,
        folder=folder,
        built=built,
        clips=found["clips"],
        checksum=found["checksum"],
        skipped=skipped,
        copies=tuple(copy.describe() for copy in copies),
        bad=bad,
        counts=_count_classes(data, found["counts"]),
        n_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        seconds=time.monotonic() - started_s,
    )


def load_corpus(data: DataConfig) -> Corpus:
    """The corpus that `data` names, trimmed by `data.trim_db`, then cut or padded to `data.clip_s`.

    Builds its store first if it is missing.

    Raises:
      UserError: as `prepare`; the store is damaged.
    """
    report = prepare(data)
    clips = iterate_clips(report.folder, workers=data.workers)
    corpus, _, waves = assemble(data, clips, report)
    return with_samples(data, corpus, enumerate(waves))


def load_shard(data: DataConfig, find_rows: Callable[[int], np.ndarray]) -> Corpus:
    """The corpus with the samples of some clips, and everything else about all clips.

    Args:
      data: as for `load_corpus`.
      find_rows: takes the number of clips and returns the indices of those to read, ascending.

    Returns:
      A corpus whose `wave_BN` is zero in all other rows, which take no memory.

    Raises:
      UserError: as `load_corpus`.
    """
    report, corpus, row_B = _load_facts(data)
    rows = find_rows(len(row_B))
    clips = iterate_clips(report.folder, row_B[rows].tolist(), workers=data.workers)
    waves = (cut_clip(data, clip.wave_N) for clip in clips)
    return with_samples(data, corpus, zip(rows, waves, strict=True))


def load_facts(data: DataConfig) -> Corpus:
    """`load_corpus` without samples: `wave_BN` has no columns."""
    return _load_facts(data)[1]


def _load_facts(data: DataConfig) -> tuple[PrepareReport, Corpus, np.ndarray]:
    """The store, the corpus without samples, and the position of each clip in the store."""
    report = prepare(data)
    # Lengths after trimming, and the checksum under changed labels, need the samples.
    decoded = data.trim_db is not None or chooses_clips(data)
    clips = iterate_clips(report.folder, workers=data.workers, with_samples=decoded)
    corpus, row_B, _ = assemble(data, clips, report, keep=False)
    return report, corpus, row_B


def _build(folder: Path, source: Source, data: DataConfig) -> None:
    listing = source.list_clips()
    if data.corpus != "synthetic":
        import_decoders()
    intake = Intake(listing, data)
    with new_folder(folder) as beside:
        write_records(beside, intake.iterate())
        write_atomic(beside / _REPORT, json.dumps(intake.make_report(), indent=1))


def _read_report(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _REPORT).read_text())
    except (OSError, ValueError) as error:
        raise damaged(folder, error) from error


def _count_classes(data: DataConfig, counts: list[list[Any]]) -> dict[tuple[str, str, str], int]:
    """Clips by class, speaker and gender, without those that `data.labels` leaves out."""
    table = make_label_table(data.labels)
    found: Counter[tuple[str, str, str]] = Counter()
    for emotion, speaker, gender, count in counts:
        name = find_class(table, emotion, data.title)
        if name is not None:
            found[name, speaker, gender] += count
    order = {name: place for place, name in enumerate(list_in_order(name for name, *_ in found))}
    return dict(sorted(found.items(), key=lambda item: (order[item[0][0]], item[0])))


def _warn_of_bad(bad: tuple[str, ...]) -> None:
    few = FewWarnings("clip left out: ")
    for reason in bad:
        few.add(reason)
    if few.n_unsaid:
        warn(f"{count_noun(few.n_unsaid, 'more clip')} left out")


def _warn_of_copies(copies: tuple[Copy, ...]) -> None:
    """One line for each copy that contradicts its original, and one for all others together."""
    shown = [copy for copy in copies if copy.differs][:SHOWN_WARNINGS]
    for copy in shown:
        warn(f"clip left out: {copy.describe()}; correct one of them")
    if others := [copy for copy in copies if copy not in shown]:
        what = "clip left out, a copy" if len(others) == 1 else "clips left out, each a copy"
        warn(f"{len(others)} {what} of another; the first: {others[0].describe()}")
