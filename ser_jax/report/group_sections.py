"""What groups of clips reach: by intensity, statement, gender, emotion and left-out speaker."""

from __future__ import annotations

from functools import partial

import numpy as np

from ser_jax.metrics import compute_class_figures
from ser_jax.report import figures
from ser_jax.report.analysis import Analysis
from ser_jax.report.clips import join_clips
from ser_jax.report.contrasts import Term, compute_contrast
from ser_jax.report.figure_sections import Drawings
from ser_jax.report.formats import label
from ser_jax.report.page import Gallery, Picture, Records, Section, Table
from ser_jax.statistics import Mark

_CLASS_FIGURES = ("accuracy", "precision", "f1")
_WORDS = {"gender": ("female", "male"), "intensity": ("normal", "strong")}


def make_groups(analysis: Analysis) -> Section:
    """The study's figures 11 to 13, for every system, and recall and F1 by emotion."""
    drawings: Drawings = {}
    galleries, tables, records = [], [], []
    protocols = analysis.evidence.protocols
    for protocol in protocols:
        shown = []
        for column in ("intensity", "statement", "gender"):
            values, shares = _compare_pairs(analysis, protocol, column)
            if not shares:
                continue
            title = f"Accuracy by {column}, {analysis.where}{protocol}"
            series = {
                value: {system: Mark(pair[place], None) for system, pair in shares.items()}
                for place, value in enumerate(values)
            }
            drawings[f"{column}-{protocol}"] = partial(
                figures.draw_forest, {s: s for s in shares}, series, title, analysis.chance,
                joined=True,
            )  # fmt: skip
            shown.append(Picture(f"{column}-{protocol}", _describe_pairs(title, values, shares)))
            records += [
                _record(system, protocol, column, value, accuracy=share)
                for system, pair in shares.items()
                for value, share in zip(values, pair, strict=True)
            ]
        galleries += [Gallery(shown, label(protocol))] if shown else []
    for protocol in protocols:
        tables += _tabulate_classes(analysis, protocol, records)
        tables += _tabulate_speakers(analysis, protocol, records) if protocol == "loso" else []
    text = [] if galleries else [_explain_no_groups(analysis)]
    return Section(
        "groups", "By intensity, statement, gender and emotion", text, galleries=galleries,
        tables=tables, records={"groups": records}, figures=drawings,
    )  # fmt: skip


def _record(system: str, protocol: str, group: str, value: str, **figures: float | None) -> dict:
    return {"system": system, "protocol": protocol, "group": group, "value": value, **figures}


def _explain_no_groups(analysis: Analysis) -> str:
    rows = analysis.evidence.rows.values()
    if any(clips.has_speakers for row in rows for clips in row.clips.values()):
        return "Neither intensity, nor statement, nor gender splits the test clips into two groups."
    return "Needs predictions.csv in the folders of the cells; none has one."


def _compare_pairs(
    analysis: Analysis, protocol: str, column: str
) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    """The two values of a column, and each system's accuracy in both; empty unless two."""
    rows = [row for row in analysis.evidence.rows.values() if row.protocol == protocol]
    parts = [clips.columns[column] for row in rows for clips in row.clips.values()]
    found = {str(value) for part in parts for value in np.unique(part)} - {""}
    words = _WORDS.get(column, ())
    values = words if found == set(words) else tuple(sorted(found))
    shares = {}
    for system in analysis.ranking if len(values) == 2 else ():
        terms = [Term(1, system, protocol, (column, value)) for value in values]
        pair = [compute_contrast(analysis.evidence, [t], resample=False) for t in terms]
        if not any(contrast.lack for contrast in pair):
            shares[system] = [contrast.effect for contrast in pair]
    return values, shares


def _describe_pairs(title: str, names: tuple[str, ...], shares: dict[str, list[float]]) -> str:
    said = [f"{s} {100 * first:.0f} and {100 * other:.0f}" for s, (first, other) in shares.items()]
    return f"{title}, {names[0]} and {names[1]}, per cent: {'; '.join(said)}"


def _tabulate_classes(analysis: Analysis, protocol: str, records: Records) -> list[Table]:
    """Recall and F1 of each emotion; the records have precision too."""
    labels = analysis.evidence.labels
    found = {
        system: compute_class_figures(labels, score.confusion_CC)
        for system, score in analysis.find(protocol).items()
    }
    for system, by_class in found.items():
        records += [
            _record(system, protocol, "emotion", name,
                    **{figure: by_class.get(name, {}).get(figure) for figure in _CLASS_FIGURES})
            for name in labels
        ]  # fmt: skip
    captions = {
        "accuracy": f"`{protocol}`: per cent of each emotion's clips that are recognised (recall)",
        "f1": f"`{protocol}`: F1 of each emotion, per cent",
    }
    return [
        Table(
            ["System", *labels],
            [[f"`{system}`", *(_format(figures.get(name, {}).get(key)) for name in labels)]
             for system, figures in found.items()],
            caption, shaded=True,
        )
        for key, caption in captions.items()
    ]  # fmt: skip


def _format(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}"


def _tabulate_speakers(analysis: Analysis, protocol: str, records: Records) -> list[Table]:
    """Each left-out speaker's accuracy, all seeds that count together."""
    shares: dict[str, dict[str, float]] = {}
    systems = []
    for system in analysis.ranking:
        row = analysis.evidence.get(system, protocol)
        clips = [row.clips[key] for key in sorted(row.keys)] if row else []
        parts = [part for part in clips if part.has_speakers]
        if not parts:
            continue
        systems.append(system)
        columns = join_clips(parts).columns
        hit_B = columns["true"] == columns["predicted"]
        for speaker in np.unique(columns["actor"]):
            here_B = columns["actor"] == speaker
            shares.setdefault(str(speaker), {})[system] = float(hit_B[here_B].mean())
    names = sorted(shares, key=lambda name: (len(name), name))
    records += [
        _record(system, protocol, "speaker", name, accuracy=share)
        for name in names
        for system, share in shares[name].items()
    ]
    rows = [[name, *(_format(shares[name].get(system)) for system in systems)] for name in names]
    head = ["Speaker left out", *(f"`{system}`" for system in systems)]
    caption = f"`{protocol}`: per cent of each speaker's clips that are recognised"
    return [Table(head, rows, caption, shaded=True)] if rows else []
