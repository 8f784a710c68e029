"""A run measured on the recordings it was trained on, or on others."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ser_jax.config import DataConfig
from ser_jax.corpora import Corpus, load_corpus, with_clip_length
from ser_jax.errors import UserError, check
from ser_jax.inference.loading import LoadedRun, load_run, warn
from ser_jax.inputs import compute_inputs, make_dataset
from ser_jax.run import score, split_corpus

_PARTS = ("test", "val", "train", "all")


class Measurement(NamedTuple):
    """An evaluation and what it was made on.

    Attributes:
      report: see `metrics.compute_report`.
      corpus: name of the corpus.
      part: test, val, train or all.
    """

    report: dict[str, Any]
    corpus: str
    part: str


def evaluate(
    run_dir: str | Path, data: DataConfig | None = None, split: str | None = None
) -> dict[str, Any]:
    """Measure a run; see `measure`. Returns what `metrics.compute_report` does."""
    return measure(run_dir, data, split).report


def measure(
    run_dir: str | Path, data: DataConfig | None = None, split: str | None = None
) -> Measurement:
    """Measure a run on the recordings it was trained on, or on others.

    Clips are padded or cut to the run's own length. Splits follow the run's own protocol, fold and
    seed, whatever `data` says of them.

    Args:
      run_dir: a run directory.
      data: which recordings; None: the run's own.
      split: test, val, train or all; None: test on the run's own recordings, all on others.

    Raises:
      UserError: as `load_run` and `load_corpus`; the rate or the emotions are not the run's; the
        run's own recordings have changed, so that their split would be another.
    """
    check(split is None or split in _PARTS, f"split={split}: must be one of {', '.join(_PARTS)}")
    run = load_run(run_dir)
    wanted = data or run.config.data
    check(
        wanted.rate_hz == run.config.data.rate_hz,
        f"data.rate_hz={wanted.rate_hz}: {run_dir} was trained at {run.config.data.rate_hz} Hz; "
        "leave the key out",
    )
    corpus = load_corpus(dataclasses.replace(wanted, clip_s=None))
    check(
        corpus.labels == run.labels,
        f"{run_dir}: knows the emotions {', '.join(run.labels)}, but {corpus.name} has "
        f"{', '.join(corpus.labels)}; evaluate on a corpus with the same emotions",
    )
    part = _choose_part(run, corpus, split, is_own=data is None)
    corpus = _fit_length(run, corpus)
    index = np.arange(len(corpus.file_names))
    if part != "all":
        index = getattr(split_corpus(run.config, corpus), part)
    inputs = compute_inputs(corpus, run.config.features)
    dataset = make_dataset(inputs, run.normaliser)
    return Measurement(
        score(run.programs, run.variables, dataset, index, corpus), corpus.name, part
    )


def _choose_part(run: LoadedRun, corpus: Corpus, split: str | None, *, is_own: bool) -> str:
    if corpus.checksum == run.checksum:
        return split or "test"
    if is_own and split != "all":
        raise UserError(
            f"{run.run_dir}: its recordings have changed since training (checksum "
            f"{corpus.checksum}, not {run.checksum}), and its {split or 'test'} split with them; "
            "bring them back, or take --split all"
        )
    if corpus.name == run.config.data.corpus:
        warn(f"not the recordings {run.run_dir} was trained on, but some may be among them")
    return split or "all"


def _fit_length(run: LoadedRun, corpus: Corpus) -> Corpus:
    """The corpus with clips as long as the run's."""
    n_cut = int((corpus.length_B > run.n_samples).sum())
    if n_cut and corpus.checksum != run.checksum:
        warn(
            f"{n_cut} of {len(corpus.length_B)} clips are longer than the run's "
            f"{run.n_samples / corpus.rate_hz:.2f} s and were cut"
        )
    if corpus.wave_BN.shape[1] == run.n_samples:
        return corpus
    return with_clip_length(corpus, run.n_samples / corpus.rate_hz)
