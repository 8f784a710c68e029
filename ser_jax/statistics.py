"""The statistics behind a verdict: intervals and tests over seeds, and by resampling speakers.

The spread over seeds shows how far a figure depends on chance in training (and, in the study's
split, on the choice of clips); the spread over speakers, how far it depends on who was recorded.
Clips of one speaker resemble each other, so the bootstrap draws speakers, never clips.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

N_DRAWS = 10_000
POWER = 0.8
"""The power that a detectable effect is given for."""
_MOST_FLIPS = 14
"""Largest number of seeds for which all sign flips, 16,384, are enumerated."""
_ROUNDING = 1e-12
"""Differences of shares that are closer than this differ by rounding alone."""


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class Mark(NamedTuple):
    """A mean with its interval; `None` if there is none."""

    mean: float
    interval: Interval | None


def compute_seed_interval(values_S: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean over seeds; `None` for a single seed."""
    from scipy import stats

    n = len(values_S)
    if n < 2:
        return None
    mean, error = float(np.mean(values_S)), float(np.std(values_S, ddof=1)) / n**0.5
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    return Interval(mean - reach, mean + reach)


def compute_t_p(values_S: Sequence[float]) -> float | None:
    """Two-sided p value of the paired t test on the differences; `None` for a single seed."""
    from scipy import stats

    if len(values_S) < 2:
        return None
    if _are_equal(values_S):  # scipy warns, and gives NaN or 0
        return 1.0 if abs(values_S[0]) < _ROUNDING else 0.0
    result: Any = stats.ttest_1samp(values_S, 0.0)
    return float(result.pvalue)


def compute_flip_p(values_S: Sequence[float]) -> float | None:
    """Two-sided p value of the exact sign-flip test, at least 2 / 2**n for n differences.

    `None` for a single seed, and for more seeds than can be enumerated.
    """
    n = len(values_S)
    if not 2 <= n <= _MOST_FLIPS:
        return None
    signs = np.array(list(itertools.product((1, -1), repeat=n)))
    sums = np.abs(signs @ np.asarray(values_S, float))
    observed = sums[0]  # the first row flips no sign
    return float(np.mean(sums >= observed * (1 - 1e-9)))


def compute_effect_size(values_S: Sequence[float]) -> float | None:
    """Cohen's d_z, the mean difference over its standard deviation; `None` if that is undefined."""
    if len(values_S) < 2 or _are_equal(values_S):
        return None
    return float(np.mean(values_S) / np.std(values_S, ddof=1))


def compute_detectable(values_S: Sequence[float]) -> float | None:
    """Smallest mean difference that the t test over this many seeds detects with power `POWER`.

    Two-sided at 5 %, with the standard deviation of these differences, in their unit. It depends on
    their spread and number and not on their mean, so it is no "observed power". `None` for a single
    seed, and if the differences do not vary.
    """
    if len(values_S) < 2 or _are_equal(values_S):
        return None
    return _find_detectable_size(len(values_S)) * float(np.std(values_S, ddof=1))


@functools.lru_cache
def _find_detectable_size(n: int) -> float:
    """Cohen's d_z that n differences detect with power `POWER`, by the noncentral t distribution.

    Only the tail on the effect's side counts: the other adds less than 1e-6 to the power, and for
    two differences SciPy gives it as NaN. See Cohen, "Statistical Power Analysis for the Behavioral
    Sciences", 2nd ed. 1988, chapter 2.
    """
    from scipy import optimize, stats

    critical = float(stats.t.ppf(0.975, n - 1))

    def exceed(shift: float) -> float:
        return float(stats.nct.sf(critical, n - 1, shift)) - POWER

    # At no shift the power is 0.025; at the upper end it is above 0.96 for every n.
    shift: Any = optimize.brentq(exceed, 0.0, 2 * critical + 2)
    return float(shift) / n**0.5


def _are_equal(values_S: Sequence[float]) -> bool:
    return float(np.ptp(values_S)) < _ROUNDING


def correct_by_holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the given order."""
    order = np.argsort(p)
    steps = np.asarray(p, float)[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


@functools.lru_cache(maxsize=8)
def draw_speakers(n_speakers: int, n_draws: int = N_DRAWS, seed: int = 0) -> np.ndarray:
    """How often each of the A speakers occurs in each of D bootstrap samples, [D, A]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_speakers, np.full(n_speakers, 1 / n_speakers), size=n_draws)


def compute_shares(hit_SA: np.ndarray, count_SA: np.ndarray, weight_DA: np.ndarray) -> np.ndarray:
    """Share of hits in each draw, averaged over seeds, [D]; NaN if a draw contains no clip."""
    hits_DS, counts_DS = weight_DA @ hit_SA.T, weight_DA @ count_SA.T
    with np.errstate(invalid="ignore"):
        return (hits_DS / counts_DS).mean(axis=1)


def summarise_draws(values_D: np.ndarray) -> tuple[Interval, float] | None:
    """Percentile interval, and two-sided p value of 0; `None` if under 100 draws are finite."""
    values_D = values_D[np.isfinite(values_D)]
    if len(values_D) < 100:
        return None
    low, high = np.percentile(values_D, (2.5, 97.5))
    tail = min((values_D <= 0).sum(), (values_D >= 0).sum())
    p = min(1.0, 2 * (1 + int(tail)) / (1 + len(values_D)))
    return Interval(float(low), float(high)), p


def compute_figure(name: str, confusion_CC: np.ndarray) -> np.ndarray:
    """The accuracy, weighted_f1 or uar of matrices [..., true, predicted]; see `metrics`."""
    hit_C = np.diagonal(confusion_CC, axis1=-2, axis2=-1)
    true_C, pred_C = confusion_CC.sum(-1), confusion_CC.sum(-2)
    n = true_C.sum(-1)
    if name == "accuracy":
        return hit_C.sum(-1) / n
    if name == "weighted_f1":
        return (2 * hit_C / np.maximum(true_C + pred_C, 1) * true_C).sum(-1) / n
    recall_C = hit_C / np.maximum(true_C, 1)
    return recall_C.sum(-1) / (true_C > 0).sum(-1)


def bootstrap_figure(
    name: str,
    confusion_SACC: np.ndarray,
    draw: Callable[[int], np.ndarray] = draw_speakers,
) -> Interval | None:
    """Bootstrap interval over speakers of a figure's mean over seeds; `None` for one speaker."""
    S, A, C, _ = confusion_SACC.shape
    if A < 2:
        return None
    weight_DA = draw(A)
    values_D = np.zeros(len(weight_DA))
    for confusion_ACC in confusion_SACC:
        drawn_DCC = (weight_DA @ confusion_ACC.reshape(A, C * C)).reshape(-1, C, C)
        values_D += compute_figure(name, drawn_DCC) / S
    found = summarise_draws(values_D)
    return found and found[0]
