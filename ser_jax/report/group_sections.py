"""What groups of clips reach: by intensity, statement, gender, emotion and left-out speaker."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ser_jax.metrics import compute_class_figures
from ser_jax.report import figures
from ser_jax.report.analysis import Analysis, label
from ser_jax.report.clips import join_clips
from ser_jax.report.contrasts import Term, compute_contrast
from ser_jax.report.document import Content, Gallery, Picture, Prose, Records, Section, Table
from ser_jax.report.figure_sections import Drawings
from ser_jax.statistics import Mark

_CLASS_FIGURES = ("accuracy", "precision", "f1")
_WORDS = {"gender": ("female", "male"), "intensity": ("normal", "strong")}


def make_groups(analysis: Analysis) -> tuple[Section, Drawings, Records]:
    """The study's figures 11 to 13, for every system, and recall and F1 by emotion."""
    drawings: Drawings = {}
    blocks: list[Content] = []
    records = []
    for protocol in analysis.evidence.protocols:
        shown = []
        for column in ("intensity", "statement", "gender"):
            names = _find_values(analysis, protocol, column)
            pairs: dict[str, list[float]] = {}
            for system in analysis.ranking if len(names) == 2 else ():
                found = [_compute_share(analysis, system, protocol, column, v) for v in names]
                shares = [share for share in found if share is not None]
                if len(shares) < 2:
                    continue
                pairs[system] = shares
                records += [
                    {"system": system, "protocol": protocol, "group": column, "value": v,
                     "accuracy": share}
                    for v, share in zip(names, shares, strict=True)
                ]  # fmt: skip
            if pairs:
                name, title = (
                    f"{column}-{protocol}",
                    f"Accuracy by {column}, {analysis.where}{protocol}",
                )
                series = {
                    value: {system: Mark(shares[place], None) for system, shares in pairs.items()}
                    for place, value in enumerate(names)
                }
                drawings[name] = partial(
                    figures.draw_forest, {s: s for s in pairs}, series, title, analysis.chance,
                    joined=True,
                )  # fmt: skip
                shown.append(Picture(name, _describe_pairs(title, names, pairs)))
        if shown:
            blocks.append(Gallery(shown, label(protocol)))
    if not blocks:
        blocks.append(Prose(_explain_no_groups(analysis)))
    for protocol in analysis.evidence.protocols:
        tables, rows = _make_classes(analysis, protocol)
        blocks += tables
        records += rows
        if protocol == "loso":
            table, rows = _make_speakers(analysis, protocol)
            blocks += [table] if rows else []
            records += rows
    title = "By intensity, statement, gender and emotion"
    return Section("groups", title, blocks), drawings, {"groups": records}


def _explain_no_groups(analysis: Analysis) -> str:
    rows = analysis.evidence.rows.values()
    if any(clips.has_speakers for row in rows for clips in row.clips.values()):
        return "Neither intensity, nor statement, nor gender parts the test clips in two."
    return "Needs predictions.csv in the folders of the cells; none has one."


def _make_speakers(analysis: Analysis, protocol: str) -> tuple[Table, list[dict[str, Any]]]:
    """Each left-out speaker's accuracy, all seeds that count together."""
    shares: dict[str, dict[str, float]] = {}
    for system in analysis.ranking:
        row = analysis.evidence.get(system, protocol)
        parts = (
            [row.clips[key] for key in sorted(row.keys) if row.clips[key].has_speakers]
            if row
            else []
        )
        if not parts:
            continue
        columns = join_clips(parts).columns
        for speaker in np.unique(columns["actor"]):
            here_B = columns["actor"] == speaker
            hit_B = columns["true"][here_B] == columns["predicted"][here_B]
            shares.setdefault(str(speaker), {})[system] = float(hit_B.mean())
    names = sorted(shares, key=lambda name: (len(name), name))
    records = [
        {"system": system, "protocol": protocol, "group": "speaker", "value": name, "accuracy": x}
        for name in names
        for system, x in shares[name].items()
    ]
    systems = list(dict.fromkeys(record["system"] for record in records))
    lines = [
        [name, *(f"{100 * shares[name][s]:.0f}" if s in shares[name] else "" for s in systems)]
        for name in names
    ]
    head = ["Speaker left out", *(f"`{system}`" for system in systems)]
    caption = f"`{protocol}`: per cent of each speaker's clips that are recognised"
    return Table(head, lines, caption, shade=_shade), records


def _find_values(analysis: Analysis, protocol: str, column: str) -> tuple[str, ...]:
    found: set[str] = set()
    for row in analysis.evidence.rows.values():
        if row.protocol == protocol:
            for clips in row.clips.values():
                found |= set(np.unique(clips.columns[column]).tolist())
    found.discard("")
    words = _WORDS.get(column, ())
    return words if found == set(words) and words else tuple(sorted(found))


def _compute_share(
    analysis: Analysis, system: str, protocol: str, column: str, value: str
) -> float | None:
    terms = [Term(1, system, protocol, (column, value))]
    found = compute_contrast(analysis.evidence, terms, resample=False)
    return None if found.lack else found.effect


def _describe_pairs(title: str, names: tuple[str, ...], pairs: dict[str, list[float]]) -> str:
    said = [f"{s} {100 * first:.0f} and {100 * other:.0f}" for s, (first, other) in pairs.items()]
    return f"{title}, {names[0]} and {names[1]}, per cent: {'; '.join(said)}"


def _make_classes(analysis: Analysis, protocol: str) -> tuple[list[Table], list[dict[str, Any]]]:
    """Recall and F1 of each emotion, which precision follows from; the records have all three."""
    labels = analysis.evidence.labels
    lines: dict[str, list[list[str]]] = {"accuracy": [], "f1": []}
    records = []
    for system in analysis.ranking:
        score = analysis.scores.get((system, protocol))
        if score is None:
            continue
        found = compute_class_figures(labels, score.confusion_CC)
        for figure, rows in lines.items():
            shares = [found.get(name, {}).get(figure) for name in labels]
            rows.append([f"`{system}`", *("" if x is None else f"{100 * x:.0f}" for x in shares)])
        records += [
            {"system": system, "protocol": protocol, "group": "emotion", "value": name,
             **{figure: found.get(name, {}).get(figure) for figure in _CLASS_FIGURES}}
            for name in labels
        ]  # fmt: skip
    captions = {
        "accuracy": f"`{protocol}`: per cent of each emotion's clips that are recognised (recall)",
        "f1": f"`{protocol}`: F1 of each emotion, per cent",
    }
    head = ["System", *labels]
    return [Table(head, lines[f], said, shade=_shade) for f, said in captions.items()], records


def _shade(text: str) -> float | None:
    return 0.8 * int(text) / 100 if text.isdecimal() else None
