"""What a store takes in: clips that can be read, are not silent and are no copy of another."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_jax.audio.reading import encode_flac
from ser_jax.config import DataConfig
from ser_jax.data.sources.checksums import is_unchanged
from ser_jax.data.sources.filenames import Facts
from ser_jax.data.sources.listing import Clip, Listing
from ser_jax.data.sources.ravdess import PUBLISHED_COPIES
from ser_jax.errors import UserError, check
from ser_jax.machine.threads import map_in_order
from ser_jax.progress import progress


class Copy(NamedTuple):
    """A clip that was left out, and the one that sounds the same."""

    file_name: str
    original: str
    differs: str
    """What is said of the one and not of the other; empty where nothing is."""

    def describe(self) -> str:
        said = f", but {self.differs}" if self.differs else ""
        return f"{self.file_name}: the same recording as {self.original}{said}"


class Intake(NamedTuple):
    """What became of the clips while a store is built.

    Attributes:
      first: the first clip of each sound, by a checksum of its samples.
      bad: names of those that cannot be read, and why.
      copies: of clips that are there already.
      counts: clips by emotion, speaker and gender.
    """

    first: dict[bytes, Clip]
    bad: list[tuple[str, str]]
    copies: list[Copy]
    counts: Counter[tuple[str, str, str]]


class _Encoded(NamedTuple):
    clip: Clip
    flac: bytes
    digest: bytes
    error: UserError | None = None


def take_in(
    listing: Listing, data: DataConfig, intake: Intake
) -> Iterator[tuple[str, bytes, Facts]]:
    """One example per clip that can be read and is no copy; the others are told in `intake`."""

    def encode(clip: Clip) -> _Encoded:
        try:
            wave_N = clip.load()
            check(
                bool(wave_N.any()),  # which would be a copy of any other such clip
                f"{clip.path}: is silent, each of its samples is 0; record it again",
            )
        except UserError as error:
            return _Encoded(clip, b"", b"", error)
        # A store is named by what the files held before; it must not hold anything else.
        check(
            clip.path is None or is_unchanged(clip.path),
            f"{clip.path}: has changed while it was read; run this again",
        )
        digest = hashlib.blake2b(np.ascontiguousarray(wave_N).data, digest_size=16).digest()
        return _Encoded(clip, encode_flac(wave_N, data.rate_hz), digest)

    # Decoder, resampler and encoder release the interpreter's lock, so that threads are as fast
    # as processes (200 clips on two cores: 0.49 s, processes 0.55 s) and start at once.
    with progress("preparing clips", len(listing.clips), "clips") as advance:
        for encoded in map_in_order(encode, listing.clips, data.workers):
            advance(1)
            if _is_kept(encoded, data, intake):
                yield _make_example(encoded.clip, encoded.flac)
    if len(intake.bad) == len(listing.clips):
        where = f"data.root={data.root}: " if data.root else ""
        count = len(intake.bad)
        some = f"none of {count} clips" if count > 1 else "its one clip cannot be read"
        some += " can be read; the first" if count > 1 else ""
        raise UserError(f"{where}{some}: {_describe(listing, *intake.bad[0])}")


def _is_kept(encoded: _Encoded, data: DataConfig, intake: Intake) -> bool:
    """Count a clip, or tell in `intake` why it is left out."""
    clip = encoded.clip
    if encoded.error is not None:
        if data.strict:
            raise_strict(str(encoded.error))
        intake.bad.append((clip.file_name, str(encoded.error).removeprefix(f"{clip.path}: ")))
        return False
    original = intake.first.setdefault(encoded.digest, clip)
    stem, original_stem = Path(clip.file_name).stem, Path(original.file_name).stem
    if original is not clip and PUBLISHED_COPIES.get(stem) != original_stem:
        pairs = ((name, getattr(clip.facts, name), getattr(original.facts, name))
                 for name in ("emotion", "speaker", "split"))  # fmt: skip
        differs = ", ".join(
            f"{name}={one}, not {other}" for name, one, other in pairs if one != other
        )
        intake.copies.append(Copy(clip.file_name, original.file_name, differs))
        return False
    intake.counts[clip.facts.emotion, clip.facts.speaker, clip.facts.gender] += 1
    return True


def _make_example(clip: Clip, flac: bytes) -> tuple[str, bytes, Facts]:
    return clip.file_name, flac, clip.facts


def _describe(listing: Listing, file_name: str, reason: str) -> str:
    (path,) = [clip.path for clip in listing.clips if clip.file_name == file_name]
    return f"{path or file_name}: {reason}"


def raise_strict(reason: str) -> None:
    raise UserError(f"{reason} (data.strict=true; without it such clips are left out)")
