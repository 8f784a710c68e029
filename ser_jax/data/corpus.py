"""A corpus in memory, its checksum, and what its store on disk holds."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ser_jax.config import DataConfig


@dataclass(frozen=True)
class Corpus:
    """All clips of one corpus at one rate, sorted by file name."""

    name: str
    """See `DataConfig.title`."""
    rate_hz: int
    labels: tuple[str, ...]
    """Names of the emotions; a clip's class is an index into them."""
    wave_BN: np.ndarray
    """int16, zero-padded at the end to the longest clip."""
    length_B: np.ndarray
    """int32, samples of each clip without its padding."""
    emotion_B: np.ndarray
    """int32, class."""
    actor_B: np.ndarray
    """int32, RAVDESS' 1 to 24; in other corpora the position in `speakers`, from 1."""
    attributes: dict[str, np.ndarray]
    """Those of gender, intensity, statement, repetition, corpus and split that are known for any
    clip, each str [B], empty where unknown."""
    file_names: tuple[str, ...]
    checksum: str
    """16 hexadecimal digits over names, lengths and samples, before any cut by `trim_db` and
    `clip_s`; and over classes and speakers where the name alone does not say them."""
    speakers: tuple[str, ...] = ()
    """Names of the speakers by `actor_B` - 1; empty where they are RAVDESS' 24 actors."""

    @functools.cached_property
    def digest_B(self) -> tuple[str, ...]:
        """A digest of each clip as it is cut here, 16 hexadecimal digits; empty for silent clips,
        which would all be equal."""
        clips = (x_N[:n] for x_N, n in zip(self.wave_BN, self.length_B, strict=True))
        return tuple(_compute_digest(x_N) if x_N.any() else "" for x_N in clips)


def _compute_digest(x_N: np.ndarray) -> str:
    # Eight bytes: among a million clips, a collision has a probability of 1 in 37 million.
    return hashlib.blake2b(x_N.tobytes(), digest_size=8).hexdigest()


class CorpusDigest:
    """`Corpus.checksum`, clip by clip."""

    def __init__(self, data: DataConfig):
        # RAVDESS' names say class and speaker, unless `data.labels` changes the classes.
        self._is_plain = data.has_ravdess_actors and not data.labels
        self._digest = hashlib.sha256()

    def add(self, file_name: str, wave_N: np.ndarray, label: str, speaker: str) -> None:
        """Add the next clip: its whole samples, int16, its class, and its speaker's name."""
        path = Path(file_name)  # without its suffix: wav and its lossless flac are the same clip
        name = path.stem if self._is_plain else str(path.with_suffix(""))
        said = "" if self._is_plain else f" {label} {speaker}"
        self._digest.update(f"{name} {len(wave_N)}{said}\n".encode())
        self._digest.update(np.ascontiguousarray(wave_N, "<i2").data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()[:16]


@dataclass(frozen=True)
class PrepareReport:
    """What a store holds, and what was left out of it."""

    corpus: str
    folder: Path
    built: bool
    """False if the store existed already."""
    clips: int
    skipped: Mapping[str, tuple[str, ...]]
    """Files of the folder that were skipped, by reason: song, video (with or without sound),
    duplicates (another of the same name was taken) and unnamed (no name of the corpus')."""
    copies: tuple[str, ...]
    """One line for each clip left out because it has the same samples as another."""
    bad: tuple[str, ...]
    """One line for each clip that could not be read."""
    counts: Mapping[tuple[str, str, str], int]
    """Clips by class, speaker and gender; see `data.labels`."""
    n_bytes: int
    """Size of the store on disk."""
    seconds: float
    """Wall time of building or finding the store."""
    checksum: str = ""
    """See `Corpus.checksum`: of all clips, without `data.labels`."""


def with_clip_length(corpus: Corpus, clip_s: float | None) -> Corpus:
    """The corpus with every clip padded or cut to `clip_s` seconds; `None` leaves it as it is."""
    if clip_s is None:
        return corpus
    n_samples = max(1, round(clip_s * corpus.rate_hz))
    wave_BN = corpus.wave_BN[:, :n_samples]
    wave_BN = np.pad(wave_BN, ((0, 0), (0, n_samples - wave_BN.shape[1])))
    length_B = np.minimum(corpus.length_B, n_samples).astype(np.int32)
    return dataclasses.replace(corpus, wave_BN=wave_BN, length_B=length_B)
