"""A claim under one protocol: the systems that it is about, and the differences between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ser_jax.report.contrasts import Term, compute_contrast
from ser_jax.report.evidence import Evidence
from ser_jax.report.study_systems import VARIANTS, Roles
from ser_jax.report.verdicts import Finding, Part, judge

MINUS = "\u2212"
STUDY_ROLES = ("cnn", "lstm", "cnn_lstm", "wav2vec2")


class Case(NamedTuple):
    """A claim under one protocol."""

    evidence: Evidence
    roles: Roles
    protocol: str
    key: str

    def has(self, row: str | None) -> bool:
        return row is not None and self.evidence.get(row, self.protocol) is not None

    def find(self, *wanted: str) -> tuple[dict[str, str], list[str]]:
        """Rows by role that were run under the protocol, and what to say of the others."""
        found = {role: self.roles.plain.get(role) for role in wanted}
        rows = {role: row for role, row in found.items() if row and self.has(row)}
        return rows, [f"{found[role] or role} was not run" for role in wanted if role not in rows]

    def find_models(self) -> tuple[dict[str, str], list[str], list[str]]:
        """The study's systems that were run: by role, augmented ones, and what to say of others."""
        rows, absent = self.find(*STUDY_ROLES)
        found = [self.roles.augmented.get(key) for key in VARIANTS]
        variants = [row for row in found if row and self.has(row)]
        return rows, variants, absent + ["cnn_lstm_augmented was not run"] * (not variants)

    def compare(self, name: str, *terms: Term, constant: float = 0.0) -> Part:
        return Part(name, compute_contrast(self.evidence, terms, constant))

    def beat(self, better: str, worse: str) -> Part:
        terms = [Term(1, better, self.protocol), Term(-1, worse, self.protocol)]
        return self.compare(f"{better} {MINUS} {worse}", *terms)

    def average(self, rows: Sequence[str], column: str, pair: Sequence[str], *but: str):
        """One group minus the other, the mean over rows, among the clips that `but` leaves."""
        return [
            Term(sign / len(rows), row, self.protocol, (column, value, *but))
            for row in rows
            for sign, value in zip((1, -1), pair, strict=True)
        ]

    def judge(self, parts: Sequence[Part], absent: Sequence[str] = (), reason: str = "") -> Finding:
        return judge(self.key, self.protocol, parts, absent, reason)
