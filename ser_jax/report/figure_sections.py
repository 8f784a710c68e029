"""Sections of figures: curves, confusion matrices, a spectrogram and the comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_jax.data.cross_corpus import read_pair
from ser_jax.errors import UserError, count_noun
from ser_jax.files.names import make_slug
from ser_jax.grid.cells import make_cell_name
from ser_jax.metrics import FIGURES
from ser_jax.report import figures
from ser_jax.report.analysis import SHARED, Analysis
from ser_jax.report.formats import describe_seeds, label
from ser_jax.report.page import Gallery, Picture, Section
from ser_jax.report.run_report import draw_kept_spectrogram
from ser_jax.report.scores import Score, compute_fold_scores
from ser_jax.run.file_names import SPECTROGRAM_FILE
from ser_jax.statistics import Mark

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawings = dict[str, "Callable[[], Figure]"]
"""By the name of the file, what draws it."""


def make_spectrogram(analysis: Analysis) -> Section | None:
    """The study's figure 1, of the first run that kept a clip; None where none did."""
    evidence = analysis.evidence
    places = [(row, *key) for row in evidence.rows.values() for key in row.clips]
    for row, seed, fold in places:
        name = make_cell_name(row.system, row.protocol, fold, seed)
        run_dir = evidence.folder / "cells" / name
        if not (run_dir / SPECTROGRAM_FILE).exists():
            continue
        try:
            figure = draw_kept_spectrogram(run_dir)
        except UserError as error:
            evidence.problems.append(str(error))
            continue
        alt = "Mel spectrogram of one test clip: time against frequency, power by colour"
        said = "The study's figure 1: what" if evidence.is_of_study else "What"
        picture = Picture("spectrogram", alt, f"{said} the networks hear of one clip.", raster=True)
        return Section(
            "spectrogram", "Mel spectrogram", galleries=[Gallery([picture])],
            figures={"spectrogram": lambda drawn=figure: drawn},
        )  # fmt: skip
    return None


def make_curves(analysis: Analysis) -> Section:
    """The study's figures 4 and 5, for every system."""
    drawings: Drawings = {}
    galleries = []
    for protocol in analysis.evidence.protocols:
        found = [analysis.evidence.get(system, protocol) for system in analysis.ranking]
        rows = {row.system: list(row.events.values()) for row in found if row and row.events}
        shown = []
        for system, runs in rows.items():
            name = f"curves-{make_slug(system)}-{protocol}"
            title = f"{system}, {analysis.where}{protocol} ({count_noun(len(runs), 'run')})"
            panels = [figures.Panel(figure, runs, figure) for figure in ("accuracy", "loss")]
            drawings[name] = partial(figures.draw_curves, panels, title)
            shown.append(Picture(name, f"Curves of {system}, {protocol}: {_describe_ends(runs)}"))
        for figure in ("loss", "accuracy") if rows else ():
            title = f"{figure.capitalize()}, {analysis.where}{protocol} split: "
            title += "mean over runs, band of one standard deviation"
            panels = [
                figures.Panel(_add_note(system, count_noun(len(runs), "run")), runs, figure)
                for system, runs in rows.items()
            ]
            drawings[f"{figure}-{protocol}"] = partial(figures.draw_curves, panels, title)
        galleries += [Gallery(shown, label(protocol))] if rows else []
    text = "Accuracy and loss by epoch: the mean over runs, with a band of one standard deviation."
    if any(of.get("data.train_on_validation") for of in analysis.evidence.settings.values()):
        text += " Systems that were also trained on their validation clips show training alone."
    text = text if drawings else "No run of this grid has an events.jsonl."
    title = "Accuracy and loss over training"
    return Section("curves", title, [text], galleries=galleries, figures=drawings)


def _add_note(system: str, note: str) -> str:
    """`cnn (5 seeds)`; the note does not break across lines."""
    return f"{system} ({note.replace(' ', chr(0xA0))})"


def _describe_ends(runs: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Alt text: where the curves end."""
    last = [[e for e in run if e.get("event") == "epoch"][-1] for run in runs]
    ends = []
    for part, name in (("train", "training"), ("val", "validation")):
        known = [e[key] for e in last if e.get(key := f"{part}_accuracy") is not None]
        if known:
            ends.append(f"{name} {np.mean(known):.2f}")
    return f"accuracy after the last epoch {', '.join(ends) or 'unknown'}"


def make_confusions(analysis: Analysis) -> Section:
    """The study's figures 6 to 10, for every system."""
    drawings: Drawings = {}
    galleries, labels = [], analysis.evidence.labels
    for protocol in analysis.evidence.protocols:
        shown = []
        for system, pair, score in _list_scores(analysis, protocol):
            name = f"confusion-{make_slug(system)}-{protocol}"
            name += f"-{make_slug('-'.join(read_pair(pair)))}" if pair else ""
            where = f"{protocol}, {pair}" if pair else f"{analysis.where}{protocol}"
            title = f"{system}, {where}, {describe_seeds(score.seeds)}"
            title += f", {score.folds}" if score.folds else ""
            counts_CC = score.confusion_CC
            drawings[name] = partial(figures.draw_confusion, counts_CC, labels, title)
            shown.append(Picture(name, _describe_confusion(title, counts_CC, labels)))
        galleries += [Gallery(shown, label(protocol))] if shown else []
    text = "Rows are true emotions, columns predicted ones; all seeds that count are pooled."
    return Section("confusion", "Confusion matrices", [text], galleries=galleries, figures=drawings)


def _list_scores(analysis: Analysis, protocol: str) -> Iterator[tuple[str, str, Score]]:
    """What has a confusion matrix: system, pair of corpora if folds are pairs, and score."""
    for system, score in analysis.find(protocol).items():
        if not analysis.evidence.is_cross_corpus:
            yield system, "", score
            continue
        row = analysis.evidence.rows[system, protocol]
        for fold, of_pair in compute_fold_scores(row, len(analysis.evidence.labels)).items():
            yield system, row.name_folds([fold]), of_pair


def _describe_confusion(title: str, confusion_CC: np.ndarray, labels: list[str]) -> str:
    share_C = np.diag(confusion_CC) / np.maximum(confusion_CC.sum(1), 1)
    recalls = ", ".join(f"{name} {100 * x:.0f} %" for name, x in zip(labels, share_C, strict=True))
    wrong_CC = confusion_CC - np.diag(np.diag(confusion_CC))
    true, predicted = np.unravel_index(int(wrong_CC.argmax()), wrong_CC.shape)
    worst = f"; most often confused: {labels[true]} taken for {labels[predicted]}"
    return f"Confusion matrix of {title}: recognised {recalls}{worst if wrong_CC.any() else ''}"


def draw_overviews(analysis: Analysis) -> Drawings:
    """Accuracy of all systems, and accuracy and weighted F1 under each protocol, as files alone."""
    protocols, chance = analysis.evidence.protocols, analysis.chance
    scores = {protocol: analysis.find(protocol) for protocol in protocols}
    on = "" if analysis.evidence.is_of_study else f" on {analysis.evidence.corpus}"
    title = f"Accuracy of every system{on}, 95 % intervals"
    published = {
        figure: {system: values[figure] for system, values in analysis.study.items()}
        for figure in FIGURES[:2]
    }
    beside = {SHARED if SHARED in protocols else protocols[0]: published["accuracy"]}
    series = {protocol: _list_marks(scores[protocol], "accuracy") for protocol in protocols}
    names = {system: system for system in analysis.ranking}
    drawings: Drawings = {
        "systems": partial(figures.draw_forest, names, series, title, chance, beside)
    }
    for protocol in (protocol for protocol in protocols if scores[protocol]):
        here = scores[protocol]
        names = {s: _add_note(s, x.folds or count_noun(len(x.seeds), "seed"))
                 for s, x in here.items()}  # fmt: skip
        n = max(score.n for score in here.values())
        title = f"Accuracy and weighted F1, {analysis.where}{protocol} split, "
        title += f"n = {n:,} test clips per seed, 95 % intervals"
        series = {figure: _list_marks(here, figure) for figure in FIGURES[:2]}
        drawings[f"comparison-{protocol}"] = partial(
            figures.draw_forest, names, series, title, chance,
            published if protocol == SHARED else None,
        )  # fmt: skip
    return drawings


def _list_marks(scores: Mapping[str, Score], figure: str) -> dict[str, Mark]:
    return {system: score.marks[figure] for system, score in scores.items()}
