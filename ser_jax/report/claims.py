"""The study's claims, and whether our results support them under each protocol.

A claim is a list of contrasts that must be positive; `verdicts.RULES` has the rest.
"""

from __future__ import annotations

from typing import NamedTuple

from ser_jax.report.case import Case
from ser_jax.report.claim_checks import CHECKS, make_calmer, make_gap, make_worse
from ser_jax.report.evidence import Evidence
from ser_jax.report.study_systems import VARIANTS, find_roles
from ser_jax.report.verdicts import Finding
from ser_jax.statistics import correct_by_holm

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


def judge_all(evidence: Evidence) -> list[Finding]:
    """Every claim under every protocol of the grid, with Holm's correction."""
    roles = find_roles(evidence.settings)
    findings = []
    for protocol in evidence.protocols:
        here = [CHECKS[key](Case(evidence, roles, protocol, key)) for key in CLAIMS]
        tested = [place for place, finding in enumerate(here) if finding.p is not None]
        holm = correct_by_holm([here[place].p or 0.0 for place in tested])
        for place, p_holm in zip(tested, holm, strict=True):
            here[place] = here[place]._replace(p_holm=p_holm)
        findings += here
    return findings


class Variant(NamedTuple):
    """One setting of augmentation, and the claims about it."""

    normalise: str
    when: str
    row: str | None
    findings: dict[str, Finding]


def judge_variants(evidence: Evidence, protocol: str) -> list[Variant]:
    """The claims about augmentation for each of augment.normalise x augment.when."""
    roles = find_roles(evidence.settings)
    checks = {"augmentation": make_worse, "calm": make_calmer, "gap": make_gap}
    variants = []
    for normalise, when in VARIANTS:
        row = roles.augmented.get((normalise, when))
        findings = {}
        for key, make_part in checks.items():
            case = Case(evidence, roles, protocol, key)
            rows, absent = case.find("cnn_lstm")
            absent += [] if case.has(row) else ["not run"]
            parts = [] if absent or row is None else [make_part(case, rows["cnn_lstm"], row)]
            findings[key] = case.judge(parts, absent)
        variants.append(Variant(normalise, when, row, findings))
    return variants
