"""What each system reached under each protocol, with a 95 % interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ser_jax.metrics import FIGURES
from ser_jax.report.clips import join_clips
from ser_jax.report.contrasts import describe_folds
from ser_jax.report.evidence import Evidence, SystemResult
from ser_jax.statistics import Mark, bootstrap_figure, compute_figure, compute_seed_interval


class Score(NamedTuple):
    """One row under one protocol.

    Attributes:
      marks: mean over seeds and interval of accuracy, weighted_f1 and uar.
      values: each seed's.
      over: what the intervals are over: 'seeds', 'speakers', or '' where there is none.
      seeds: that count.
      n: test clips of a seed.
      folds: that count, where they are not all.
      confusion_CC: over all seeds.
    """

    marks: dict[str, Mark]
    values: dict[str, list[float]]
    over: str
    seeds: tuple[int, ...]
    n: int
    folds: str
    confusion_CC: np.ndarray


def compute_system_scores(evidence: Evidence) -> dict[tuple[str, str], Score]:
    """Of every row that has a finished cell, by (system, protocol)."""
    return {
        key: _compute_score(row, len(evidence.labels))
        for key, row in evidence.rows.items()
        if row.clips
    }


def _compute_score(row: SystemResult, n_classes: int) -> Score:
    keys = row.keys
    seeds = sorted({seed for seed, _ in keys})
    clips = [
        join_clips([row.clips[key] for key in sorted(keys) if key[0] == seed]) for seed in seeds
    ]
    speakers = np.unique(np.concatenate([c.columns["actor"] for c in clips]))
    confusion_SACC = np.stack([c.compute_confusion(n_classes, speakers.tolist()) for c in clips])
    known = all(c.has_speakers for c in clips)
    marks, values, over = {}, {}, ""
    for name in FIGURES:
        value_S = compute_figure(name, confusion_SACC.sum(1)).tolist()
        interval = compute_seed_interval(value_S)
        if interval is None and known:
            interval = bootstrap_figure(name, confusion_SACC)
        marks[name], values[name] = Mark(float(np.mean(value_S)), interval), value_S
        over = "" if interval is None else "seeds" if len(seeds) > 1 else "speakers"
    n = round(np.mean([len(c) for c in clips]))
    folds = describe_folds([row], {row.protocol: keys})
    return Score(marks, values, over, tuple(seeds), n, folds, confusion_SACC.sum((0, 1)))
