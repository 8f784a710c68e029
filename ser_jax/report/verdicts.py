"""Verdicts: whether a claim holds, from differences that must be positive if it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ser_jax.report.contrasts import Contrast

Verdict = Literal["holds", "does not hold", "not decided"]
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "not decided")
ALPHA = 0.05
RULES = (
    "Each claim is written as differences that must be positive; 'slightly' worse means worse by "
    "less than 5 points. A claim about several systems is judged on those that were run, and its "
    "note names the others. It holds if every difference is positive with p < 0.05, both by the "
    "paired t test over seeds and by the bootstrap over speakers (10,000 draws of actors, systems "
    "paired on the same clips; two-sided); p is the greater of the two. It does not hold if a "
    "difference is negative with p < 0.05, p being multiplied by the number of differences. "
    "Otherwise it is not decided. With a single seed the bootstrap decides alone. Of several "
    "differences the weakest is shown: the one that is least surely positive, and of equally sure "
    "ones the smallest. Beside its p stands p after Holm's correction over all claims of a "
    "protocol; † marks a verdict that does not survive the correction. The exact sign-flip test "
    "over seeds is given too but decides nothing: with five seeds its p is at least 2/32 = 0.0625."
)
DETECTABLE = (
    "Detectable at power 0.8: the smallest difference that the paired t test, two-sided at 5 %, "
    "finds in four of five repetitions with as many seeds, if the differences vary from seed to "
    "seed as they do here. A claim that is not decided says little about smaller differences. The "
    "bootstrap over speakers and Holm's correction may ask for more. It is computed by the "
    "noncentral t distribution, for the difference that is shown, and needs two seeds that differ."
)


class Part(NamedTuple):
    """One difference of a claim: what it is, and its value."""

    name: str
    contrast: Contrast


class Finding(NamedTuple):
    """A claim under one protocol.

    Attributes:
      key, protocol: which claim of `claims.CLAIMS`, and where.
      verdict: by `RULES`.
      parts: its differences.
      weakest: the one that is shown; None where none could be computed.
      p: of the claim; None likewise.
      reason: what is missing, or worth saying.
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
        """Whether p is below `ALPHA` after Holm's correction too."""
        return self.p_holm is not None and self.p_holm < ALPHA

    @property
    def is_weak(self) -> bool:
        """Whether it is decided, but not after Holm's correction."""
        return self.verdict != "not decided" and not self.survives


def judge(
    key: str, protocol: str, parts: Sequence[Part], absent: Sequence[str] = (), reason: str = ""
) -> Finding:
    """A verdict by `RULES`; `absent` names the systems of the claim that were not run."""
    known = [part for part in parts if not part.contrast.lack]
    tested = [part for part in known if part.contrast.p is not None]
    lacks = [part.contrast.lack for part in parts if part.contrast.lack]
    lacks += [f"{p.name}: one seed, and no speakers known" for p in known if p not in tested]
    said = "; ".join(text for text in dict.fromkeys([reason, *absent, *lacks]) if text)
    if not tested:
        return Finding(key, protocol, "not decided", list(parts), None, None, said)
    weakest = min(tested, key=_rank)
    effect, p = weakest.contrast.effect, weakest.contrast.p or 0.0
    if effect <= 0:
        p = min(1.0, p * len(tested))
    verdict: Verdict = "not decided"
    if p < ALPHA and effect < 0:
        verdict = "does not hold"
    elif p < ALPHA and not lacks:
        verdict = "holds"
    return Finding(key, protocol, verdict, list(parts), weakest, p, said)


def _rank(part: Part) -> tuple[float, float]:
    """How much a difference supports its claim: from surely negative to surely positive.

    The effect breaks ties, as where no draw of the bootstrap has the other sign.
    """
    contrast = part.contrast
    sure = 1 - (1.0 if contrast.p is None else contrast.p)
    return (sure if contrast.effect > 0 else -sure), contrast.effect
