"""What a report says first: the figures of note, and every system on one line."""

from __future__ import annotations

import numpy as np

from ser_jax.report.analysis import Analysis, format_points
from ser_jax.report.claims import CLAIMS
from ser_jax.report.contrasts import Contrast
from ser_jax.report.document import Content, Drawn, Items, Picture, Prose, Section, Table
from ser_jax.report.markup import Tile, make_forest, make_tiles

_VERDICTS = ("holds", "does not hold", "not decided")


def make_summary(
    analysis: Analysis, leakage: dict[str, list[tuple[str, Contrast]]]
) -> list[Content]:
    """What a reader wants first."""
    tiles, evidence = [], analysis.evidence
    for protocol in evidence.protocols:
        if best := _find_best(analysis, protocol):
            score = analysis.scores[best, protocol]
            folds = f", {score.folds}" if score.folds else ""
            note = f"{best}, {len(score.seeds)} seed{'s'[: len(score.seeds) != 1]}{folds}"
            accuracy = 100 * score.marks["accuracy"].mean
            tiles.append(Tile(f"{accuracy:.1f} %", f"best accuracy, `{protocol}`", note))
    for protocol, found in leakage.items():
        if found:
            effects = [contrast.effect for _, contrast in found]
            note = f"points, mean of {len(found)} systems over `{protocol}`"
            tiles.append(Tile(format_points(float(np.mean(effects))), "known speakers add", note))
    if majority := analysis.majority:
        note = f"always {majority[0]}: {100 * majority[1]:.1f} %"
        n_classes = len(evidence.labels)
        tiles.append(Tile(f"{100 * analysis.chance:.1f} %", f"chance, 1/{n_classes}", note))
    for protocol in evidence.protocols if analysis.findings else ():
        verdicts = [f.verdict for f in analysis.findings if f.protocol == protocol]
        counts = [str(verdicts.count(v)) for v in _VERDICTS]
        tiles.append(Tile(" / ".join(counts), f"claims, `{protocol}`", "hold / do not / open"))
    absent = evidence.n_cells - evidence.n_done
    note = f"{absent} missing or failed" if absent else "all that the grid asks for"
    tiles.append(Tile(f"{evidence.n_done:,} of {evidence.n_cells:,}", "runs done", note))
    lines = []
    for protocol in evidence.protocols:
        for verdict in _VERDICTS:
            claims = [
                CLAIMS[f.key].rstrip(".") + ("" if f.survives or verdict == "not decided" else " †")
                for f in analysis.findings
                if f.protocol == protocol and f.verdict == verdict
            ]
            if claims and verdict == "not decided":
                lines.append(f"`{protocol}`, not decided: the other {len(claims)} claims.")
            elif claims:
                what = f"`{protocol}`, {verdict.replace('holds', 'hold')}"
                lines.append(f"{what.replace('does not', 'do not')}: {'; '.join(claims)}.")
    missing = [Prose(f"Missing: {evidence.problems[0]}.")] if len(evidence.problems) == 1 else []
    if len(evidence.problems) > 1:
        missing = [Prose(f"{len(evidence.problems)} things are missing or amiss; see the list.")]
    instead = Table(
        ("", "", ""), [(t.label, t.value, t.note) for t in tiles], text_columns=(0, 1, 2)
    )
    weak = [Prose("† Does not survive Holm's correction over all claims.", "note")]
    weak = weak if any("†" in line for line in lines) else []
    return [Drawn(make_tiles(tiles), [instead]), Items(lines), *weak, *missing]


def _find_best(analysis: Analysis, protocol: str) -> str | None:
    """The system of greatest accuracy; those of all folds before those of some."""
    scores = {s: score for (s, p), score in analysis.scores.items() if p == protocol}
    return max(
        scores,
        key=lambda s: (not scores[s].folds, scores[s].marks["accuracy"].mean),
        default=None,
    )


def make_overview(analysis: Analysis) -> Section:
    """Every system on one line."""
    protocols = analysis.evidence.protocols
    rows = []
    for system in analysis.ranking:
        scores = {
            p: analysis.scores[system, p] for p in protocols if (system, p) in analysis.scores
        }
        marks = {p: score.marks["accuracy"] for p, score in scores.items()}
        notes = [f"{p}: {score.folds}" for p, score in scores.items() if score.folds]
        rows.append((system, marks, ", ".join(notes) or ("" if scores else "no result")))
    study = {name: figures["accuracy"] for name, figures in analysis.study.items()}
    markup = make_forest(rows, analysis.protocols, study, analysis.chance)
    alt = "Accuracy of every system under every protocol; the table has the figures"
    over = (
        "Dots are means over seeds, bars 95 % intervals: over seeds (Student's t) or, of a single "
        "seed, over speakers (bootstrap)."
    )
    over += " Diamonds are what the study published." * bool(study)
    blocks = [Drawn(markup, [Picture("systems", alt)]), Prose(over, "note")]
    return Section("systems", "All systems at a glance", blocks)
