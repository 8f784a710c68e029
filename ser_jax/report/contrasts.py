"""A contrast: a weighted sum of shares of clips, with its intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ser_jax.report.clips import ScoredClips, join_clips
from ser_jax.report.evidence import Evidence, SystemResult, find_full
from ser_jax.statistics import (
    Interval,
    compute_detectable,
    compute_effect_size,
    compute_flip_p,
    compute_seed_interval,
    compute_shares,
    compute_t_p,
    draw_speakers,
    summarise_draws,
)


class Term(NamedTuple):
    """A share of the clips of a group: those recognised, or predicted as an emotion.

    Attributes:
      weight: its factor in the sum.
      system, protocol: whose clips.
      group: columns and the values that they must have, in turn; after "!=" at the end of a
        column's name, the value that it must not have. Empty: all clips.
      predicted: an emotion whose predictions are counted; None: clips recognised.
    """

    weight: float
    system: str
    protocol: str
    group: tuple[str, ...] = ()
    predicted: str | None = None


class Contrast(NamedTuple):
    """The value of a sum of shares, and how certain it is.

    Attributes:
      effect: mean over seeds.
      seeds: those compared.
      over_seeds, over_speakers: 95 % intervals; None for one seed, and for unknown speakers.
      p_t, p_flip, p_speakers: two-sided p of no effect, likewise.
      size: Cohen's d_z over seeds.
      detectable: smallest effect that the t test over these seeds detects with power 0.8; None for
        one seed, or if seeds do not vary.
      n: clips of the first share's system, all seeds together.
      folds: those counted, where they are not all ("folds 1, 2 of 6").
      lack: why there is no contrast; "" where there is one.
      is_share: whether it is a difference of shares, shown in points.
    """

    effect: float = float("nan")
    seeds: tuple[int, ...] = ()
    over_seeds: Interval | None = None
    over_speakers: Interval | None = None
    p_t: float | None = None
    p_flip: float | None = None
    p_speakers: float | None = None
    size: float | None = None
    detectable: float | None = None
    n: int = 0
    folds: str = ""
    lack: str = ""
    is_share: bool = True

    @property
    def p(self) -> float | None:
        """The greater p of the tests over seeds and over speakers, as far as there are both."""
        known = [p for p in (self.p_t, self.p_speakers) if p is not None]
        return max(known) if known else None


def compute_contrast(
    evidence: Evidence, terms: Sequence[Term], constant: float = 0.0, *, resample: bool = True
) -> Contrast:
    """A weighted sum of shares, plus a constant.

    Systems are compared on the same clips: seeds that are full for all or, where there are none,
    the cells that all have. Shares of two protocols are compared over the seeds that each has.
    """
    rows: list[SystemResult] = []
    for term in terms:
        row = evidence.get(term.system, term.protocol)
        if row is None:
            return Contrast(lack=f"{term.system} was not run under {term.protocol}")
        rows.append(row)
    keys = _choose_keys(rows)
    lacking = dict.fromkeys(row.system for row in rows if not keys[row.protocol])
    if lacking:
        return Contrast(lack=f"{', '.join(lacking)}: no seed and fold in common")
    clips = [join_clips([row.clips[key] for key in sorted(keys[row.protocol])]) for row in rows]
    known = all(c.has_speakers for c in clips)
    if any(_needs_attributes(t) and not c.has_speakers for t, c in zip(terms, clips, strict=True)):
        return Contrast(lack="needs predictions.csv of every cell")
    speakers = np.unique(np.concatenate([c.columns["actor"] for c in clips]))
    tallies = [_count(evidence, term, c, speakers) for term, c in zip(terms, clips, strict=True)]
    if any((count_SA.sum(1) == 0).any() for _, count_SA in tallies):
        return Contrast(lack="a group has no clips")
    share_S = [hit_SA.sum(1) / count_SA.sum(1) for hit_SA, count_SA in tallies]
    seeds = [sorted({seed for seed, _ in keys[row.protocol]}) for row in rows]
    paired = all(found == seeds[0] for found in seeds)
    drawn = None
    if resample and known and len(speakers) > 1:  # the same draws for all shares
        weight_DA = draw_speakers(len(speakers))
        shares = [compute_shares(hit_SA, count_SA, weight_DA) for hit_SA, count_SA in tallies]
        drawn = summarise_draws(np.asarray(_add(terms, shares, constant)))
    return Contrast(
        effect=float(_add(terms, [share.mean() for share in share_S], constant)),
        seeds=tuple(sorted(set().union(*seeds))),
        over_speakers=drawn[0] if drawn else None,
        p_speakers=drawn[1] if drawn else None,
        n=len(clips[0]),
        folds=describe_folds(rows, keys),
        **summarise_seeds(_add(terms, share_S, constant) if paired else ()),
    )


def _add(terms: Sequence[Term], shares: Sequence[Any], constant: float) -> Any:
    return constant + sum(term.weight * share for term, share in zip(terms, shares, strict=True))


def summarise_seeds(value_S: Sequence[float]) -> dict[str, Any]:
    """Interval and tests over seeds, as fields of a Contrast; None each for fewer than two."""
    return {
        "over_seeds": compute_seed_interval(value_S), "p_t": compute_t_p(value_S),
        "p_flip": compute_flip_p(value_S), "size": compute_effect_size(value_S),
        "detectable": compute_detectable(value_S),
    }  # fmt: skip


def _needs_attributes(term: Term) -> bool:
    return any(name.removesuffix("!=") != "emotion" for name in term.group[::2])


def _choose_keys(rows: Sequence[SystemResult]) -> dict[str, set[tuple[int, int]]]:
    """Seeds and folds that count, by protocol."""
    chosen = {}
    for protocol in dict.fromkeys(row.protocol for row in rows):
        here = [row for row in rows if row.protocol == protocol]
        common = set.intersection(*(set(row.clips) for row in here))
        full = find_full(common, frozenset().union(*(row.folds for row in here)))
        chosen[protocol] = {key for key in common if key[0] in full or not full}
    return chosen


def describe_folds(rows: Sequence[SystemResult], keys: dict[str, set[tuple[int, int]]]) -> str:
    """`folds 1, 2 of 6` unless all count."""
    for row in rows:
        found = {fold for _, fold in keys[row.protocol]}
        if found != row.folds:
            names = row.name_folds(sorted(found))
            return f"{names} of {len(row.folds)}"
    return ""


def _count(
    evidence: Evidence, term: Term, clips: ScoredClips, speakers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hits and clips, [S, A], seeds and speakers ascending."""
    columns = clips.columns
    hit_B = columns["true"] == columns["predicted"]
    if term.predicted is not None:
        hit_B = columns["predicted"] == evidence.labels.index(term.predicted)
    here_B = np.ones(len(clips), bool)
    for name, value in zip(term.group[::2], term.group[1::2], strict=True):
        column = name.removesuffix("!=")
        if column == "emotion":
            same_B = columns["true"] == evidence.labels.index(value)
        else:
            same_B = columns[column] == value
        here_B &= same_B if column == name else ~same_B
    seeds, at_B = np.unique(columns["seed"], return_inverse=True)
    place_B = at_B * len(speakers) + np.searchsorted(speakers, columns["actor"])
    size, shape = len(seeds) * len(speakers), (len(seeds), len(speakers))
    hits = np.bincount(place_B[here_B & hit_B], minlength=size).reshape(shape)
    return hits, np.bincount(place_B[here_B], minlength=size).reshape(shape)
