"""Verdicts: from differences that a claim puts above zero to whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ser_jax.report.contrasts import Contrast

Verdict = Literal["holds", "does not hold", "not decided"]
ALPHA = 0.05
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
