"""The figures of a grid's report: their names, the sections that show them, their alt texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ser_jax.errors import UserError, count_noun
from ser_jax.files.names import make_slug
from ser_jax.grid.cells import make_cell_name
from ser_jax.metrics import FIGURES
from ser_jax.report import figures
from ser_jax.report.analysis import SHARED, Analysis, describe_seeds, label
from ser_jax.report.document import Content, Gallery, Picture, Prose, Section
from ser_jax.report.evidence import SystemResult
from ser_jax.report.run_report import draw_kept_spectrogram
from ser_jax.run.file_names import SPECTROGRAM_FILE
from ser_jax.statistics import Mark

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawings = dict[str, Callable[[], "Figure"]]
"""File name without its ending to the function that draws the figure."""


def make_spectrogram(analysis: Analysis) -> tuple[list[Section], Drawings]:
    """The study's figure 1, from the first run that saved a spectrogram; empty if none did."""
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
                "spectrogram": partial(draw_kept_spectrogram, run_dir)
            }
    return [], {}


def make_curves(analysis: Analysis) -> tuple[Section, Drawings]:
    """The study's figures 4 and 5, for every system."""
    drawings: Drawings = {}
    blocks: list[Content] = [
        Prose(
            "Accuracy and loss by epoch: the mean over runs, with a band of one standard deviation."
        )
    ]
    for protocol in analysis.evidence.protocols:
        shown, rows = [], {}
        for system in analysis.ranking:
            row = analysis.evidence.get(system, protocol)
            if row is None or not row.events:
                continue
            runs = list(row.events.values())
            rows[system] = runs
            name = f"curves-{make_slug(system)}-{protocol}"
            title = f"{system}, {analysis.where}{protocol} ({count_noun(len(runs), 'run')})"
            panels = [figures.Panel(figure, runs, figure) for figure in ("accuracy", "loss")]
            drawings[name] = partial(figures.draw_curves, panels, title)
            shown.append(Picture(name, _describe_curves(system, row)))
        if rows:
            for figure in ("loss", "accuracy"):
                title = f"{figure.capitalize()}, {analysis.where}{protocol} split: "
                title += "mean over runs, band of one standard deviation"
                panels = [
                    figures.Panel(_add_count(system, len(runs), "run"), runs, figure)
                    for system, runs in rows.items()
                ]
                drawings[f"{figure}-{protocol}"] = partial(figures.draw_curves, panels, title)
            blocks.append(Gallery(shown, label(protocol)))
    if not drawings:
        blocks = [Prose("No run of this grid has an events.jsonl.")]
    return Section("curves", "Accuracy and loss over training", blocks), drawings


def _add_count(system: str, count: int, noun: str, folds: str = "") -> str:
    """`cnn (5 seeds)`, or the folds that were run; the note does not break across lines."""
    note = (folds or count_noun(count, noun)).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{system} ({note})"


def _describe_curves(system: str, row: SystemResult) -> str:
    """Alt text: where the curves end."""
    ends = []
    for part, name in (("train", "training"), ("val", "validation")):
        last = [
            [e for e in events if e.get("event") == "epoch"][-1].get(f"{part}_accuracy")
            for events in row.events.values()
        ]
        known = [value for value in last if value is not None]
        ends.append(f"{name} {np.mean(known):.2f}" if known else f"{name} unknown")
    return f"Curves of {system}, {row.protocol}: accuracy after the last epoch {', '.join(ends)}"


def make_confusions(analysis: Analysis) -> tuple[Section, Drawings]:
    """The study's figures 6 to 10, for every system."""
    drawings: Drawings = {}
    labels = analysis.evidence.labels
    said = "Rows are true emotions, columns predicted ones; all seeds that count are pooled."
    blocks: list[Content] = [Prose(said)]
    for protocol in analysis.evidence.protocols:
        shown = []
        for system in analysis.ranking:
            score = analysis.scores.get((system, protocol))
            if score is None:
                continue
            name = f"confusion-{make_slug(system)}-{protocol}"
            title = f"{system}, {analysis.where}{protocol}, {describe_seeds(score.seeds)}"
            title += f", {score.folds}" if score.folds else ""
            drawings[name] = partial(figures.draw_confusion, score.confusion_CC, labels, title)
            shown.append(Picture(name, _describe_confusion(title, score.confusion_CC, labels)))
        if shown:
            blocks.append(Gallery(shown, label(protocol)))
    return Section("confusion", "Confusion matrices", blocks), drawings


def _describe_confusion(title: str, confusion_CC: np.ndarray, labels: list[str]) -> str:
    share_C = np.diag(confusion_CC) / np.maximum(confusion_CC.sum(1), 1)
    recalls = ", ".join(f"{name} {100 * x:.0f} %" for name, x in zip(labels, share_C, strict=True))
    wrong_CC = confusion_CC - np.diag(np.diag(confusion_CC))
    true, predicted = np.unravel_index(int(wrong_CC.argmax()), wrong_CC.shape)
    worst = f"; most often confused: {labels[true]} taken for {labels[predicted]}"
    return f"Confusion matrix of {title}: recognised {recalls}{worst if wrong_CC.any() else ''}"


def make_overviews(analysis: Analysis) -> Drawings:
    """Accuracy of all systems, and accuracy and weighted F1 under each protocol, as files alone."""
    protocols, chance = analysis.evidence.protocols, analysis.chance
    series = {protocol: _list_marks(analysis, "accuracy", protocol) for protocol in protocols}
    on = "" if analysis.evidence.is_of_study else f" on {analysis.evidence.corpus}"
    title = f"Accuracy of every system{on}, 95 % intervals"
    published = {
        figure: {system: values[figure] for system, values in analysis.study.items()}
        for figure in FIGURES[:2]
    }
    where = {SHARED if SHARED in protocols else protocols[0]: published["accuracy"]}
    rows = {system: system for system in analysis.ranking}
    drawings: Drawings = {
        "systems": partial(figures.draw_forest, rows, series, title, chance, where)
    }
    for protocol in protocols:
        scores = {system: analysis.scores.get((system, protocol)) for system in rows}
        rows_here = {
            system: _add_count(system, len(score.seeds), "seed", score.folds)
            for system, score in scores.items()
            if score
        }
        if not rows_here:
            continue
        n = max(score.n for score in scores.values() if score)
        title = f"Accuracy and weighted F1, {analysis.where}{protocol} split, "
        title += f"n = {n:,} test clips per seed, 95 % intervals"
        series = {figure: _list_marks(analysis, figure, protocol) for figure in FIGURES[:2]}
        drawings[f"comparison-{protocol}"] = partial(
            figures.draw_forest, rows_here, series, title, chance,
            published if protocol == SHARED else None,
        )  # fmt: skip
    return drawings


def _list_marks(analysis: Analysis, figure: str, protocol: str) -> dict[str, Mark]:
    """A figure of every system with a result under the protocol."""
    return {s: score.marks[figure] for (s, p), score in analysis.scores.items() if p == protocol}
