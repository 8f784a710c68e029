"""A claim under one protocol: the rows at hand for it, and the differences drawn between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ser_jax.report.contrasts import Term, compute_contrast
from ser_jax.report.evidence import Evidence
from ser_jax.report.study_systems import VARIANTS, Roles
from ser_jax.report.verdicts import Finding, Part, judge

MINUS = "\u2212"
_GROUPS = {"gender": ("female", "male"), "intensity": ("normal", "strong")}


class Case(NamedTuple):
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

    def beat(self, better: str, worse: str) -> Part:
        return self.compare(f"{better} {MINUS} {worse}", self.term(1, better), self.term(-1, worse))

    def split(self, row: str, column: str, share: float, *but: str) -> list[Term]:
        """One group less the other, among the clips that `but` leaves."""
        pairs = zip((share, -share), _GROUPS[column], strict=True)
        return [self.term(weight, row, column, group, *but) for weight, group in pairs]
