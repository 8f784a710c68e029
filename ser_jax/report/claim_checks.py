"""How each claim of the study is tested: which differences, of which systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ser_jax.errors import count_noun
from ser_jax.report.case import MINUS, STUDY_ROLES, Case
from ser_jax.report.contrasts import Contrast, Term, compute_contrast, summarise_seeds
from ser_jax.report.evidence import find_full
from ser_jax.report.formats import format_points, format_range
from ser_jax.report.verdicts import Finding, Part

_GROUPS = {"gender": ("female", "male"), "intensity": ("normal", "strong")}
_SLIGHT = 0.05
_LAST_EPOCHS = 3

Check = Callable[[Case], Finding]


def _check_chance(case: Case) -> Finding:
    rows, variants, absent = case.find_models()
    chance = 1 / max(len(case.evidence.labels), 1)
    models = list(dict.fromkeys([*rows.values(), *variants]))
    parts = [
        case.compare(f"{row} {MINUS} chance", Term(1, row, case.protocol), constant=-chance)
        for row in models
    ]
    return case.judge(parts, absent, _name_judged(models, absent))


def _check_wav2vec2(case: Case) -> Finding:
    rows, variants, absent = case.find_models()
    best = rows.pop("wav2vec2", None)
    if best is None:
        return case.judge([], absent)
    others = list(dict.fromkeys([*rows.values(), *variants]))
    parts = [case.beat(best, other) for other in others]
    return case.judge(parts, absent, _name_judged(others, absent))


def _name_judged(rows: Sequence[str], absent: Sequence[str]) -> str:
    return f"judged on {', '.join(rows)}" if rows and absent else ""


def _check_order(better: str, worse: str) -> Check:
    def check(case: Case) -> Finding:
        rows, absent = case.find(better, worse)
        return case.judge([] if absent else [case.beat(rows[better], rows[worse])], absent)

    return check


def _check_variants(make_part: Callable[[Case, str, str], Part]) -> Check:
    """A claim about augmentation: what the study leaves open must not decide it."""

    def check(case: Case) -> Finding:
        rows, variants, absent = case.find_models()
        absent = case.find("cnn_lstm")[1] + absent[-1:] * (not variants)
        if absent:
            return case.judge([], absent)
        parts = [make_part(case, rows["cnn_lstm"], row) for row in variants]
        each = [case.judge([part]).verdict for part in parts]
        counts = {verdict: each.count(verdict) for verdict in dict.fromkeys(each)}
        said = ", ".join(f"{verdict} in {n}" for verdict, n in counts.items())
        settings = count_noun(len(each), "setting")
        found = case.judge(parts, [], f"of {settings} of augmentation: {said}")
        mixed = len(counts) > 1 and found.verdict == "does not hold"
        return found._replace(verdict="not decided") if mixed else found

    return check


def make_worse(case: Case, plain: str, augmented: str) -> Part:
    return case.beat(plain, augmented)


def make_calmer(case: Case, plain: str, augmented: str) -> Part:
    name = f"share of calm among predictions, {augmented} {MINUS} {plain}"
    if "calm" not in case.evidence.labels:
        return Part(name, Contrast(lack="the corpus has no calm"))
    pair = ((1, augmented), (-1, plain))
    return case.compare(name, *(Term(w, row, case.protocol, (), "calm") for w, row in pair))


def make_gap(case: Case, plain: str, augmented: str) -> Part:
    terms = case.average([augmented], "gender", _GROUPS["gender"])
    return case.compare(f"women {MINUS} men, {augmented}", *terms)


def _judge_groups(
    case: Case, column: str, name: str, pair: Sequence[str] = (), *, slight: bool = False
) -> Finding:
    """The difference between two groups, the mean over the study's systems.

    Args:
      slight: whether it must be below 5 points too.
    """
    rows, absent = case.find(*STUDY_ROLES)
    if not rows:
        return case.judge([], ["none of the study's systems was run"])
    terms = case.average(list(rows.values()), column, pair or _GROUPS[column])
    parts = [case.compare(f"{name}, mean over {', '.join(rows.values())}", *terms)]
    if slight:
        less = [term._replace(weight=-term.weight) for term in terms]
        parts.append(case.compare(f"5 points {MINUS} ({name})", *less, constant=_SLIGHT))
    reason = _describe_without_neutral(case, rows) if column == "intensity" else ""
    return case.judge(parts, absent, reason)


def _describe_without_neutral(case: Case, rows: dict[str, str]) -> str:
    """Neutral has no strong clips in RAVDESS, so the difference is partly one of emotions."""
    if "neutral" not in case.evidence.labels:
        return ""
    but = ("emotion!=", "neutral")
    terms = case.average(list(rows.values()), "intensity", _GROUPS["intensity"], *but)
    found = compute_contrast(case.evidence, terms)
    if found.lack or found.over_speakers is None:
        return ""
    effect, over = format_points(found.effect), format_range(found.over_speakers)
    return f"without neutral, which is never strong, {effect} points {over} over speakers"


def _check_statement(case: Case) -> Finding:
    """The claim does not say which statement is worse."""
    rows = list(case.find(*STUDY_ROLES)[0].values())
    found = {
        str(value)
        for row in rows
        for clips in case.evidence.rows[row, case.protocol].clips.values()
        for value in np.unique(clips.columns["statement"])
    } - {""}
    if rows and len(found) != 2:
        return case.judge([], ["needs predictions.csv with two statements"])
    pair = sorted(found)
    terms = case.average(rows, "statement", pair)
    if rows and compute_contrast(case.evidence, terms, resample=False).effect < 0:
        pair.reverse()
    return _judge_groups(case, "statement", f" {MINUS} ".join(pair), pair, slight=True)


def _check_best(role: str, *best: str) -> Check:
    """Recall of some emotions above that of each other one."""

    def check(case: Case) -> Finding:
        rows, absent = case.find(role)
        labels = case.evidence.labels
        absent += [f"the corpus has no {emotion}" for emotion in best if emotion not in labels]
        if absent:
            return case.judge([], absent)
        parts = [
            case.compare(
                f"recall of {good} {MINUS} {other}, {rows[role]}",
                Term(1, rows[role], case.protocol, ("emotion", good)),
                Term(-1, rows[role], case.protocol, ("emotion", other)),
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
        case.beat(more, rows[role]) for role, more in longer.items() if case.has(more) and more
    ]
    if parts:
        return case.judge(parts, (), "systems with more epochs against the study's number")
    parts = [part for row in rows.values() if (part := _compute_slope(case, row)) is not None]
    reason = (
        "no system with more epochs was run; fall of validation loss per epoch, "
        f"last {_LAST_EPOCHS}"
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
    contrast = Contrast(
        float(np.mean(value_S)), tuple(sorted(by_seed)), is_share=False, **summarise_seeds(value_S)
    )
    return Part(f"fall of validation loss per epoch, {row}", contrast)


CHECKS: dict[str, Check] = {
    "chance": _check_chance,
    "wav2vec2": _check_wav2vec2,
    "cnn_lstm": _check_order("cnn_lstm", "lstm"),
    "lstm": _check_order("lstm", "cnn"),
    "augmentation": _check_variants(make_worse),
    "calm": _check_variants(make_calmer),
    "gender": lambda case: _judge_groups(case, "gender", f"women {MINUS} men"),
    "gap": _check_variants(make_gap),
    "intensity": lambda case: _judge_groups(
        case, "intensity", f"normal {MINUS} strong", slight=True
    ),
    "statement": _check_statement,
    "best_wav2vec2": _check_best("wav2vec2", "angry", "calm"),
    "best_cnn_lstm": _check_best("cnn_lstm", "surprised"),
    "epochs": _check_epochs,
}
