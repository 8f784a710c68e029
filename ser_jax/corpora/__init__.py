"""A corpus in memory: `prepare` builds its store on disk, `load_corpus` reads it."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from ser_jax.config import DataConfig
from ser_jax.corpora.corpus import Corpus, PrepareReport
from ser_jax.splits import Split, list_strata, make_split


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
