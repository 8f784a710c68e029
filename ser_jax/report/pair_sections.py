"""What crossing from corpus to corpus costs: a matrix for each system of protocol cross_corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ser_jax.data.cross_corpus import CROSS_CORPUS, read_pair
from ser_jax.errors import count_noun
from ser_jax.metrics import FIGURES, compute_confusion
from ser_jax.report.analysis import Analysis
from ser_jax.report.evidence import SystemResult, find_full
from ser_jax.report.formats import describe_seeds, format_mark, format_points
from ser_jax.report.page import Records, Section, Table, Tile
from ser_jax.report.scores import Score, compute_fold_scores
from ser_jax.statistics import Interval, compute_figure, compute_seed_interval

_Pair = tuple[str, str]
"""The corpus that trains and the corpus that is tested."""


class Crossing(NamedTuple):
    """What a system loses on another corpus than the one that it was trained on.

    Attributes:
      within, across: mean UAR on the diagonal and off it, each the mean over pairs and seeds.
      interval: 95 % interval of their difference over seeds; None for a single seed.
      seeds: those of which every pair is done.
    """

    within: float
    across: float
    interval: Interval | None
    seeds: tuple[int, ...]

    @property
    def cost(self) -> float:
        """The difference, as a share."""
        return self.within - self.across


def compute_crossing(row: SystemResult, n_classes: int) -> Crossing | None:
    """The cost of crossing for one system; None unless some seed has every pair of the corpora."""
    pairs = _find_pairs(row)
    corpora = {name for pair in pairs.values() for name in pair}
    seeds = find_full(set(row.clips), row.folds)
    if not seeds or len(pairs) != len(corpora) ** 2:
        return None
    uar_SP = np.array([[_compute_uar(row, (seed, fold), n_classes) for fold in pairs]
                       for seed in seeds])  # fmt: skip
    within_P = np.array([source == target for source, target in pairs.values()])
    within_S, across_S = uar_SP[:, within_P].mean(1), uar_SP[:, ~within_P].mean(1)
    interval = compute_seed_interval((within_S - across_S).tolist())
    return Crossing(float(within_S.mean()), float(across_S.mean()), interval, tuple(seeds))


def _compute_uar(row: SystemResult, key: tuple[int, int], n_classes: int) -> float:
    columns = row.clips[key].columns
    confusion_CC = compute_confusion(n_classes, columns["true"], columns["predicted"])
    return float(compute_figure("uar", np.asarray(confusion_CC)))


def _find_pairs(row: SystemResult) -> dict[int, _Pair]:
    """The pair of each fold of the grid, ascending."""
    names = {cell["fold"]: cell["fold_name"] for cell in row.cells}
    return {fold: read_pair(names[fold]) for fold in sorted(names)}


def _find_rows(analysis: Analysis) -> dict[str, SystemResult]:
    """What was run, best system first; nothing under other protocols."""
    evidence = analysis.evidence
    names = analysis.find(CROSS_CORPUS) if evidence.is_cross_corpus else ()
    return {system: evidence.rows[system, CROSS_CORPUS] for system in names}


def make_pairs(analysis: Analysis) -> Section:
    """A matrix of UAR for each system, and what crossing costs it."""
    tables: list[Table] = []
    records: dict[str, Records] = {"cross_corpus": [], "crossing": []}
    n_classes = len(analysis.evidence.labels)
    for system, row in _find_rows(analysis).items():
        pairs, scores = _find_pairs(row), compute_fold_scores(row, n_classes)
        crossing = compute_crossing(row, n_classes)
        found = {pair: scores[fold] for fold, pair in pairs.items() if fold in scores}
        corpora = sorted({name for pair in pairs.values() for name in pair})
        tables.append(_make_matrix(system, corpora, found, crossing))
        records["cross_corpus"] += [
            _record_pair(system, pair, found.get(pair)) for pair in pairs.values()
        ]
        records["crossing"].append({"system": system} | _record_crossing(crossing))
    text = (
        f"Trained on one corpus and tested on each, on the {n_classes} classes that all of them "
        f"have: {', '.join(analysis.evidence.labels)}. Cells are unweighted average recall (UAR); "
        f"guessing reaches {analysis.chance:.3f}. On the diagonal, test speakers are unseen ones "
        "of the corpus that trained; off it, they are all speakers of the other corpus."
    )
    text = text if tables else "No run has finished."
    return Section("pairs", "From corpus to corpus", [text], tables=tables, records=records)


def _make_matrix(
    system: str, corpora: list[str], scores: Mapping[_Pair, Score], crossing: Crossing | None
) -> Table:
    rows = [
        [f"`{source}`", *(_format_cell(scores.get((source, target))) for target in corpora)]
        for source in corpora
    ]
    over = sorted({score.over for score in scores.values()} - {""})
    intervals = f" [95 % interval over {' or, of one seed, '.join(over)}]" if over else ""
    intervals = intervals.replace("over speakers", "over test speakers, by bootstrap")
    caption = f"`{system}`: UAR{intervals}; rows: trained on, columns: tested on"
    head = ["Trained on", *(f"tested on\n`{name}`" for name in corpora)]
    return Table(head, rows, caption, below=describe_crossing(system, crossing))


def _format_cell(score: Score | None) -> str:
    return format_mark(score.marks["uar"]) if score else "no result"


def describe_crossing(system: str, crossing: Crossing | None) -> str:
    """One sentence on what crossing costs a system."""
    if crossing is None:
        return f"What crossing costs `{system}` is open until a seed has every pair."
    cost = format_points(crossing.cost).removeprefix("+")
    reach = ""
    if crossing.interval:
        low, high = (format_points(end).removeprefix("+") for end in crossing.interval)
        reach = f" (95 % over {count_noun(len(crossing.seeds), 'seed')}: {low} to {high})"
    return (
        f"Crossing costs `{system}` {cost} points of UAR{reach}: "
        f"{100 * crossing.within:.1f} % on the diagonal, the mean over corpora, against "
        f"{100 * crossing.across:.1f} % off it ({describe_seeds(crossing.seeds)})."
    )


def _record_pair(system: str, pair: _Pair, score: Score | None) -> dict[str, Any]:
    record: dict[str, Any] = {"system": system, "trained_on": pair[0], "tested_on": pair[1]}
    for figure in reversed(FIGURES):  # uar first
        mark = score.marks[figure] if score else None
        low, high = (mark.interval if mark else None) or (None, None)
        record |= {figure: mark and mark.mean, f"{figure}_low": low, f"{figure}_high": high}
    if score:
        record |= {"interval_over": score.over, "clips": score.n}
        record["seeds"] = " ".join(map(str, score.seeds))
    return record


def _record_crossing(crossing: Crossing | None) -> dict[str, Any]:
    if crossing is None:
        return {}
    low, high = crossing.interval or (None, None)
    return {
        "within": crossing.within, "across": crossing.across, "cost": crossing.cost,
        "cost_low": low, "cost_high": high, "seeds": " ".join(map(str, crossing.seeds)),
    }  # fmt: skip


def make_pair_tiles(analysis: Analysis) -> list[Tile]:
    """The best system within a corpus and across; none under other protocols."""
    n_classes = len(analysis.evidence.labels)
    rows = _find_rows(analysis)
    every = {system: compute_crossing(row, n_classes) for system, row in rows.items()}
    known = {system: crossing for system, crossing in every.items() if crossing}
    tiles = []
    for key, where in (("within", "within a corpus"), ("across", "across corpora")):
        if known:
            best = max(known, key=lambda system: getattr(known[system], key))
            note = f"{best}, {count_noun(len(known[best].seeds), 'seed')}"
            share = f"{100 * getattr(known[best], key):.1f} %"
            tiles.append(Tile(f"best mean UAR {where}", share, note))
    return tiles
