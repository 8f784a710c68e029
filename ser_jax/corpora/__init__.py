"""A corpus in memory: `prepare` builds its store on disk, `load_corpus` reads it."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ser_jax.config import DataConfig
from ser_jax.splits import Split, list_strata, make_split


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
    """int32, RAVDESS' 1 to 24; of other corpora the place in `speakers`, from 1."""
    attributes: dict[str, np.ndarray]
    """Those of gender, intensity, statement, repetition and corpus that are known of any clip, each
    str [B], empty where unknown."""
    file_names: tuple[str, ...]
    checksum: str
    """16 hexadecimal digits over names, lengths and samples, before any cut by `trim_db` and
    `clip_s`; over classes and speakers too where a name alone does not settle them."""
    speakers: tuple[str, ...] = ()
    """Names of the speakers by `actor_B` - 1; empty where they are RAVDESS' 24 actors."""

    @functools.cached_property
    def digest_B(self) -> tuple[str, ...]:
        """What each clip holds, cut as it is here, in 16 hexadecimal digits; empty for silent ones,
        which all sound the same."""
        clips = (x_N[:n] for x_N, n in zip(self.wave_BN, self.length_B, strict=True))
        return tuple(_compute_digest(x_N) if x_N.any() else "" for x_N in clips)


def _compute_digest(x_N: np.ndarray) -> str:
    # Eight bytes: of a million clips two are alike once in 37 million runs.
    return hashlib.blake2b(x_N.tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class PrepareReport:
    """What a store holds, and what was left out of it."""

    corpus: str
    folder: Path
    built: bool
    """False where the store was there already."""
    clips: int
    skipped: Mapping[str, tuple[str, ...]]
    """Files of the folder that were skipped, by reason: song, video (with or without sound),
    duplicates (another of the same name was taken) and unnamed (no name of the corpus')."""
    copies: tuple[str, ...]
    """One line for each clip that was left out because another one sounds the same."""
    bad: tuple[str, ...]
    """One line for each clip that could not be read."""
    counts: Mapping[tuple[str, str, str], int]
    """Clips by class, speaker and gender; see `data.labels`."""
    n_bytes: int
    """Size of the store on disk."""
    seconds: float
    """Wall time of building or finding the store."""


def prepare(data: DataConfig) -> PrepareReport:
    """Build the corpus' store where it is missing or was built from other input or settings.

    Raises:
      UserError: no usable recordings; a write failed; a bad clip with `data.strict`.
    """
    from ser_jax.corpora import store

    return store.prepare(data)


def check_protocols(runs: Iterable[tuple[DataConfig, int]]) -> None:
    """Raise where a protocol cannot part a corpus other than RAVDESS, before any of it is read.

    Args:
      runs: settings, and the seed that draws the split where `data.split_seed` does not.

    Raises:
      UserError: as `prepare`; too few speakers; a class with fewer clips than the split has parts,
        or one that no training speaker has.
    """
    from ser_jax.corpora import checks

    checks.check_protocols(runs)


def count_speakers(data: DataConfig) -> int | None:
    """Number of speakers, for `splits.count_folds`; None where they are RAVDESS' 24 actors."""
    from ser_jax.corpora import checks

    return checks.count_speakers(data)


def load_corpus(data: DataConfig) -> Corpus:
    """The corpus that `data` names, trimmed by `data.trim_db`, then cut or padded to `data.clip_s`;
    builds its store if need be.

    Raises:
      UserError: as `prepare`, or the store is damaged.
    """
    from ser_jax.corpora import store

    return store.load_corpus(data)


def draw_split(data: DataConfig, seed: int, corpus: Corpus) -> Split:
    """The parts of `corpus` by its settings' protocol and fold.

    Args:
      data: settings of the corpus.
      seed: draws the split where `data.split_seed` does not.
      corpus: clips.

    Raises:
      UserError: see `splits.make_split`.
    """
    return make_split(
        data.protocol, data.fold, seed if data.split_seed is None else data.split_seed,
        corpus.emotion_B, corpus.actor_B,
        n_speakers=len(corpus.speakers) or None, stratum_B=list_strata(corpus.attributes),
        given_B=corpus.attributes.get("split"),
    )  # fmt: skip


def with_clip_length(corpus: Corpus, clip_s: float | None) -> Corpus:
    """The corpus with every clip padded or cut to `clip_s` seconds; None: as it is."""
    if clip_s is None:
        return corpus
    n_samples = max(1, round(clip_s * corpus.rate_hz))
    wave_BN = np.zeros((len(corpus.wave_BN), n_samples), np.int16)
    kept = min(n_samples, corpus.wave_BN.shape[1])
    wave_BN[:, :kept] = corpus.wave_BN[:, :kept]
    length_B = np.minimum(corpus.length_B, n_samples).astype(np.int32)
    return dataclasses.replace(corpus, wave_BN=wave_BN, length_B=length_B)
