"""What each system reached under each protocol, with a 95 % interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ser_jax.metrics import FIGURES
from ser_jax.report.clips import join_clips
from ser_jax.report.contrasts import describe_folds
from ser_jax.report.evidence import Evidence, SystemResult
from ser_jax.statistics import Mark, bootstrap_figure, compute_figure, compute_seed_interval


class WorstSeed(NamedTuple):
    """The lowest accuracy of a single seed, and which seed it was."""

    accuracy: float
    seed: int


class Score(NamedTuple):
    """One system under one protocol.

    Attributes:
      marks: mean over seeds and interval of accuracy, weighted_f1 and uar.
      over: what the intervals are over: 'seeds', 'speakers', or '' where there is none.
      seeds: those that count.
      worst: the one of lowest accuracy; of several the first.
      n: test clips per seed.
      folds: those that count, where they are not all.
      confusion_CC: over all seeds.
    """

    marks: dict[str, Mark]
    over: str
    seeds: tuple[int, ...]
    worst: WorstSeed
    n: int
    folds: str
    confusion_CC: np.ndarray


def compute_system_scores(evidence: Evidence) -> dict[tuple[str, str], Score]:
    """Scores by (system, protocol) of what has a finished cell."""
    n_classes = len(evidence.labels)
    return {key: _score(row, n_classes) for key, row in evidence.rows.items() if row.clips}


def compute_fold_scores(row: SystemResult, n_classes: int) -> dict[int, Score]:
    """Scores of each fold by itself, over all seeds that have finished it."""
    parts = {fold: SystemResult(row.system, row.protocol) for fold in sorted(row.folds)}
    for cell in row.cells:
        parts[cell["fold"]].cells.append(cell)
    for key, clips in row.clips.items():
        parts[key[1]].clips[key] = clips
    return {fold: _score(part, n_classes) for fold, part in parts.items() if part.clips}


def _score(row: SystemResult, n_classes: int) -> Score:
    keys = sorted(row.keys)
    seeds = sorted({seed for seed, _ in keys})
    clips = [join_clips([row.clips[key] for key in keys if key[0] == seed]) for seed in seeds]
    speakers = np.unique(np.concatenate([c.columns["actor"] for c in clips]))
    confusion_SACC = np.stack([c.compute_confusion(n_classes, speakers.tolist()) for c in clips])
    known = all(c.has_speakers for c in clips)
    by_figure = {name: compute_figure(name, confusion_SACC.sum(1)).tolist() for name in FIGURES}
    worst = WorstSeed(*min(zip(by_figure["accuracy"], seeds, strict=True)))
    marks, over = {}, ""
    for name, value_S in by_figure.items():
        interval = compute_seed_interval(value_S)
        if interval is None and known:
            interval = bootstrap_figure(name, confusion_SACC)
        marks[name] = Mark(float(np.mean(value_S)), interval)
        over = "" if interval is None else "seeds" if len(seeds) > 1 else "speakers"
    folds = describe_folds([row], {row.protocol: row.keys})
    n = round(np.mean([len(c) for c in clips]))
    return Score(marks, over, tuple(seeds), worst, n, folds, confusion_SACC.sum((0, 1)))
