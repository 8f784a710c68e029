"""What a report says first: the figures of note, and every system on one line."""

from __future__ import annotations

from typing import Any

import numpy as np

from ser_jax.errors import count_noun
from ser_jax.report.analysis import Analysis
from ser_jax.report.claims import CLAIMS
from ser_jax.report.figure_sections import draw_overviews
from ser_jax.report.formats import format_points, label
from ser_jax.report.page import Picture, Section, Tile
from ser_jax.report.pair_sections import make_pair_tiles
from ser_jax.report.result_sections import Leakage
from ser_jax.report.verdicts import VERDICTS, Verdict


def make_summary(analysis: Analysis, leakage: Leakage) -> Section:
    """What a reader wants first."""
    verdicts = list_verdicts(analysis)
    notes = ["† Does not survive Holm's correction over all claims."]
    notes = notes * any("†" in line for line in verdicts)
    problems = analysis.evidence.problems
    if len(problems) == 1:
        notes.append(f"Missing: {problems[0]}.")
    elif problems:
        notes.append(f"{len(problems)} things are missing or wrong; see the list.")
    return Section(
        "summary", "Summary", tiles=_make_tiles(analysis, leakage), items=verdicts, notes=notes
    )


def _make_tiles(analysis: Analysis, leakage: Leakage) -> list[Tile]:
    tiles, evidence = make_pair_tiles(analysis), analysis.evidence
    for protocol in evidence.protocols if not evidence.is_cross_corpus else ():
        scores = analysis.find(protocol)
        if scores:  # those of all folds before those of some
            best = max(
                scores, key=lambda s: (not scores[s].folds, scores[s].marks["accuracy"].mean)
            )
            score = scores[best]
            note = f"{best}, {count_noun(len(score.seeds), 'seed')}"
            note += f", {score.folds}" if score.folds else ""
            accuracy = 100 * score.marks["accuracy"].mean
            tiles.append(Tile(f"best accuracy, `{protocol}`", f"{accuracy:.1f} %", note))
    for protocol, found in leakage.items():
        if found:
            mean = float(np.mean([contrast.effect for contrast in found.values()]))
            note = f"points, mean of {count_noun(len(found), 'system')} over `{protocol}`"
            tiles.append(Tile("known speakers add", format_points(mean), note))
    if majority := analysis.majority:
        note = f"always {majority[0]}: {100 * majority[1]:.1f} %"
        n_classes, chance = len(evidence.labels), 100 * analysis.chance
        tiles.append(Tile(f"chance, 1/{n_classes}", f"{chance:.1f} %", note))
    for protocol in evidence.protocols if analysis.findings else ():
        found = [f.verdict for f in analysis.findings if f.protocol == protocol]
        counts = " / ".join(str(found.count(verdict)) for verdict in VERDICTS)
        tiles.append(Tile(f"claims, `{protocol}`", counts, "hold / do not / open"))
    absent = evidence.n_cells - evidence.n_done
    note = f"{absent} missing or failed" if absent else "all that the grid asks for"
    return [*tiles, Tile("runs done", f"{evidence.n_done:,} of {evidence.n_cells:,}", note)]


def list_verdicts(analysis: Analysis) -> list[str]:
    """A line for each protocol and verdict."""
    plural: dict[Verdict, str] = {"holds": "hold", "does not hold": "do not hold"}
    lines = []
    for protocol in analysis.evidence.protocols:
        for verdict in VERDICTS:
            claims = [
                CLAIMS[f.key].rstrip(".") + " †" * f.is_weak
                for f in analysis.findings
                if (f.protocol, f.verdict) == (protocol, verdict)
            ]
            if claims and verdict == "not decided":
                rest = f"the other {count_noun(len(claims), 'claim')}"
                lines.append(f"`{protocol}`, not decided: {rest}.")
            elif claims:
                lines.append(f"`{protocol}`, {plural[verdict]}: {'; '.join(claims)}.")
    return lines


def make_overview(analysis: Analysis) -> Section:
    """Every system on one line: drawn by the page's template, a picture in Markdown."""
    protocols = analysis.evidence.protocols
    rows = [_make_line(analysis, system) for system in analysis.ranking]
    alt = "Accuracy of every system under every protocol; the table has the figures"
    note = (
        "Dots are means over seeds, bars 95 % intervals: over seeds (Student's t) or, of a single "
        "seed, over speakers (bootstrap)."
    )
    note += " Diamonds are what the study published." * bool(analysis.study)
    forest = {
        "rows": rows, "protocols": [label(p) for p in protocols], "chance": analysis.chance,
        "has_published": bool(analysis.study), "picture": Picture("systems", alt),
    }  # fmt: skip
    return Section(
        "systems", "All systems at a glance", forest=forest, notes=[note],
        figures=draw_overviews(analysis),
    )  # fmt: skip


def _make_line(analysis: Analysis, system: str) -> dict[str, Any]:
    """Marks of one system, a protocol each, and the same in words."""
    marks, said, notes = [], [], []
    for protocol in analysis.evidence.protocols:
        score = analysis.scores.get((system, protocol))
        mark = score.marks["accuracy"] if score else None
        marks.append(mark)
        if score and score.folds:
            notes.append(f"{protocol}: {score.folds}")
        if mark:
            reach = ""
            if mark.interval:
                low, high = mark.interval
                reach = f", 95 % {100 * low:.1f} to {100 * high:.1f}"
            if score and len(score.seeds) > 1:
                worst, seed = score.worst
                reach += f", worst seed {100 * worst:.1f} % (seed {seed})"
            said.append(f"{label(protocol)} {100 * mark.mean:.1f} %{reach}")
    published = analysis.study.get(system, {}).get("accuracy")
    if published is not None:
        said.append(f"the study {100 * published:.1f} %")
    note = ", ".join(notes) if any(marks) else "no result"
    said = f"{system}: {'; '.join(said) or 'no result'}"
    return {"name": system, "marks": marks, "published": published, "note": note, "said": said}
