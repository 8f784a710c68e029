"""The study's claims, and whether our results bear them out.

A claim is a list of contrasts, each of which must be above zero. Verdicts follow `RULES`, which the
report prints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ser_jax.report.contrasts import Contrast, Term, compute_contrast
from ser_jax.report.evidence import Evidence, find_full
from ser_jax.report.roles import VARIANTS, Roles, find_roles
from ser_jax.report.statistics import (
    compute_effect_size,
    compute_flip_p,
    compute_seed_interval,
    compute_t_p,
    correct_by_holm,
)

Verdict = Literal["holds", "does not hold", "not decided"]
ALPHA = 0.05
MINUS = "\u2212"
RULES = (
    "Each claim is put as differences that must be above zero. It holds if every one of them is "
    "above zero with p < 0.05, both by the paired t test over seeds and by the bootstrap over "
    "speakers (10,000 draws of actors, systems paired on the same clips; two-sided). It does not "
    "hold if one of them is below zero with p < 0.05 by both, p being multiplied by the number of "
    "differences. Otherwise it is not decided. With a single seed there is no test over seeds, and "
    "the bootstrap decides alone. p is the greater of the two; of several differences the weakest "
    "is shown. p after Holm's correction over all claims of a protocol stands beside it, and a "
    "verdict that does not survive the correction is marked †. The exact sign-flip test over seeds "
    "is given too, but decides nothing: of five seeds its p is at least 2/32 = 0.0625."
)

CLAIMS = {
    "chance": "Every model beats chance (1/8).",
    "wav2vec2": "wav2vec 2.0 beats all others.",
    "cnn_lstm": "CNN-LSTM beats LSTM.",
    "lstm": "LSTM beats CNN.",
    "augmentation": "Augmentation makes CNN-LSTM worse.",
    "calm": "Augmentation makes CNN-LSTM predict calm more often.",
    "gender": "Accuracy is far higher for women than for men.",
    "gap": "Augmentation leaves that gap between women and men.",
    "intensity": "Strong intensity is recognised slightly worse than normal, perhaps by chance.",
    "statement": "One statement is recognised slightly worse than the other, perhaps by chance.",
    "best_wav2vec2": "wav2vec 2.0 is best at angry and calm.",
    "best_cnn_lstm": "CNN-LSTM is best at surprised.",
    "epochs": "Ten epochs do not yet flatten the curves.",
}
_STUDY_ROLES = ("cnn", "lstm", "cnn_lstm", "wav2vec2")
_LAST_EPOCHS = 3


class Part(NamedTuple):
    """One difference of a claim: what it is, and what it came to."""

    name: str
    contrast: Contrast


class Finding(NamedTuple):
    """A claim under one protocol.

    Attributes:
      key, protocol: which claim of `CLAIMS`, and under what.
      verdict: of the rules.
      parts: its differences.
      weakest: the one that is shown; None where none could be computed.
      p: of the claim; None likewise.
      reason: what is lacking, or worth saying.
      p_holm: p after Holm's correction over the claims of the protocol.
    """

    key: str
    protocol: str
    verdict: Verdict
    parts: list[Part]
    weakest: Part | None = None
    p: float | None = None
    reason: str = ""
    p_holm: float | None = None

    @property
    def survives(self) -> bool:
        """Whether a decided verdict stands after Holm's correction."""
        return self.p_holm is not None and self.p_holm < ALPHA


def judge(
    key: str, protocol: str, parts: Sequence[Part], lacking: Sequence[str] = (), reason: str = ""
) -> Finding:
    """A verdict by `RULES`; `lacking` names what the claim needs and the grid has not."""
    known = [part for part in parts if not part.contrast.lack]
    tested = [part for part in known if part.contrast.p is not None]
    lacks = [*lacking, *(part.contrast.lack for part in parts if part.contrast.lack)]
    lacks += [f"{p.name}: one seed, and no speakers known" for p in known if p not in tested]
    said = "; ".join(dict.fromkeys([reason, *lacks])).strip("; ")
    if not tested:
        return Finding(key, protocol, "not decided", list(parts), None, None, said)
    weakest = min(tested, key=_rank)
    p = weakest.contrast.p or 0.0
    if weakest.contrast.effect <= 0:
        p = min(1.0, p * len(tested))
    decided = p < ALPHA
    verdict: Verdict = "not decided"
    if decided and weakest.contrast.effect < 0:
        verdict = "does not hold"
    elif decided and not lacks:
        verdict = "holds"
    return Finding(key, protocol, verdict, list(parts), weakest, p, said)


def _rank(part: Part) -> float:
    """How much a difference speaks for its claim: from surely below zero to surely above."""
    contrast = part.contrast
    sure = 1 - (contrast.p if contrast.p is not None else 1.0)
    return sure if contrast.effect > 0 else -sure


def judge_all(evidence: Evidence) -> list[Finding]:
    """Every claim under every protocol of the grid, with Holm's correction."""
    roles = find_roles(evidence.settings)
    findings = []
    for protocol in evidence.protocols:
        here = [_CHECKS[key](_Case(evidence, roles, protocol, key)) for key in CLAIMS]
        tested = [place for place, finding in enumerate(here) if finding.p is not None]
        holm = correct_by_holm([here[place].p or 0.0 for place in tested])
        for place, p_holm in zip(tested, holm, strict=True):
            here[place] = here[place]._replace(p_holm=p_holm)
        findings += here
    return findings


class _Case(NamedTuple):
    """A claim to be looked at under one protocol."""

    evidence: Evidence
    roles: Roles
    protocol: str
    key: str

    def has(self, row: str | None) -> bool:
        return row is not None and self.evidence.get(row, self.protocol) is not None

    def find(self, *wanted: str) -> tuple[dict[str, str], list[str]]:
        """Rows of roles that were run under the protocol, and what to say of the others."""
        found = {role: self.roles.plain.get(role) for role in wanted}
        rows = {role: row for role, row in found.items() if row and self.has(row)}
        return rows, [f"{found[role] or role} was not run" for role in wanted if role not in rows]

    def variants(self) -> dict[tuple[str, str], str]:
        """Augmented rows that were run under the protocol."""
        rows = self.roles.augmented
        return {key: rows[key] for key in VARIANTS if self.has(rows.get(key))}

    def term(self, weight: float, row: str, *group: str, predicted: str | None = None) -> Term:
        return Term(weight, row, self.protocol, group, predicted)

    def compare(self, name: str, *terms: Term, constant: float = 0.0) -> Part:
        return Part(name, compute_contrast(self.evidence, terms, constant))

    def judge(
        self, parts: Sequence[Part], lacking: Sequence[str] = (), reason: str = ""
    ) -> Finding:
        return judge(self.key, self.protocol, parts, lacking, reason)


def _check_chance(case: _Case) -> Finding:
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


def _check_wav2vec2(case: _Case) -> Finding:
    rows, lacking = case.find(*_STUDY_ROLES)
    best = rows.pop("wav2vec2", None)
    others = dict.fromkeys([*rows.values(), *case.variants().values()])
    return case.judge([_beat(case, best, other) for other in others] if best else [], lacking)


def _beat(case: _Case, better: str, worse: str) -> Part:
    name = f"{better} {MINUS} {worse}"
    return case.compare(name, case.term(1, better), case.term(-1, worse))


def _check_order(better: str, worse: str) -> Callable[[_Case], Finding]:
    def check(case: _Case) -> Finding:
        rows, lacking = case.find(better, worse)
        return case.judge([] if lacking else [_beat(case, rows[better], rows[worse])], lacking)

    return check


def _over_variants(parts_of: Callable[[_Case, str, str], Part]) -> Callable[[_Case], Finding]:
    """A claim about augmentation: what the study leaves open must not decide it."""

    def check(case: _Case) -> Finding:
        rows, lacking = case.find("cnn_lstm")
        variants = case.variants()
        lacking += [] if variants else ["cnn_lstm_augmented was not run"]
        if lacking:
            return case.judge([], lacking)
        parts = [parts_of(case, rows["cnn_lstm"], row) for row in variants.values()]
        each = [case.judge([part]).verdict for part in parts]
        counts = {v: each.count(v) for v in dict.fromkeys(each)}
        said = ", ".join(f"{verdict} in {n}" for verdict, n in counts.items())
        plural = "settings" if len(each) > 1 else "setting"
        found = case.judge(parts, [], f"of {len(each)} {plural} of augmentation: {said}")
        if found.verdict == "does not hold" and counts.get("does not hold") != len(each):
            return found._replace(verdict="not decided")
        return found

    return check


def _worsen(case: _Case, plain: str, augmented: str) -> Part:
    return _beat(case, plain, augmented)


def _more_calm(case: _Case, plain: str, augmented: str) -> Part:
    name = f"share of calm among predictions, {augmented} {MINUS} {plain}"
    if "calm" not in case.evidence.labels:
        return Part(name, Contrast(lack="the corpus has no calm"))
    terms = [case.term(w, row, predicted="calm") for w, row in ((1, augmented), (-1, plain))]
    return case.compare(name, *terms)


def _keep_gap(case: _Case, plain: str, augmented: str) -> Part:
    return case.compare(f"women {MINUS} men, {augmented}", *_split(case, augmented, "gender", 1))


def _split(case: _Case, row: str, column: str, share: float, *but: str) -> list[Term]:
    """One group less the other, among the clips that `but` leaves."""
    pairs = zip((share, -share), _GROUPS[column], strict=True)
    return [case.term(weight, row, column, group, *but) for weight, group in pairs]


_GROUPS = {"gender": ("female", "male"), "intensity": ("normal", "strong")}


def _check_groups(
    column: str, name: str, remark: Callable[[_Case, dict[str, str]], str]
) -> Callable[[_Case], Finding]:
    """The mean over the study's systems of the difference between two groups."""

    def check(case: _Case) -> Finding:
        rows, _ = case.find(*_STUDY_ROLES)
        if not rows:
            return case.judge([], ["none of the study's systems was run"])
        terms = [t for row in rows.values() for t in _split(case, row, column, 1 / len(rows))]
        over = f"mean over {', '.join(rows.values())}"
        return case.judge([case.compare(f"{name}, {over}", *terms)], (), remark(case, rows))

    return check


def _remark_nothing(case: _Case, rows: dict[str, str]) -> str:
    return ""


def _remark_neutral(case: _Case, rows: dict[str, str]) -> str:
    """Neutral has no strong clips in RAVDESS, so the difference is partly one of emotions."""
    if "neutral" not in case.evidence.labels:
        return ""
    but = ("emotion!=", "neutral")
    terms = [t for r in rows.values() for t in _split(case, r, "intensity", 1 / len(rows), *but)]
    found = compute_contrast(case.evidence, terms)
    if found.lack or found.over_speakers is None:
        return ""
    effect, (low, high) = 100 * found.effect, found.over_speakers
    return (
        f"without neutral, which is never strong, {effect:+.1f} points "
        f"[{100 * low:+.1f}, {100 * high:+.1f}] over speakers"
    )


def _check_statement(case: _Case) -> Finding:
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


def _check_best(role: str, *best: str) -> Callable[[_Case], Finding]:
    """Recall of some emotions above that of each other one."""

    def check(case: _Case) -> Finding:
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


def _check_epochs(case: _Case) -> Finding:
    rows, _ = case.find("cnn", "lstm", "cnn_lstm")
    longer = {role: case.roles.longer.get(role) for role in rows}
    parts = [_beat(case, more, rows[role]) for role, more in longer.items() if case.has(more)]
    if parts:
        return case.judge(parts, (), "rows with more epochs against the study's number")
    parts = [part for row in rows.values() if (part := _compute_slope(case, row)) is not None]
    reason = (
        f"no row with more epochs was run; fall of validation loss per epoch, last {_LAST_EPOCHS}"
    )
    return case.judge(parts, () if parts else ["needs events.jsonl of two seeds"], reason)


def _compute_slope(case: _Case, row: str) -> Part | None:
    """How fast validation loss falls at the end, per epoch: each seed's mean over its folds."""
    found = case.evidence.rows[row, case.protocol]
    by_seed: dict[int, list[float]] = {}
    full = find_full(set(found.events), found.folds)
    for (seed, _), events in found.events.items():
        losses = [e.get("val_loss") for e in events if e.get("event") == "epoch"][-_LAST_EPOCHS:]
        if seed in full and len(losses) == _LAST_EPOCHS and None not in losses:
            by_seed.setdefault(seed, []).append(-np.polyfit(range(_LAST_EPOCHS), losses, 1)[0])
    value_S = [float(np.mean(values)) for _, values in sorted(by_seed.items())]
    if len(value_S) < 2:
        return None
    return Part(
        f"fall of validation loss per epoch, {row}",
        Contrast(
            float(np.mean(value_S)), tuple(sorted(by_seed)), tuple(value_S),
            over_seeds=compute_seed_interval(value_S), p_t=compute_t_p(value_S),
            p_flip=compute_flip_p(value_S), size=compute_effect_size(value_S),
        ),
    )  # fmt: skip


_CHECKS: dict[str, Callable[[_Case], Finding]] = {
    "chance": _check_chance,
    "wav2vec2": _check_wav2vec2,
    "cnn_lstm": _check_order("cnn_lstm", "lstm"),
    "lstm": _check_order("lstm", "cnn"),
    "augmentation": _over_variants(_worsen),
    "calm": _over_variants(_more_calm),
    "gender": _check_groups("gender", f"women {MINUS} men", _remark_nothing),
    "gap": _over_variants(_keep_gap),
    "intensity": _check_groups("intensity", f"normal {MINUS} strong", _remark_neutral),
    "statement": _check_statement,
    "best_wav2vec2": _check_best("wav2vec2", "angry", "calm"),
    "best_cnn_lstm": _check_best("cnn_lstm", "surprised"),
    "epochs": _check_epochs,
}


class Variant(NamedTuple):
    """One setting of augmentation, and the claims about it."""

    normalise: str
    when: str
    row: str | None
    findings: dict[str, Finding]


def judge_variants(evidence: Evidence, protocol: str) -> list[Variant]:
    """The claims about augmentation for each of augment.normalise x augment.when."""
    roles = find_roles(evidence.settings)
    checks = {"augmentation": _worsen, "calm": _more_calm, "gap": _keep_gap}
    variants = []
    for normalise, when in VARIANTS:
        row = roles.augmented.get((normalise, when))
        findings = {}
        for key, make_part in checks.items():
            case = _Case(evidence, roles, protocol, key)
            rows, lacking = case.find("cnn_lstm")
            lacking += [] if row and case.has(row) else ["not run"]
            parts = [] if lacking or row is None else [make_part(case, rows["cnn_lstm"], row)]
            findings[key] = case.judge(parts, lacking)
        variants.append(Variant(normalise, when, row, findings))
    return variants
