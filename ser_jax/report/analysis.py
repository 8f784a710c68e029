"""What all sections of a report draw on, computed once."""

from __future__ import annotations

from typing import Any, NamedTuple

from ser_jax.report.claims import judge_all
from ser_jax.report.evidence import Evidence
from ser_jax.report.scores import Score, compute_system_scores
from ser_jax.report.study_systems import Roles, find_roles
from ser_jax.report.tables import rank_systems, summarise
from ser_jax.report.verdicts import Finding

SHARED = "study"
"""The protocol under which the speakers of the test are in the training clips too."""


class Analysis(NamedTuple):
    """Evidence and what follows from it.

    Attributes:
      summary: rows of `tables.summarise`.
      ranking: systems, in the order of every table and figure.
      findings: verdicts on the study's claims; empty for other recordings or systems.
    """

    evidence: Evidence
    roles: Roles
    summary: list[dict[str, Any]]
    ranking: list[str]
    scores: dict[tuple[str, str], Score]
    findings: list[Finding]

    @property
    def study(self) -> dict[str, dict[str, float]]:
        """Published figures by the row that stands for the study's system."""
        published = self.evidence.results.get("study") or {}
        if not self.evidence.is_of_study:
            return {}
        stands = {role: row for role, row in self.roles.named.items() if role in published}
        found = {name: published[name] for name in self.evidence.systems if name in published}
        return found | {row: published[role] for role, row in stands.items()}

    @property
    def where(self) -> str:
        """`nemo, ` before a protocol in titles; nothing for the study's own recordings."""
        return "" if self.evidence.is_of_study else f"{self.evidence.corpus}, "

    @property
    def majority(self) -> tuple[str, float] | None:
        """The most frequent class of the test clips, and the accuracy of always predicting it."""
        first = next(iter(self.scores.values()), None)
        if first is None:
            return None
        true_C = first.confusion_CC.sum(axis=1)
        return self.evidence.labels[int(true_C.argmax())], float(true_C.max() / true_C.sum())

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 1 / max(len(self.evidence.labels), 1)

    def find(self, protocol: str) -> dict[str, Score]:
        """Scores under a protocol, best system first."""
        return {s: self.scores[s, protocol] for s in self.ranking if (s, protocol) in self.scores}


def analyse(evidence: Evidence) -> Analysis:
    """Compute scores, and verdicts where the study's recordings and systems are there."""
    roles = find_roles(evidence.settings)
    has_claims = evidence.is_of_study and bool(roles.plain)
    findings = judge_all(evidence) if has_claims else []
    summary = summarise(evidence.results["cells"])
    scores = compute_system_scores(evidence)
    return Analysis(evidence, roles, summary, rank_systems(summary), scores, findings)
