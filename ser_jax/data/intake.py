"""Which clips go into a store: those that can be read, are not silent and are not copies."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ser_jax.audio.reading import encode_flac
from ser_jax.config import DataConfig
from ser_jax.data.corpus import CorpusDigest
from ser_jax.data.labels import TABLE, tidy
from ser_jax.data.records import Record
from ser_jax.data.sources.checksums import is_unchanged
from ser_jax.data.sources.listing import Clip, Listing
from ser_jax.data.sources.ravdess import PUBLISHED_COPIES
from ser_jax.errors import UserError, check
from ser_jax.machine.threads import map_in_order
from ser_jax.progress import progress


class Copy(NamedTuple):
    """A clip that was left out, and the clip with the same samples."""

    file_name: str
    original: str
    differs: str
    """Where the facts of the two differ, as text; empty if they agree."""

    def describe(self) -> str:
        said = f", but {self.differs}" if self.differs else ""
        return f"{self.file_name}: the same recording as {self.original}{said}"


class _Read(NamedTuple):
    clip: Clip
    wave_N: np.ndarray = np.zeros(0, np.int16)
    flac: bytes = b""
    sound: bytes = b""
    """A checksum of the samples."""
    error: UserError | None = None


class Intake:
    """Reads the clips of a listing for a store, and records which were left out and why."""

    def __init__(self, listing: Listing, data: DataConfig):
        self._listing, self._data = listing, data
        self._first: dict[bytes, Clip] = {}  # clip of each sound
        self._bad: list[tuple[str, str]] = []  # name and reason
        self._copies: list[Copy] = []
        self._counts: Counter[tuple[str, str, str]] = Counter()  # by emotion, speaker, gender
        self._digest = CorpusDigest(dataclasses.replace(data, labels={}))

    def iterate(self) -> Iterator[Record]:
        """Yield the clips that can be read and are not copies.

        Raises:
          UserError: no clip can be read; with `data.strict`, any cannot; a file changes meanwhile.
        """
        clips = self._listing.clips
        # Decoder, resampler and encoder release the GIL, so threads are as fast
        # as processes (200 clips on two cores: 0.49 s, processes 0.55 s) and start at once.
        with progress("preparing clips", len(clips), "clips") as advance:
            for read in map_in_order(self._read, clips, self._data.workers):
                advance(1)
                if self._is_kept(read):
                    clip, n_samples = read.clip, len(read.wave_N)
                    yield Record(clip.file_name, clip.facts, n_samples, read.flac)
        if len(self._bad) == len(clips):
            where = f"data.root={self._data.root}: " if self._data.root else ""
            path, (file_name, reason) = clips[0].path, self._bad[0]
            some = "its one clip cannot be read"
            if len(clips) > 1:
                some = f"none of {len(clips)} clips can be read; the first"
            raise UserError(f"{where}{some}: {path or file_name}: {reason}")

    def make_report(self) -> dict[str, Any]:
        """What was kept and what was left out, ready for JSON."""
        return {
            "clips": self._counts.total(),
            "checksum": self._digest.hexdigest(),
            "bad": self._bad,
            "copies": self._copies,
            "skipped": self._listing.skipped,
            "counts": [[*key, count] for key, count in sorted(self._counts.items())],
        }

    def _read(self, clip: Clip) -> _Read:
        try:
            wave_N = clip.load()
            check(
                bool(wave_N.any()),  # it would count as a copy of any other silent clip
                f"{clip.path}: is silent, each of its samples is 0; record it again",
            )
        except UserError as error:
            return _Read(clip, error=error)
        # A store is named by a hash of the files as they were listed; it must hold just that.
        check(
            clip.path is None or is_unchanged(clip.path),
            f"{clip.path}: has changed while it was read; run this again",
        )
        sound = hashlib.blake2b(np.ascontiguousarray(wave_N).data, digest_size=16).digest()
        return _Read(clip, wave_N, encode_flac(wave_N, self._data.rate_hz), sound)

    def _is_kept(self, read: _Read) -> bool:
        """Count a clip, or record why it is left out."""
        clip, facts = read.clip, read.clip.facts
        if read.error is not None:
            if self._data.strict:
                raise_strict(str(read.error))
            self._bad.append((clip.file_name, str(read.error).removeprefix(f"{clip.path}: ")))
            return False
        original = self._first.setdefault(read.sound, clip)
        stem, original_stem = Path(clip.file_name).stem, Path(original.file_name).stem
        if original is not clip and PUBLISHED_COPIES.get(stem) != original_stem:
            differs = ", ".join(
                f"{name}={getattr(facts, name)}, not {getattr(original.facts, name)}"
                for name in ("emotion", "speaker", "split")
                if getattr(facts, name) != getattr(original.facts, name)
            )
            self._copies.append(Copy(clip.file_name, original.file_name, differs))
            return False
        self._counts[facts.emotion, facts.speaker, facts.gender] += 1
        word = tidy(facts.emotion)
        self._digest.add(clip.file_name, read.wave_N, TABLE.get(word, word), facts.speaker)
        return True


def raise_strict(reason: str) -> None:
    raise UserError(f"{reason} (data.strict=true; without it such clips are left out)")
