"""The figures of a report: what is drawn under which name, and the sections that show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_jax.errors import UserError, count_noun
from ser_jax.files.names import make_slug
from ser_jax.grid.cells import make_cell_name
from ser_jax.report import curves, figures, grid_figures
from ser_jax.report.analysis import Analysis, describe_seeds, label
from ser_jax.report.document import Content, Gallery, Picture, Prose, Section
from ser_jax.report.evidence import SystemResult
from ser_jax.report.run_report import draw_kept_spectrogram
from ser_jax.report.tables import summarise
from ser_jax.run.file_names import SPECTROGRAM_FILE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawings = dict[str, Callable[[], "Figure"]]
"""Names of files, and what draws them."""


def make_spectrogram(analysis: Analysis) -> tuple[list[Section], Drawings]:
    """The study's figure 1, of the first run that kept a clip; nothing where none did."""
    for row in analysis.evidence.rows.values():
        for seed, fold in row.clips:
            name = make_cell_name(row.system, row.protocol, fold, seed)
            run_dir = analysis.evidence.folder / "cells" / name
            if not (run_dir / SPECTROGRAM_FILE).exists():
                continue
            try:
                draw_kept_spectrogram(run_dir)
            except UserError as error:
                analysis.evidence.problems.append(str(error))
                continue
            alt = "Mel spectrogram of one test clip: time against frequency, power by colour"
            said = "what the networks hear of one clip."
            of_study = analysis.evidence.is_of_study
            said = f"The study's figure 1: {said}" if of_study else said.capitalize()
            picture = Picture("spectrogram", alt, said, raster=True)
            return [Section("spectrogram", "Mel spectrogram", [picture])], {
                "spectrogram": bind(draw_kept_spectrogram, run_dir)
            }
    return [], {}


def make_curves(analysis: Analysis) -> tuple[Section, Drawings]:
    """The study's figures 4 and 5, for every system."""
    drawings: Drawings = {}
    blocks: list[Content] = [
        Prose("Accuracy and loss by epoch: the mean over runs and a band of one deviation.")
    ]
    for protocol in analysis.evidence.protocols:
        shown, rows = [], {}
        for system in analysis.ranking:
            row = analysis.evidence.get(system, protocol)
            if row is None or not row.events:
                continue
            rows[system] = list(row.events.values())
            name = f"curves-{make_slug(system)}-{protocol}"
            runs = count_noun(len(row.events), "run")
            title = f"{system}, {analysis.where}{protocol} ({runs})"
            drawings[name] = bind(grid_figures.draw_system_curves, rows[system], title)
            shown.append(Picture(name, _describe_curves(system, row)))
        if rows:
            for figure in ("loss", "accuracy"):
                title = f"{figure.capitalize()}, {analysis.where}{protocol} split"
                drawings[f"{figure}-{protocol}"] = bind(curves.draw_curve_grid, rows, figure, title)
            blocks.append(Gallery(shown, label(protocol)))
    if not drawings:
        blocks = [Prose("No run of this grid has left its events.jsonl.")]
    return Section("curves", "Accuracy and loss over training", blocks), drawings


def bind(function: Callable[..., Figure], *arguments: Any) -> Callable[[], Figure]:
    return lambda: function(*arguments)


def _describe_curves(system: str, row: SystemResult) -> str:
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


def make_confusions(analysis: Analysis) -> tuple[Section, Drawings]:
    """The study's figures 6 to 10, for every system."""
    drawings: Drawings = {}
    labels = analysis.evidence.labels
    blocks: list[Content] = [
        Prose("Rows are what was spoken, columns what was heard; all seeds that count together.")
    ]
    for protocol in analysis.evidence.protocols:
        shown = []
        for system in analysis.ranking:
            score = analysis.scores.get((system, protocol))
            if score is None:
                continue
            name = f"confusion-{make_slug(system)}-{protocol}"
            title = f"{system}, {analysis.where}{protocol}, {describe_seeds(score.seeds)}"
            title += f", {score.folds}" if score.folds else ""
            drawings[name] = bind(
                grid_figures.draw_small_confusion, score.confusion_CC, labels, title
            )
            shown.append(Picture(name, _describe_confusion(title, score.confusion_CC, labels)))
        if shown:
            blocks.append(Gallery(shown, label(protocol)))
    return Section("confusion", "Confusion matrices", blocks), drawings


def _describe_confusion(title: str, confusion_CC: np.ndarray, labels: list[str]) -> str:
    share_C = np.diag(confusion_CC) / np.maximum(confusion_CC.sum(1), 1)
    recalls = ", ".join(f"{name} {100 * x:.0f} %" for name, x in zip(labels, share_C, strict=True))
    wrong_CC = confusion_CC - np.diag(np.diag(confusion_CC))
    true, heard = np.unravel_index(int(wrong_CC.argmax()), wrong_CC.shape)
    worst = f"; most often confused: {labels[true]} taken for {labels[heard]}"
    return f"Confusion matrix of {title}: recognised {recalls}{worst if wrong_CC.any() else ''}"


def make_overviews(analysis: Analysis) -> Drawings:
    """The opening figure as a file, and the comparison of each protocol."""
    evidence, protocols = analysis.evidence, analysis.evidence.protocols
    marks = {
        system: {
            p: analysis.scores[system, p].marks["accuracy"]
            for p in protocols
            if (system, p) in analysis.scores
        }
        for system in analysis.ranking
    }
    study = {name: published["accuracy"] for name, published in analysis.study.items()}
    rows = list(marks.items())
    on = "" if evidence.is_of_study else f" on {evidence.corpus}"
    title = f"Accuracy of every system{on}"
    drawings: Drawings = {
        "systems": bind(grid_figures.draw_forest, rows, protocols, study, title, analysis.chance)
    }
    summary = summarise(evidence.results["cells"])
    for protocol in protocols:
        here = [row for row in summary if row["protocol"] == protocol]
        if any(row["n"] for row in here):
            seeds = {seed for row in here for seed in row["seeds"]}
            n = max(row["n"] or 0 for row in here)
            said = f"{analysis.where}{protocol} split, {describe_seeds(sorted(seeds))}"
            said += f", n = {n} test clips per seed"
            published = evidence.results.get("study") if protocol == "study" else None
            drawings[f"comparison-{protocol}"] = bind(
                figures.draw_comparison, here, said, len(evidence.labels), published
            )
    return drawings
