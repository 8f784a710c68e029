"""A run measured on the recordings it was trained on, or on others."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.config import DataConfig
from ser_jax.data.corpus import Corpus, with_clip_length
from ser_jax.data.splits import draw_split, name_own_fold
from ser_jax.data.store import load_corpus
from ser_jax.errors import UserError, check, warn
from ser_jax.features.cmvn import Statistics
from ser_jax.features.corpus_features import Inputs, compute_inputs, make_dataset
from ser_jax.inference.load import LoadedRun, load_run
from ser_jax.inference.measurement import Heard, Measurement
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.run.file_names import PREDICTIONS_FILE
from ser_jax.run.known_clips import KNOWN_FILE, count_known
from ser_jax.run.results import compute_scores

_PARTS = ("test", "val", "train", "all")


def evaluate(
    run_dir: str | Path, data: DataConfig | None = None, split: str | None = None
) -> dict[str, Any]:
    """Measure a run; see `measure`. Returns its report."""
    return measure(run_dir, data, split).report


@with_jax_defaults
def measure(
    run_dir: str | Path, data: DataConfig | None = None, split: str | None = None
) -> Measurement:
    """Measure a run on the recordings it was trained on, or on others.

    Clips are trimmed as the run's own were, and padded or cut to their length. Splits follow the
    run's own protocol, fold and seed, whatever `data` says. Of another corpus only clips of classes
    that the run knows count; the report's `left_out` counts the others by class, and its
    `known_clips` those that the run was trained or validated on. The run may still predict classes
    that the corpus lacks, which counts as an error; UAR is the mean over those that occur.

    Args:
      run_dir: a run directory.
      data: which recordings; `None`: the run's own.
      split: test, val, train or all; `None`: test on the run's own recordings, all on others.

    Raises:
      UserError: as `load_run` and `load_corpus`; the rate is not the run's; no emotion is; the
        run's own recordings have changed, so that their split would be another; a split of
        recordings that are not the run's.
    """
    from scipy.special import softmax

    check(split is None or split in _PARTS, f"split={split}: must be one of {', '.join(_PARTS)}")
    run = load_run(run_dir)
    wanted = data or run.config.data
    check(
        wanted.rate_hz == run.config.data.rate_hz,
        f"data.rate_hz={wanted.rate_hz}: {run_dir} was trained at {run.config.data.rate_hz} Hz; "
        "leave the key out",
    )
    corpus = load_corpus(_cut_as(run, wanted))
    part = _choose_part(run, corpus, wanted, split, is_own=data is None)
    corpus = _fit_length(run, corpus)
    # Before clips are chosen by class, since a speaker's statistics need no labels.
    inputs = compute_inputs(corpus, run.config.features, masked=run.is_masked)
    inputs, left_out = _fit_classes(run, inputs)
    corpus = inputs.corpus
    index = np.arange(len(corpus.file_names))
    if part != "all":
        parts = draw_split(run.config.data, run.config.seed, corpus)
        if corpus.checksum == run.checksum:
            _check_split(run, [corpus.file_names[clip] for clip in parts.test])
        index = getattr(parts, part)
    dataset = make_dataset(inputs, run.normaliser, on_host=not run.is_network)
    logits_BC = run.compute_logits(dataset, index)
    report = compute_scores(corpus, index, logits_BC.argmax(axis=-1))
    if left_out:
        report["left_out"] = left_out
    if corpus.checksum != run.checksum and (n_known := count_known(run.run_dir, corpus)):
        report["known_clips"] = n_known
    heard = Heard(corpus, index, softmax(logits_BC.astype(np.float64), axis=-1))
    own = run.config.data
    return Measurement(report, corpus.name, part, name_own_fold(own), own.title, heard)


def _cut_as(run: LoadedRun, data: DataConfig) -> DataConfig:
    """Settings that trim clips as the run's were, and keep of each one sample more than the run
    has: that bounds memory, and shows which clips were longer. A manifest's own split is read where
    it has one, whether or not the run's had."""
    own, clip_s = run.config.data, (run.n_samples + 1) / data.rate_hz
    protocol = "auto" if data.protocol == "given" else data.protocol
    return dataclasses.replace(
        data, protocol=protocol, trim_db=own.trim_db, trim_margin_s=own.trim_margin_s,
        clip_s=clip_s if clip_s <= 600 else None,
    )  # fmt: skip


def _choose_part(
    run: LoadedRun, corpus: Corpus, data: DataConfig, split: str | None, *, is_own: bool
) -> str:
    if corpus.checksum == run.checksum:
        return split or "test"
    if is_own and split != "all":
        raise UserError(
            f"{run.run_dir}: its recordings have changed since training (checksum "
            f"{corpus.checksum}, not {run.checksum}), and its {split or 'test'} split with them; "
            "restore them, or use --split all"
        )
    check(
        split in (None, "all") or (data.has_ravdess_actors and run.config.data.has_ravdess_actors),
        f"split={split}: these are not the recordings that {run.run_dir} was trained on, and it "
        "has no split of them; leave --split out",
    )
    knows = (run.run_dir / KNOWN_FILE).exists()  # and then they are counted
    if not knows and _list_names(data) & _list_names(run.config.data):
        warn(f"not the recordings {run.run_dir} was trained on, but some may be among them")
    return split or "all"


def _check_split(run: LoadedRun, file_names: Sequence[str]) -> None:
    """Raise where the run was tested on other clips than its split has now, since these may include
    training clips."""
    try:
        with (Path(run.run_dir) / PREDICTIONS_FILE).open(newline="", encoding="utf-8") as file:
            tested = {Path(row["file"]).stem for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError):
        return
    check(
        tested == {Path(name).stem for name in file_names},
        f"{run.run_dir}: was tested on other clips than data.protocol={run.config.data.protocol} "
        "draws now, as an earlier version drew them; its metrics.json has their figures; train "
        "again for others",
    )


def _list_names(data: DataConfig) -> set[str]:
    return set(data.roots) or {data.title}


def _fit_classes(run: LoadedRun, inputs: Inputs) -> tuple[Inputs, dict[str, int]]:
    """The clips of the run's classes, and how many of others were left out, by class."""
    corpus = inputs.corpus
    if corpus.labels == run.labels:
        return inputs, {}
    names_B = np.array(corpus.labels)[corpus.emotion_B]
    kept_B = np.isin(names_B, run.labels)
    check(
        bool(kept_B.any()),
        f"{run.run_dir}: knows the emotions {', '.join(run.labels)}, but {corpus.name} has "
        f"{', '.join(corpus.labels)}; map them by data.labels",
    )
    left_out = {
        name: count
        for name in corpus.labels
        if name not in run.labels and (count := int((names_B == name).sum()))
    }
    rows = np.flatnonzero(kept_B)
    fitted = dataclasses.replace(
        corpus,
        labels=run.labels,
        wave_BN=corpus.wave_BN[rows],
        length_B=corpus.length_B[rows],
        emotion_B=np.array([run.labels.index(name) for name in names_B[rows]], np.int32),
        actor_B=corpus.actor_B[rows],
        attributes={name: values[rows] for name, values in corpus.attributes.items()},
        file_names=tuple(corpus.file_names[row] for row in rows),
    )
    own = inputs.own and Statistics(*(x_BF[rows] for x_BF in inputs.own))
    fitted = inputs._replace(
        corpus=fitted, x_BTF=inputs.x_BTF[rows], frames_B=inputs.frames_B[rows], own=own
    )
    return fitted, left_out


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
