"""Which speakers validate and test: drawn for balanced parts, or left out one by one."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ser_jax.errors import check

DRAWN = {"speakers": 1, "speakers5": 5}
"""Protocols that draw speakers, and how many folds each has."""
_PART = 0.15  # share of all clips, for validation and for test each
_ABSENT = 4.0  # penalty of a part that lacks a class or a gender, beside the missing share
_EMPTY = 1e6  # penalty of an empty part
_RESTARTS = 20
_SLACK = 0.5  # cost above the best that a draw of few speakers may have; below _ABSENT
_FEW = 10  # speakers up to which the slack is whole; more speakers allow better draws
_MOST_STEPS, _MOST_MOVES = 200, 4096
_MANY = 30  # speakers above which good draws abound
_GOOD = 1e-3  # cost below which every share is close enough


def choose_speakers(
    protocol: str,
    fold: int,
    seed: int,
    actor_B: np.ndarray,
    emotion_B: np.ndarray,
    stratum_B: np.ndarray | None,
) -> tuple[list[int], list[int]]:
    """The speakers of validation and of test; the rest train. See `splits.make_split`.

    Raises:
      UserError: too few speakers.
    """
    actors = np.unique(actor_B)
    least = max(3, DRAWN.get(protocol, 0))
    check(
        len(actors) >= least,
        f"data.protocol={protocol}: needs at least {least} speakers, and there "
        f"{'is' if len(actors) == 1 else 'are'} {len(actors)}; add speakers, join corpora "
        "(data.corpus=joined), or take data.protocol=study, where a speaker is in all parts",
    )
    if protocol not in DRAWN:
        return _leave_one_out(fold, actor_B, stratum_B)
    n_folds = DRAWN[protocol]
    shares = (_PART, _PART, 1 - 2 * _PART) if n_folds == 1 else (1 / n_folds,) * n_folds
    counts_SG, kind_G = count_clips(actor_B, emotion_B, stratum_B)
    part_S = np.array(_draw_cached(seed, shares, counts_SG.tobytes(), kind_G))
    test, val = (0, 1) if n_folds == 1 else (fold - 1, fold % n_folds)
    return actors[part_S == val].tolist(), actors[part_S == test].tolist()


def choose_validation(
    seed: int, actor_B: np.ndarray, emotion_B: np.ndarray, stratum_B: np.ndarray | None
) -> list[int]:
    """At least two speakers' validation speakers, with about 15 % of the clips; the rest train."""
    counts_SG, kind_G = count_clips(actor_B, emotion_B, stratum_B)
    part_S = np.array(_draw_cached(seed, (_PART, 1 - _PART), counts_SG.tobytes(), kind_G))
    return np.unique(actor_B)[part_S == 0].tolist()


def count_clips(
    actor_B: np.ndarray, emotion_B: np.ndarray, stratum_B: np.ndarray | None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Clips of each speaker: in all, by class and by stratum.

    Returns:
      int64 [S, G], speakers ascending; and the kind of each column: 0 all clips, 1 a class, 2 a
      stratum.
    """
    from sklearn.metrics.cluster import contingency_matrix

    groups = [np.zeros(len(actor_B), np.int64), emotion_B]
    groups += [] if stratum_B is None else [stratum_B]
    columns: list[Any] = [contingency_matrix(actor_B, group_B) for group_B in groups]
    kinds = [kind for kind, counts_SG in enumerate(columns) for _ in counts_SG.T]
    return np.concatenate(columns, axis=1), tuple(kinds)


def draw_parts(
    seed: int, shares: Sequence[float], counts_SG: np.ndarray, kind_G: Sequence[int]
) -> np.ndarray:
    """Assign speakers to parts so that each has its share of all clips, of each class and stratum.

    A local search: from a random assignment, speakers are moved or swapped while that lowers the
    cost. The cost of a part is the squared relative distance from its share, plus 4 where it has
    nothing, for all clips and averaged over classes and over strata. With few speakers the optimum
    is the same for all seeds, so each seed stops at a cost slightly above it.

    Args:
      seed: of the draw.
      shares: [P], summing to 1.
      counts_SG, kind_G: see `count_clips`; at least as many speakers as parts.

    Returns:
      The part of each speaker, int [S].
    """
    weight_G = 1 / np.bincount(kind_G)[np.array(kind_G)]
    target_PG = np.outer(shares, counts_SG.sum(0))

    def search(rng: np.random.Generator, enough: float, greedy: bool) -> tuple[float, np.ndarray]:
        start_S = _assign_randomly(rng, shares, len(counts_SG))
        return _improve(rng, start_S, counts_SG, target_PG, weight_G, enough, greedy)

    rng = np.random.default_rng(seed)
    if len(counts_SG) > _MANY:
        return search(rng, _GOOD, True)[1]
    any_rng = np.random.default_rng(0)
    least, best_S = min(
        (search(any_rng, _GOOD, True) for _ in range(_RESTARTS)), key=operator.itemgetter(0)
    )
    enough = least + _SLACK * min(1, _FEW / len(counts_SG))
    for _ in range(_RESTARTS):
        cost, part_S = search(rng, enough, False)
        if cost <= enough:
            return part_S
    return best_S


@functools.lru_cache(maxsize=64)
def _draw_cached(
    seed: int, shares: tuple[float, ...], counts: bytes, kind_G: tuple[int, ...]
) -> tuple[int, ...]:
    """`draw_parts`, computed once for all folds of a seed."""
    counts_SG = np.frombuffer(counts, np.int64).reshape(-1, len(kind_G))
    return tuple(draw_parts(seed, shares, counts_SG, kind_G).tolist())


def _assign_randomly(rng: np.random.Generator, shares: Sequence[float], n: int) -> np.ndarray:
    """Random parts of about the right number of speakers, none empty."""
    ends = np.round(np.cumsum(shares) * n).astype(int)
    ends = np.maximum(ends, np.arange(1, len(shares) + 1))
    ends = np.minimum(ends, n - len(shares) + np.arange(1, len(shares) + 1))
    part_S = np.zeros(n, np.int64)
    part_S[rng.permutation(n)] = np.searchsorted(ends, np.arange(n), side="right")
    return part_S


def _improve(
    rng: np.random.Generator,
    part_S: np.ndarray,
    counts_SG: np.ndarray,
    target_PG: np.ndarray,
    weight_G: np.ndarray,
    enough: float,
    greedy: bool,
) -> tuple[float, np.ndarray]:
    """The cost and the parts after local search by the best moves if `greedy`, else by any."""
    n_parts = len(target_PG)

    def compute_cost(sum_XG: np.ndarray, part_X: np.ndarray) -> np.ndarray:
        target_XG = target_PG[part_X]
        off_XG = ((sum_XG - target_XG) / target_XG) ** 2 + _ABSENT * (sum_XG == 0)
        return off_XG @ weight_G + _EMPTY * (sum_XG[:, 0] == 0)

    for _ in range(_MOST_STEPS):
        sum_PG = np.stack([counts_SG[part_S == part].sum(0) for part in range(n_parts)])
        cost_P = compute_cost(sum_PG, np.arange(n_parts))
        if cost_P.sum() <= enough:
            break
        first_X, second_X, to_X = _list_moves(rng, part_S, n_parts)
        from_X = part_S[first_X]
        moved_XG = counts_SG[first_X] - np.where((second_X >= 0)[:, None], counts_SG[second_X], 0)
        gain_X = cost_P[from_X] + cost_P[to_X]
        gain_X = gain_X - compute_cost(sum_PG[from_X] - moved_XG, from_X)
        gain_X = gain_X - compute_cost(sum_PG[to_X] + moved_XG, to_X)
        gain_X = np.round(gain_X, 9)  # so that ties are the same on every machine
        better = np.flatnonzero(gain_X > 0)
        if not len(better):
            break
        best = int(np.argmax(gain_X)) if greedy else int(rng.choice(better))
        part_S = part_S.copy()
        if second_X[best] >= 0:
            part_S[second_X[best]] = from_X[best]
        part_S[first_X[best]] = to_X[best]
    sum_PG = np.stack([counts_SG[part_S == part].sum(0) for part in range(n_parts)])
    return round(float(compute_cost(sum_PG, np.arange(n_parts)).sum()), 9), part_S


def _list_moves(
    rng: np.random.Generator, part_S: np.ndarray, n_parts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves: a speaker, whom it swaps with (-1: nobody), where it goes; a sample if many."""
    n = len(part_S)
    alone_X, to_X = np.divmod(np.arange(n * n_parts), n_parts)
    if n * (n - 1) // 2 <= _MOST_MOVES:
        first_X, second_X = np.triu_indices(n, 1)
    else:
        first_X, second_X = rng.integers(0, n, (2, _MOST_MOVES))
    first_X = np.concatenate([alone_X, first_X])
    to_X = np.concatenate([to_X, part_S[second_X]])
    second_X = np.concatenate([np.full(len(alone_X), -1), second_X])
    kept_X = part_S[first_X] != to_X
    return first_X[kept_X], second_X[kept_X], to_X[kept_X]


def _leave_one_out(
    fold: int, actor_B: np.ndarray, stratum_B: np.ndarray | None
) -> tuple[list[int], list[int]]:
    """The 15 % of the speakers that follow the one of `fold`, and that one."""
    order = _order_speakers(actor_B, stratum_B)
    place = order.index(sorted(order)[fold - 1])
    cycle = order[place + 1 :] + order[:place]
    return cycle[: max(1, round(_PART * len(order)))], [order[place]]


def _order_speakers(actor_B: np.ndarray, stratum_B: np.ndarray | None) -> list[int]:
    """Speakers in an order of which each stretch has its share of each stratum."""
    actors, first = np.unique(actor_B, return_index=True)
    stratum = np.full(len(actors), "") if stratum_B is None else np.asarray(stratum_B)[first]
    place = np.zeros(len(actors))
    for value in np.unique(stratum):
        here = stratum == value
        place[here] = (np.arange(here.sum()) + 0.5) / here.sum()
    return actors[np.argsort(place, kind="stable")].tolist()
