"""The store of a corpus on disk: built once beside its place, then read in about a second."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ser_jax.audio import decode_flac, encode_flac, import_decoders
from ser_jax.config import DataConfig
from ser_jax.corpora import Corpus, PrepareReport
from ser_jax.corpora.assembly import assemble
from ser_jax.corpora.grammars import Facts
from ser_jax.corpora.sources import Clip, Listing, Source, find_source
from ser_jax.errors import UserError, check
from ser_jax.files import locked, new_folder, write_atomic
from ser_jax.progress import progress

# Part of a store's name. Raise it when what a store holds changes, so that old ones are left alone.
_STORE_VERSION = 1
_REPORT = "report.json"
_SKIPPED = ("song", "video", "duplicates", "unnamed")
_SHOWN_WARNINGS = 10


def prepare(data: DataConfig) -> PrepareReport:
    """See `ser_jax.corpora.prepare`."""
    started_s = time.monotonic()
    source = find_source(data)
    name = f"{data.corpus}-{data.rate_hz}hz-v{_STORE_VERSION}-{source.fingerprint}"
    folder = Path(data.store_dir).expanduser() / name
    built = False
    if not (folder / _REPORT).exists():
        with locked(folder):
            if not (folder / _REPORT).exists():
                _build(folder, source, data)
                built = True
    found = _read_report(folder)
    if found["bad"] and data.strict:
        _raise_strict(found["bad"][0])
    _warn(found["bad"])
    return PrepareReport(
        corpus=data.title,
        folder=folder,
        built=built,
        clips=found["clips"],
        song=found["song"],
        video=found["video"],
        duplicates=found["duplicates"],
        unnamed=found["unnamed"],
        bad=tuple(found["bad"]),
        n_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        seconds=time.monotonic() - started_s,
    )


def load_corpus(data: DataConfig) -> Corpus:
    """See `ser_jax.corpora.load_corpus`; does not heed `data.trim_db` and `data.clip_s`."""
    return load_kept(data)[0]


def load_kept(data: DataConfig) -> tuple[Corpus, np.ndarray]:
    """The corpus, and the number in the store of each of its clips: `data.labels` may leave out
    some."""
    report = prepare(data)
    try:
        read_all = read(report.folder, data)
        check(len(read_all.waves) == report.clips, f"{len(read_all.waves)} of {report.clips} clips")
    except Exception as error:  # three libraries read it, each with errors of its own
        raise damaged(report.folder, error) from error
    return assemble(data, *read_all)


class Read(NamedTuple):
    """Clips of a store, sorted by file name: their names, what is known of them, their samples."""

    file_names: list[str]
    facts: list[Facts]
    waves: list[np.ndarray]


def read(folder: Path, data: DataConfig, rows: Sequence[int] | None = None) -> Read:
    """Clips as they lie in the store.

    Args:
      folder: the store.
      data: says of which kind it is, and how many threads decode.
      rows: which ones, sorted; None: all.
    """
    from ser_jax.corpora.builder import read_clips

    clips = read_clips(folder, rows, ravdess=data.has_ravdess_actors)
    clips.sort(key=lambda clip: clip[0])
    with ThreadPoolExecutor(data.workers or os.cpu_count()) as pool:
        waves = list(pool.map(decode_flac, [flac for _, flac, _ in clips]))
    return Read([name for name, _, _ in clips], [facts for _, _, facts in clips], waves)


def _build(folder: Path, source: Source, data: DataConfig) -> None:
    from ser_jax.corpora.builder import write_clips

    listing = source.list_clips()
    if data.corpus != "synthetic":
        import_decoders()
    bad: list[str] = []
    with new_folder(folder) as beside:
        write_clips(beside, _make_examples(listing, data, bad), ravdess=data.has_ravdess_actors)
        shutil.rmtree(beside / "downloads", ignore_errors=True)
        counts = {key: listing.skipped.get(key, 0) for key in _SKIPPED}
        found = {"clips": len(listing.clips) - len(bad), "bad": bad, **counts}
        write_atomic(beside / _REPORT, json.dumps(found, indent=1))


def _make_examples(
    listing: Listing, data: DataConfig, bad: list[str]
) -> Iterator[tuple[str, bytes, Facts]]:
    """One example per clip that can be read; appends the others' errors to `bad`."""

    def encode(clip: Clip) -> bytes | UserError:
        try:
            return encode_flac(clip.load(), data.rate_hz)
        except UserError as error:
            return error

    # Decoder, resampler and encoder release the interpreter's lock, so that threads are as fast
    # as processes (200 clips on two cores: 0.49 s, processes 0.55 s) and start at once.
    pool = ThreadPoolExecutor(data.workers or os.cpu_count())
    try:
        with progress("preparing clips", len(listing.clips), "clips") as advance:
            flacs = pool.map(encode, listing.clips)
            for clip, flac in zip(listing.clips, flacs, strict=True):
                advance(1)
                if not isinstance(flac, UserError):
                    yield _make_example(clip, flac)
                elif data.strict:
                    _raise_strict(str(flac))
                else:
                    bad.append(str(flac))
    finally:
        pool.shutdown(cancel_futures=True)
    if len(bad) == len(listing.clips):
        where = f"data.root={data.root}: " if data.root else ""
        raise UserError(f"{where}none of {len(bad)} clips can be read; the first: {bad[0]}")


def _make_example(clip: Clip, flac: bytes) -> tuple[str, bytes, Facts]:
    return clip.file_name, flac, clip.facts


def _read_report(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _REPORT).read_text())
    except (OSError, ValueError) as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> UserError:
    """What to raise where a store cannot be read."""
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{folder}: damaged store: {reason}; delete this folder, it is built again")


def _raise_strict(reason: str) -> None:
    raise UserError(f"{reason} (data.strict=true; without it such clips are left out)")


def _warn(bad: list[str]) -> None:
    for reason in bad[:_SHOWN_WARNINGS]:
        print(f"warning: clip left out: {reason}", file=sys.stderr)
    if len(bad) > _SHOWN_WARNINGS:
        print(f"warning: {len(bad) - _SHOWN_WARNINGS} more clips left out", file=sys.stderr)
