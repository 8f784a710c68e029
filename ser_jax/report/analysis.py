"""All that the chapters of a report draw on, computed once; how figures are written in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ser_jax.errors import count_noun
from ser_jax.report.claims import judge_all
from ser_jax.report.contrasts import Contrast
from ser_jax.report.evidence import Evidence
from ser_jax.report.scores import Score, compute_system_scores
from ser_jax.report.study_systems import Roles, find_roles
from ser_jax.report.verdicts import Finding
from ser_jax.statistics import Interval, Mark

SHARED = "study"
"""The protocol under which speakers of the test are heard in training."""
_LABELS = {
    "study": "the study's split (same speakers in training)",
    "emobox6": "EmoBox, six folds (unseen speakers)",
    "luna5": "Luna-Jiménez, five folds (unseen speakers)",
    "loso": "leave one speaker out",
    "speakers": "speakers drawn 70:15:15 (unseen speakers)",
    "speakers5": "five folds of speakers (unseen speakers)",
}


class Analysis(NamedTuple):
    """Evidence and what follows from it."""

    evidence: Evidence
    roles: Roles
    scores: dict[tuple[str, str], Score]
    findings: list[Finding]

    @property
    def ranking(self) -> list[str]:
        """Systems by accuracy under the first protocol in which they have a figure; others last."""
        first: dict[str, tuple[int, float]] = {}
        for system in self.evidence.systems:
            for place, protocol in enumerate(self.evidence.protocols):
                score = self.scores.get((system, protocol))
                if score and system not in first:
                    first[system] = (place, -score.marks["accuracy"].mean)
        return sorted(self.evidence.systems, key=lambda s: first.get(s, (99, 0.0)))

    @property
    def study(self) -> dict[str, dict[str, float]]:
        """Published figures by the row that stands for the study's system."""
        published = self.evidence.results.get("study") or {}
        stands = {role: row for role, row in self.roles.named.items() if role in published}
        found = {name: published[name] for name in self.evidence.systems if name in published}
        return found | {row: published[role] for role, row in stands.items()}

    @property
    def where(self) -> str:
        """`nemo, ` before a protocol in titles; nothing for the study's own recordings."""
        return "" if self.evidence.is_of_study else f"{self.evidence.corpus}, "

    @property
    def majority(self) -> tuple[str, float] | None:
        """The test clips' most frequent class, and what always saying it would reach."""
        best = next(iter(self.scores.values()), None)
        if best is None:
            return None
        true_C = best.confusion_CC.sum(axis=1)
        return self.evidence.labels[int(true_C.argmax())], float(true_C.max() / true_C.sum())

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 1 / max(len(self.evidence.labels), 1)

    @property
    def protocols(self) -> dict[str, str]:
        """Names of protocols, and what they are."""
        return {name: label(name) for name in self.evidence.protocols}


def analyse(evidence: Evidence) -> Analysis:
    """Compute scores, and verdicts where the study's recordings and systems are there."""
    roles = find_roles(evidence.settings)
    has_claims = evidence.is_of_study and bool(roles.plain)
    findings = judge_all(evidence) if has_claims else []
    return Analysis(evidence, roles, compute_system_scores(evidence), findings)


def label(protocol: str) -> str:
    """A protocol in words, its name first."""
    return f"{protocol}: {_LABELS[protocol]}" if protocol in _LABELS else protocol


def format_mark(mark: Mark | None, digits: int = 3) -> str:
    """`0.463`, and `[0.421, 0.505]` on a second line."""
    if mark is None:
        return "-"
    if mark.interval is None:
        return f"{mark.mean:.{digits}f}"
    low, high = (min(max(x, 0.0), 1.0) for x in mark.interval)  # no share lies beyond
    return f"{mark.mean:.{digits}f}\n[{low:.{digits}f}, {high:.{digits}f}]"


def format_count(score: Score) -> str:
    """`3 seeds x 216 clips`, and the folds if not all count."""
    seeds = count_noun(len(score.seeds), "seed")
    folds = f", {score.folds}" if score.folds else ""
    starred = "*" if score.over == "speakers" else ""
    return f"{seeds}{starred}\n{score.n:,} clips{folds}"


def format_points(value: float, *, is_share: bool = True) -> str:
    """A difference of shares in percentage points; of anything else as it is."""
    text = f"{100 * value:+.1f}" if is_share else f"{value:+.3f}"
    return text.replace("-", "\u2212")


def format_range(interval: Interval | None, *, is_share: bool = True) -> str:
    """`[+1.0, +11.2]`, in the same way."""
    if interval is None:
        return ""
    low, high = (format_points(end, is_share=is_share) for end in interval)
    return f"[{low}, {high}]"


def format_p(p: float | None) -> str:
    """`0.034`, `< 0.001`."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def describe_seeds(seeds: Sequence[int]) -> str:
    """`seed 0`, `seeds 0 to 4`, `seeds 0, 2`."""
    seeds = sorted(seeds)
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def list_columns(contrast: Contrast) -> dict[str, object]:
    """A contrast as columns of a CSV file, shares in full precision."""

    def ends(name: str, interval: Interval | None) -> dict[str, object]:
        low, high = interval or (None, None)
        return {f"{name}_low": low, f"{name}_high": high}

    return {
        "effect": None if contrast.lack else contrast.effect,
        **ends("seeds", contrast.over_seeds),
        **ends("speakers", contrast.over_speakers),
        "p_t": contrast.p_t,
        "p_sign_flip": contrast.p_flip,
        "p_speakers": contrast.p_speakers,
        "cohens_dz": contrast.size,
        "seeds": " ".join(map(str, contrast.seeds)),
        "clips": contrast.n or None,
        "folds": contrast.folds,
        "lacks": contrast.lack,
    }
