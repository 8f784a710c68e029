"""The figures of a report: what is drawn under which name, and the sections that show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_jax.errors import UserError
from ser_jax.metrics import compute_class_figures
from ser_jax.report import curves, drawings, figures
from ser_jax.report.contrasts import Term, compute_contrast
from ser_jax.report.document import Block, Gallery, Picture, Prose, Section, Table
from ser_jax.report.evidence import Row
from ser_jax.report.material import Material, describe_seeds, label
from ser_jax.report.of_run import SPECTROGRAM_FILE, draw_kept_spectrogram
from ser_jax.report.tables import make_cell_name, make_slug, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Plates = dict[str, Callable[[], "Figure"]]
"""Names of files, and what draws them."""
Records = dict[str, list[dict[str, Any]]]
_CLASS_FIGURES = ("accuracy", "precision", "f1")
_WORDS = {"gender": ("female", "male"), "intensity": ("normal", "strong")}


def make_spectrogram(material: Material) -> tuple[list[Section], Plates]:
    """The study's figure 1, of the first run that kept a clip; nothing where none did."""
    for row in material.evidence.rows.values():
        for seed, fold in row.clips:
            name = make_cell_name(row.system, row.protocol, fold, seed)
            run_dir = material.evidence.folder / "cells" / name
            if not (run_dir / SPECTROGRAM_FILE).exists():
                continue
            try:
                draw_kept_spectrogram(run_dir)
            except UserError as error:
                material.evidence.problems.append(str(error))
                continue
            alt = "Mel spectrogram of one test clip: time against frequency, power by colour"
            said = "The study's figure 1: what the networks hear of one clip."
            picture = Picture("spectrogram", alt, said, raster=True)
            return [Section("spectrogram", "Mel spectrogram", [picture])], {
                "spectrogram": _bind(draw_kept_spectrogram, run_dir)
            }
    return [], {}


def make_curves(material: Material) -> tuple[Section, Plates]:
    """The study's figures 4 and 5, for every system."""
    plates: Plates = {}
    blocks: list[Block] = [
        Prose("Accuracy and loss by epoch: the mean over runs and a band of one deviation.")
    ]
    for protocol in material.evidence.protocols:
        shown, rows = [], {}
        for system in material.ranking:
            row = material.evidence.get(system, protocol)
            if row is None or not row.events:
                continue
            rows[system] = list(row.events.values())
            name = f"curves-{make_slug(system)}-{protocol}"
            title = f"{system}, {protocol} ({figures.count_noun(len(row.events), 'run')})"
            plates[name] = _bind(drawings.draw_curves, rows[system], title)
            shown.append(Picture(name, _describe_curves(system, row)))
        if rows:
            for figure in ("loss", "accuracy"):
                title = f"{figure.capitalize()}, {protocol} split"
                plates[f"{figure}-{protocol}"] = _bind(curves.draw_curve_grid, rows, figure, title)
            blocks.append(Gallery(shown, label(protocol)))
    if not plates:
        blocks = [Prose("No run of this grid has left its events.jsonl.")]
    return Section("curves", "Accuracy and loss over training", blocks), plates


def _bind(function: Callable[..., Figure], *arguments: Any) -> Callable[[], Figure]:
    return lambda: function(*arguments)


def _describe_curves(system: str, row: Row) -> str:
    """The ends of the curves, for those who cannot see them."""
    ends = []
    for part in ("train", "val"):
        last = [
            [e for e in events if e.get("event") == "epoch"][-1].get(f"{part}_accuracy")
            for events in row.events.values()
            if any(e.get("event") == "epoch" for e in events)
        ]
        known = [value for value in last if value is not None]
        ends.append(f"{part} {np.mean(known):.2f}" if known else f"{part} unknown")
    return f"Curves of {system}, {row.protocol}: accuracy after the last epoch {', '.join(ends)}"


def make_confusions(material: Material) -> tuple[Section, Plates]:
    """The study's figures 6 to 10, for every system."""
    plates: Plates = {}
    labels = material.evidence.labels
    blocks: list[Block] = [
        Prose("Rows are what was spoken, columns what was heard; all seeds that count together.")
    ]
    for protocol in material.evidence.protocols:
        shown = []
        for system in material.ranking:
            score = material.scores.get((system, protocol))
            if score is None:
                continue
            name = f"confusion-{make_slug(system)}-{protocol}"
            title = f"{system}, {protocol}, {describe_seeds(score.seeds)}"
            title += f", {score.folds}" if score.folds else ""
            plates[name] = _bind(drawings.draw_confusion, score.confusion_CC, labels, title)
            shown.append(Picture(name, _describe_confusion(title, score.confusion_CC, labels)))
        if shown:
            blocks.append(Gallery(shown, label(protocol)))
    return Section("confusion", "Confusion matrices", blocks), plates


def _describe_confusion(title: str, confusion_CC: np.ndarray, labels: list[str]) -> str:
    share_C = np.diag(confusion_CC) / np.maximum(confusion_CC.sum(1), 1)
    recalls = ", ".join(f"{name} {100 * x:.0f} %" for name, x in zip(labels, share_C, strict=True))
    wrong_CC = confusion_CC - np.diag(np.diag(confusion_CC))
    true, heard = np.unravel_index(int(wrong_CC.argmax()), wrong_CC.shape)
    worst = f"; most often confused: {labels[true]} taken for {labels[heard]}"
    return f"Confusion matrix of {title}: recognised {recalls}{worst if wrong_CC.any() else ''}"


def make_groups(material: Material) -> tuple[Section, Plates, Records]:
    """The study's figures 11 to 13, for every system, and recall and F1 by emotion."""
    plates: Plates = {}
    blocks: list[Block] = []
    records = []
    for protocol in material.evidence.protocols:
        shown = []
        for column in ("intensity", "statement", "gender"):
            names = _find_values(material, protocol, column)
            pairs = []
            for system in material.ranking if len(names) == 2 else ():
                found = [_compute_share(material, system, protocol, column, v) for v in names]
                shares = [share for share in found if share is not None]
                if len(shares) < 2:
                    continue
                pairs.append(drawings.Pair(system, *shares))
                records += [
                    {"system": system, "protocol": protocol, "group": column, "value": v,
                     "accuracy": share}
                    for v, share in zip(names, shares, strict=True)
                ]  # fmt: skip
            if pairs:
                name, title = f"{column}-{protocol}", f"Accuracy by {column}, {protocol}"
                plates[name] = _bind(drawings.draw_pairs, pairs, names, title, material.chance)
                shown.append(Picture(name, _describe_pairs(title, names, pairs)))
        if shown:
            blocks.append(Gallery(shown, label(protocol)))
    if not blocks:
        blocks.append(Prose("Needs predictions.csv in the folders of the cells; none has one."))
    for protocol in material.evidence.protocols:
        tables, rows = _make_classes(material, protocol)
        blocks += tables
        records += rows
    title = "By intensity, statement, gender and emotion"
    return Section("groups", title, blocks), plates, {"groups": records}


def _find_values(material: Material, protocol: str, column: str) -> tuple[str, ...]:
    found: set[str] = set()
    for row in material.evidence.rows.values():
        if row.protocol == protocol:
            for clips in row.clips.values():
                found |= set(np.unique(clips.columns[column]).tolist())
    found.discard("")
    words = _WORDS.get(column, ())
    return words if found == set(words) and words else tuple(sorted(found))


def _compute_share(
    material: Material, system: str, protocol: str, column: str, value: str
) -> float | None:
    terms = [Term(1, system, protocol, (column, value))]
    found = compute_contrast(material.evidence, terms, resample=False)
    return None if found.lack else found.effect


def _describe_pairs(title: str, names: tuple[str, ...], pairs: list[drawings.Pair]) -> str:
    said = [f"{p.system} {100 * p.first:.0f} and {100 * p.second:.0f}" for p in pairs]
    return f"{title}, {names[0]} and {names[1]}, per cent: {'; '.join(said)}"


def _make_classes(material: Material, protocol: str) -> tuple[list[Table], list[dict[str, Any]]]:
    """Recall and F1 of each emotion, which precision follows from; the records have all three."""
    labels = material.evidence.labels
    lines: dict[str, list[list[str]]] = {"accuracy": [], "f1": []}
    records = []
    for system in material.ranking:
        score = material.scores.get((system, protocol))
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


def make_overviews(material: Material) -> Plates:
    """The opening figure as a file, and the comparison of each protocol."""
    evidence, protocols = material.evidence, material.evidence.protocols
    marks = {
        system: {
            p: material.scores[system, p].marks["accuracy"]
            for p in protocols
            if (system, p) in material.scores
        }
        for system in material.ranking
    }
    study = {name: published["accuracy"] for name, published in material.study.items()}
    rows = list(marks.items())
    title = "Accuracy of every system"
    plates: Plates = {
        "systems": _bind(drawings.draw_forest, rows, protocols, study, title, material.chance)
    }
    summary = summarise(evidence.results["cells"])
    for protocol in protocols:
        here = [row for row in summary if row["protocol"] == protocol]
        if any(row["n"] for row in here):
            seeds = {seed for row in here for seed in row["seeds"]}
            n = max(row["n"] or 0 for row in here)
            said = f"{protocol} split, {describe_seeds(sorted(seeds))}, n = {n} test clips per seed"
            published = evidence.results.get("study") if protocol == "study" else None
            plates[f"comparison-{protocol}"] = _bind(
                figures.draw_comparison, here, said, len(evidence.labels), published
            )
    return plates
