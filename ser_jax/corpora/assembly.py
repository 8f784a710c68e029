"""Clips as the store has them to a corpus in memory: words become classes, speakers numbers."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ser_jax.config import DataConfig
from ser_jax.corpora import Corpus
from ser_jax.corpora.grammars import ATTRIBUTES, GRAMMARS, Facts
from ser_jax.corpora.labels import find_class, list_classes, make_table
from ser_jax.errors import check


def assemble(
    data: DataConfig, file_names: list[str], facts: Sequence[Facts], waves: Sequence[np.ndarray]
) -> tuple[Corpus, np.ndarray]:
    """The corpus of these clips without those that `data.labels` leaves out, and the kept numbers.

    Raises:
      UserError: an emotion that the table does not have; fewer than two classes, or no clips left.
    """
    labels = list_labels(data, facts)
    table = make_table(data.labels)
    names = [find_class(table, one.emotion, data.title) for one in facts]
    row_B = np.array([row for row, name in enumerate(names) if name is not None], np.int64)
    check(len(row_B) > 0, f"data.labels={data.labels}: leaves no clips of {data.title}")
    kept = [facts[row] for row in row_B]
    kept_waves = [waves[row] for row in row_B]
    kept_names = tuple(file_names[row] for row in row_B)
    length_B = np.array([len(wave_N) for wave_N in kept_waves], np.int32)
    wave_BN = np.zeros((len(kept), length_B.max()), np.int16)
    for row_N, wave_N in zip(wave_BN, kept_waves, strict=True):
        row_N[: len(wave_N)] = wave_N
    actor_B, speakers = number_speakers(data, kept)
    classes = [str(names[row]) for row in row_B]
    is_plain = data.has_ravdess_actors and not data.labels  # names say all that there is to know
    said = [
        "" if is_plain else f" {name} {one.speaker}"
        for name, one in zip(classes, kept, strict=True)
    ]
    corpus = Corpus(
        name=data.title,
        rate_hz=data.rate_hz,
        labels=labels,
        wave_BN=wave_BN,
        length_B=length_B,
        emotion_B=np.array([labels.index(name) for name in classes], np.int32),
        actor_B=actor_B,
        attributes=read_attributes(kept),
        file_names=kept_names,
        checksum=_compute_checksum(kept_names, said, kept_waves),
        speakers=speakers,
    )
    return corpus, row_B


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


def _compute_checksum(
    file_names: Sequence[str], said: Sequence[str], waves: Sequence[np.ndarray]
) -> str:
    """Suffixes are left out: wav and its lossless flac are the same clip."""
    digest = hashlib.sha256()
    for file_name, words, wave_N in zip(file_names, said, waves, strict=True):
        stem = Path(file_name).stem if not words else str(Path(file_name).with_suffix(""))
        digest.update(f"{stem} {len(wave_N)}{words}\n".encode())
        digest.update(wave_N.astype("<i2").tobytes())
    return digest.hexdigest()[:16]
