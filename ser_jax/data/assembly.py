"""Clips as the store has them to a corpus in memory: words become classes, speakers numbers, and
clips are padded to one length."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.audio.reading import find_sound
from ser_jax.config import DataConfig
from ser_jax.data.corpus import Corpus
from ser_jax.data.labels import find_class, list_classes, make_label_table
from ser_jax.data.sources.filenames import ATTRIBUTES, GRAMMARS, Facts
from ser_jax.data.stored_clips import Stored, damaged
from ser_jax.errors import check

_MOST_TIMES, _MOST_BYTES = 20, 2e9  # median clips in the longest; bytes of all clips as long


def assemble(
    data: DataConfig, clips: Iterable[Stored], n_clips: int, folder: Path, *, with_samples: bool
) -> tuple[Corpus, np.ndarray]:
    """The corpus of a store's clips without those that `data.labels` leaves out, and their numbers.

    Clips are trimmed by `data.trim_db` and cut to `data.clip_s` one by one, so that memory holds
    what is kept of them alone.

    Args:
      data: settings.
      clips: all of the store's, in order.
      n_clips: how many there must be.
      folder: of the store, for messages.
      with_samples: False: `wave_BN` has no columns.

    Raises:
      UserError: an emotion that the table does not have; fewer than two classes, or no clips left;
        one clip so long that all others, padded to it, would take gigabytes; the store is damaged.
    """
    table = make_label_table(data.labels)
    digest = hashlib.sha256()
    names: list[str] = []
    kept: list[Stored] = []
    rows, lengths = [], []
    row = -1
    for row, clip in enumerate(clips):
        name = find_class(table, clip.facts.emotion, data.title)
        if name is None:
            continue
        _add_clip(digest, data, clip, name)
        wave_N = cut_clip(data, clip.wave_N)
        names.append(name)
        rows.append(row)
        lengths.append(len(wave_N))
        # A copy, since a view would keep all of the clip.
        kept.append(clip._replace(wave_N=wave_N.copy() if with_samples else wave_N[:0].copy()))
    if row + 1 != n_clips:
        raise damaged(folder, ValueError(f"{row + 1} of {n_clips} clips"))
    facts = [clip.facts for clip in kept]
    check(len(kept) > 0, f"data.labels={data.labels}: leaves no clips of {data.title}")
    labels = list_labels(data, facts)
    actor_B, speakers = number_speakers(data, facts)
    length_B = np.array(lengths, np.int32)
    corpus = Corpus(
        name=data.title,
        rate_hz=data.rate_hz,
        labels=labels,
        wave_BN=_pad(data, kept, length_B) if with_samples else np.zeros((len(kept), 0), np.int16),
        length_B=length_B,
        emotion_B=np.array([labels.index(name) for name in names], np.int32),
        actor_B=actor_B,
        attributes=read_attributes(facts),
        file_names=tuple(clip.file_name for clip in kept),
        checksum=digest.hexdigest()[:16],
        speakers=speakers,
    )
    return corpus, np.array(rows, np.int64)


def cut_clip(data: DataConfig, wave_N: np.ndarray) -> np.ndarray:
    """A clip trimmed by `data.trim_db`, then cut, but not padded, to `data.clip_s`."""
    sound = find_sound(wave_N, data.rate_hz, data.trim_db, data.trim_margin_s)
    return wave_N[sound][: count_samples(data)]


def count_samples(data: DataConfig) -> int | None:
    """Samples of `data.clip_s`."""
    return None if data.clip_s is None else max(1, round(data.clip_s * data.rate_hz))


def check_lengths(data: DataConfig, length_B: np.ndarray, file_names: Sequence[str]) -> None:
    """Raise where one clip makes all others many times as long as they are, in gigabytes.

    Raises:
      UserError: naming the clip.
    """
    if data.clip_s is not None:
        return
    longest, median = int(length_B.max()), float(np.median(length_B))
    n_bytes = 2 * len(length_B) * longest
    check(
        n_bytes <= _MOST_BYTES or longest <= _MOST_TIMES * median,
        f"{file_names[int(length_B.argmax())]}: lasts {longest / data.rate_hz:.0f} s, the median "
        f"clip {median / data.rate_hz:.1f} s: all {len(length_B)} padded to it would take "
        f"{n_bytes / 1e9:.1f} GB; set data.clip_s, as in --data.clip_s "
        f"{max(1, round(2 * median / data.rate_hz))}, or leave that clip out",
    )


def _pad(data: DataConfig, clips: Sequence[Stored], length_B: np.ndarray) -> np.ndarray:
    check_lengths(data, length_B, [clip.file_name for clip in clips])
    wave_BN = np.zeros((len(clips), count_samples(data) or length_B.max()), np.int16)
    for row_N, clip in zip(wave_BN, clips, strict=True):
        row_N[: len(clip.wave_N)] = clip.wave_N
    return wave_BN


def _add_clip(digest: Any, data: DataConfig, clip: Stored, name: str) -> None:
    """Add a clip to `Corpus.checksum`. Suffixes are left out: wav and its lossless flac are the
    same clip."""
    is_plain = data.has_ravdess_actors and not data.labels  # names say all that there is to know
    path = Path(clip.file_name)
    stem = path.stem if is_plain else str(path.with_suffix(""))
    said = "" if is_plain else f" {name} {clip.facts.speaker}"
    digest.update(f"{stem} {len(clip.wave_N)}{said}\n".encode())
    digest.update(np.ascontiguousarray(clip.wave_N, "<i2"))


def list_labels(data: DataConfig, facts: Sequence[Facts]) -> tuple[str, ...]:
    """The classes: a manifest's are those that occur, a named corpus' all that it declares."""
    names = sorted(data.roots) if data.corpus == "joined" else [data.corpus]
    words: list[str] = []
    for name in names:
        grammar = GRAMMARS.get("ravdess" if name == "synthetic" else name)
        words += grammar.words if grammar else [one.emotion for one in facts]
    return list_classes(data, dict.fromkeys(words))


def number_speakers(data: DataConfig, facts: Sequence[Facts]) -> tuple[np.ndarray, tuple[str, ...]]:
    """See `Corpus.actor_B` and `Corpus.speakers`."""
    if data.has_ravdess_actors:
        return np.array([int(one.speaker) for one in facts], np.int32), ()
    speakers = sorted({one.speaker for one in facts})
    number = {speaker: place for place, speaker in enumerate(speakers, 1)}
    return np.array([number[one.speaker] for one in facts], np.int32), tuple(speakers)


def read_attributes(facts: Sequence[Facts]) -> dict[str, np.ndarray]:
    """See `Corpus.attributes`."""
    values = {name: np.array([getattr(one, name) for one in facts]) for name in ATTRIBUTES}
    return {name: value_B for name, value_B in values.items() if (value_B != "").any()}
