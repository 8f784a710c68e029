"""How each claim of the study is looked at: which differences, of which rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ser_jax.errors import count_noun
from ser_jax.report.case import MINUS, Case
from ser_jax.report.contrasts import Contrast, compute_contrast
from ser_jax.report.evidence import find_full
from ser_jax.report.verdicts import Finding, Part
from ser_jax.statistics import (
    compute_effect_size,
    compute_flip_p,
    compute_seed_interval,
    compute_t_p,
)

_STUDY_ROLES = ("cnn", "lstm", "cnn_lstm", "wav2vec2")
_LAST_EPOCHS = 3


def _check_chance(case: Case) -> Finding:
    rows, lacking = case.find(*_STUDY_ROLES)
    variants = case.variants()
    lacking += [] if variants else ["cnn_lstm_augmented was not run"]
    chance = 1 / max(len(case.evidence.labels), 1)
    every = dict.fromkeys([*rows.values(), *variants.values()])
    return case.judge(
        [
            case.compare(f"{row} {MINUS} chance", case.term(1, row), constant=-chance)
            for row in every
        ],
        lacking,
    )


def _check_wav2vec2(case: Case) -> Finding:
    rows, lacking = case.find(*_STUDY_ROLES)
    best = rows.pop("wav2vec2", None)
    others = dict.fromkeys([*rows.values(), *case.variants().values()])
    return case.judge([case.beat(best, other) for other in others] if best else [], lacking)


def _check_order(better: str, worse: str) -> Callable[[Case], Finding]:
    def check(case: Case) -> Finding:
        rows, lacking = case.find(better, worse)
        return case.judge([] if lacking else [case.beat(rows[better], rows[worse])], lacking)

    return check


def _over_variants(parts_of: Callable[[Case, str, str], Part]) -> Callable[[Case], Finding]:
    """A claim about augmentation: what the study leaves open must not decide it."""

    def check(case: Case) -> Finding:
        rows, lacking = case.find("cnn_lstm")
        variants = case.variants()
        lacking += [] if variants else ["cnn_lstm_augmented was not run"]
        if lacking:
            return case.judge([], lacking)
        parts = [parts_of(case, rows["cnn_lstm"], row) for row in variants.values()]
        each = [case.judge([part]).verdict for part in parts]
        counts = {v: each.count(v) for v in dict.fromkeys(each)}
        said = ", ".join(f"{verdict} in {n}" for verdict, n in counts.items())
        found = case.judge(
            parts, [], f"of {count_noun(len(each), 'setting')} of augmentation: {said}"
        )
        if found.verdict == "does not hold" and counts.get("does not hold") != len(each):
            return found._replace(verdict="not decided")
        return found

    return check


def make_worse(case: Case, plain: str, augmented: str) -> Part:
    return case.beat(plain, augmented)


def make_calmer(case: Case, plain: str, augmented: str) -> Part:
    name = f"share of calm among predictions, {augmented} {MINUS} {plain}"
    if "calm" not in case.evidence.labels:
        return Part(name, Contrast(lack="the corpus has no calm"))
    terms = [case.term(w, row, predicted="calm") for w, row in ((1, augmented), (-1, plain))]
    return case.compare(name, *terms)


def make_gap(case: Case, plain: str, augmented: str) -> Part:
    return case.compare(f"women {MINUS} men, {augmented}", *case.split(augmented, "gender", 1))


def _check_groups(
    column: str, name: str, remark: Callable[[Case, dict[str, str]], str]
) -> Callable[[Case], Finding]:
    """The mean over the study's systems of the difference between two groups."""

    def check(case: Case) -> Finding:
        rows, _ = case.find(*_STUDY_ROLES)
        if not rows:
            return case.judge([], ["none of the study's systems was run"])
        terms = [t for row in rows.values() for t in case.split(row, column, 1 / len(rows))]
        over = f"mean over {', '.join(rows.values())}"
        return case.judge([case.compare(f"{name}, {over}", *terms)], (), remark(case, rows))

    return check


def _remark_nothing(case: Case, rows: dict[str, str]) -> str:
    return ""


def _remark_neutral(case: Case, rows: dict[str, str]) -> str:
    """Neutral has no strong clips in RAVDESS, so the difference is partly one of emotions."""
    if "neutral" not in case.evidence.labels:
        return ""
    but = ("emotion!=", "neutral")
    terms = [t for r in rows.values() for t in case.split(r, "intensity", 1 / len(rows), *but)]
    found = compute_contrast(case.evidence, terms)
    if found.lack or found.over_speakers is None:
        return ""
    effect, (low, high) = 100 * found.effect, found.over_speakers
    return (
        f"without neutral, which is never strong, {effect:+.1f} points "
        f"[{100 * low:+.1f}, {100 * high:+.1f}] over speakers"
    )


def _check_statement(case: Case) -> Finding:
    rows, _ = case.find(*_STUDY_ROLES)
    if not rows:
        return case.judge([], ["none of the study's systems was run"])
    found = {
        str(value)
        for row in rows.values()
        for clips in case.evidence.rows[row, case.protocol].clips.values()
        for value in np.unique(clips.columns["statement"])
    } - {""}
    if len(found) != 2:
        return case.judge([], ["needs predictions.csv with two statements"])
    first, second = sorted(found)
    share = 1 / len(rows)
    terms = [
        case.term(sign * share, row, "statement", value)
        for row in rows.values()
        for sign, value in ((1, first), (-1, second))
    ]
    over = f"mean over {', '.join(rows.values())}"
    part = case.compare(f"{first} {MINUS} {second}, {over}", *terms)
    if part.contrast.effect < 0:  # the claim does not say which one is worse
        terms = [term._replace(weight=-term.weight) for term in terms]
        part = case.compare(
            f"{second} {MINUS} {first}, mean over {', '.join(rows.values())}", *terms
        )
    return case.judge([part])


def _check_best(role: str, *best: str) -> Callable[[Case], Finding]:
    """Recall of some emotions above that of each other one."""

    def check(case: Case) -> Finding:
        rows, lacking = case.find(role)
        labels = case.evidence.labels
        lacking += [f"the corpus has no {emotion}" for emotion in best if emotion not in labels]
        if lacking:
            return case.judge([], lacking)
        parts = [
            case.compare(
                f"recall of {good} {MINUS} {other}, {rows[role]}",
                case.term(1, rows[role], "emotion", good),
                case.term(-1, rows[role], "emotion", other),
            )
            for good in best
            for other in labels
            if other not in best
        ]
        return case.judge(parts)

    return check


def _check_epochs(case: Case) -> Finding:
    rows, _ = case.find("cnn", "lstm", "cnn_lstm")
    longer = {role: case.roles.longer.get(role) for role in rows}
    parts = [
        case.beat(more, rows[role]) for role, more in longer.items() if more and case.has(more)
    ]
    if parts:
        return case.judge(parts, (), "rows with more epochs against the study's number")
    parts = [part for row in rows.values() if (part := _compute_slope(case, row)) is not None]
    reason = (
        f"no row with more epochs was run; fall of validation loss per epoch, last {_LAST_EPOCHS}"
    )
    return case.judge(parts, () if parts else ["needs events.jsonl of two seeds"], reason)


def _compute_slope(case: Case, row: str) -> Part | None:
    """How fast validation loss falls at the end, per epoch: each seed's mean over its folds."""
    found = case.evidence.rows[row, case.protocol]
    by_seed: dict[int, list[float]] = {}
    full = find_full(set(found.events), found.folds)
    for (seed, _), events in found.events.items():
        last = [e.get("val_loss") for e in events if e.get("event") == "epoch"][-_LAST_EPOCHS:]
        losses = [loss for loss in last if loss is not None]
        if seed in full and len(losses) == _LAST_EPOCHS:
            by_seed.setdefault(seed, []).append(-np.polyfit(range(_LAST_EPOCHS), losses, 1)[0])
    value_S = [float(np.mean(values)) for _, values in sorted(by_seed.items())]
    if len(value_S) < 2:
        return None
    return Part(
        f"fall of validation loss per epoch, {row}",
        Contrast(
            float(np.mean(value_S)), tuple(sorted(by_seed)), tuple(value_S),
            over_seeds=compute_seed_interval(value_S), p_t=compute_t_p(value_S),
            p_flip=compute_flip_p(value_S), size=compute_effect_size(value_S), is_share=False,
        ),
    )  # fmt: skip


CHECKS: dict[str, Callable[[Case], Finding]] = {
    "chance": _check_chance,
    "wav2vec2": _check_wav2vec2,
    "cnn_lstm": _check_order("cnn_lstm", "lstm"),
    "lstm": _check_order("lstm", "cnn"),
    "augmentation": _over_variants(make_worse),
    "calm": _over_variants(make_calmer),
    "gender": _check_groups("gender", f"women {MINUS} men", _remark_nothing),
    "gap": _over_variants(make_gap),
    "intensity": _check_groups("intensity", f"normal {MINUS} strong", _remark_neutral),
    "statement": _check_statement,
    "best_wav2vec2": _check_best("wav2vec2", "angry", "calm"),
    "best_cnn_lstm": _check_best("cnn_lstm", "surprised"),
    "epochs": _check_epochs,
}
