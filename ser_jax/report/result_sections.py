"""What a report says of figures: Table 1, what leakage is worth, cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ser_jax.metrics import FIGURES
from ser_jax.report.analysis import (
    SHARED,
    Analysis,
    format_count,
    format_mark,
    format_p,
    format_points,
    format_range,
    label,
    list_columns,
)
from ser_jax.report.contrasts import Contrast, Term, compute_contrast
from ser_jax.report.document import Content, Prose, Records, Section, Table


def make_table_1(analysis: Analysis) -> tuple[Section, Records]:
    """The study's figures beside ours."""
    protocols = analysis.evidence.protocols
    of_study = analysis.evidence.is_of_study
    head = ["System", *["accuracy\npublished", "weighted F1\npublished"] * of_study]
    for protocol in protocols:
        head += [f"accuracy\n`{protocol}`", f"weighted F1\n`{protocol}`", f"n\n`{protocol}`"]
    lines, records = [], []
    for system in analysis.ranking:
        published = analysis.study.get(system, {})
        line = [f"`{system}`"]
        if of_study:
            line += [f"{published[f]:.4f}" if f in published else "" for f in FIGURES[:2]]
        for protocol in protocols:
            score = analysis.scores.get((system, protocol))
            line += [format_mark(score.marks[f] if score else None) for f in FIGURES[:2]]
            line.append(format_count(score) if score else "no result")
            records.append(_make_score_record(analysis, system, protocol))
        lines.append(line)
    starred = any(score.over == "speakers" for score in analysis.scores.values())
    note = "Mean over seeds [95 % interval over seeds]; n: seeds, test clips of one. "
    note += "`tables/table_1.csv` has unweighted average recall (UAR) too."
    note += " *: one seed; its interval is over speakers, by bootstrap." * starred
    blocks: list[Content] = [
        Prose(
            "The study's Table 1 beside what its systems, those that it cites and our own reach "
            "here. The study gives one seed, one split and no interval."
            if of_study
            else f"What each system reaches on {analysis.evidence.corpus}."
        ),
        Table(head, lines, note),
    ]
    roles = analysis.roles.plain
    if "wav2vec2" in roles and roles["wav2vec2"] != "wav2vec2" and analysis.study:
        blocks.append(
            Prose(
                f"`{roles['wav2vec2']}` stands in the study's wav2vec 2.0 row, but is a much "
                "smaller network; the study fine-tuned facebook/wav2vec2-base-960h.", "note",
            )
        )  # fmt: skip
    return Section("table-1", "Table 1" if of_study else "Figures", blocks), {"table_1": records}


def _make_score_record(analysis: Analysis, system: str, protocol: str) -> dict[str, Any]:
    score = analysis.scores.get((system, protocol))
    record: dict[str, Any] = {"system": system, "protocol": protocol}
    for figure in FIGURES:
        mark = score.marks[figure] if score else None
        low, high = (mark.interval if mark else None) or (None, None)
        record |= {figure: mark and mark.mean, f"{figure}_low": low, f"{figure}_high": high}
    published = analysis.study.get(system, {})
    return record | {
        "interval_over": score.over if score else None,
        "seeds": " ".join(map(str, score.seeds)) if score else "",
        "clips": score.n if score else None,
        "folds": score.folds if score else "",
        **{f"study_{figure}": published.get(figure) for figure in FIGURES[:2]},
    }


def compute_leakage(analysis: Analysis) -> dict[str, list[tuple[str, Contrast]]]:
    """For each speaker-independent protocol, what each system gains by the study's split."""
    protocols = analysis.evidence.protocols
    if SHARED not in protocols:
        return {}
    found = {}
    for protocol in protocols:
        if protocol == SHARED:
            continue
        contrasts = [
            (
                system,
                compute_contrast(
                    analysis.evidence, [Term(1, system, SHARED), Term(-1, system, protocol)]
                ),
            )
            for system in analysis.ranking
        ]
        found[protocol] = [(system, c) for system, c in contrasts if not c.lack]
    return found


def make_leakage(
    analysis: Analysis, leakage: dict[str, list[tuple[str, Contrast]]]
) -> tuple[list[Section], Records]:
    """The same system with known and with unseen speakers; nothing about other recordings than the
    study's where the grid has not both."""
    if not leakage and not analysis.evidence.is_of_study:
        return [], {}
    blocks: list[Content] = [
        Prose(
            "In the study's split the same people speak in training and test. What that is worth "
            "is the accuracy of a system under it less that of the same system on unseen speakers."
        )
    ]
    records = []
    for protocol, found in leakage.items():
        lines = []
        for system, c in found:
            pair = [analysis.scores[system, p].marks["accuracy"] for p in (SHARED, protocol)]
            lines.append([
                f"`{system}`", *(f"{mark.mean:.3f}" for mark in pair), format_points(c.effect),
                format_range(c.over_speakers), format_range(c.over_seeds), format_p(c.p),
                f"{_join_seeds(analysis, system, protocol)}{c.folds and f', {c.folds}'}",
            ])  # fmt: skip
            record = {"system": system, "protocol": protocol, "known": pair[0].mean}
            records.append(record | {"unseen": pair[1].mean, **list_columns(c)})
        head = ["System", SHARED, protocol, "Difference (points)", "95 % over speakers",
                "95 % over seeds", "p", "n (seeds)"]  # fmt: skip
        blocks.append(Table(head, lines, f"`{SHARED}` against {label(protocol)}"))
    if not leakage:
        blocks = [Prose("Needs the study's split and a speaker-independent protocol in one grid.")]
    return [Section("leakage", "What leakage is worth", blocks)], {"leakage": records}


def _join_seeds(analysis: Analysis, system: str, protocol: str) -> str:
    return " and ".join(str(len(analysis.scores[system, p].seeds)) for p in (SHARED, protocol))


def make_validation(analysis: Analysis) -> tuple[list[Section], Records]:
    """Validation accuracy beside the test's: what settings are chosen by, and how far it flatters.

    Nothing where no run has recorded it.
    """
    lines, records = [], []
    for system in analysis.ranking:
        for protocol in analysis.evidence.protocols:
            row = analysis.evidence.get(system, protocol)
            cells = [] if row is None else [
                cell for cell in row.cells
                if (cell["seed"], cell["fold"]) in row.keys and cell.get("val_accuracy") is not None
            ]  # fmt: skip
            if not cells:
                continue
            # The mean over runs, as the best epoch of each was chosen by its own figure.
            val, test = (
                float(np.mean([cell[k] for cell in cells])) for k in ("val_accuracy", "accuracy")
            )
            figures = [f"{val:.3f}", f"{test:.3f}", format_points(val - test)]
            lines.append([f"`{system}`", protocol, *figures, str(len(cells))])
            record = {"system": system, "protocol": protocol, "val_accuracy": val}
            records.append(record | {"test_accuracy": test, "runs": len(cells)})
    if not lines:
        return [], {}
    head = ["System", "Protocol", "Validation", "Test", "Difference (points)", "Runs"]
    note = (
        "Mean accuracy over runs; the best epoch of each, and settings, were chosen by validation."
    )
    section = Section("validation", "Validation beside test", [Table(head, lines, note, (0, 1))])
    return [section], {"validation": records}


def make_cost(analysis: Analysis) -> tuple[Section, Records]:
    """Wall time, parameters and device of every row."""
    lines, records = [], []
    for system in analysis.ranking:
        for protocol in analysis.evidence.protocols:
            row = analysis.evidence.get(system, protocol)
            if row is None:
                continue
            cells = [cell for cell in row.cells if (cell["seed"], cell["fold"]) in row.clips]
            seconds = [cell["seconds"] for cell in cells if cell.get("seconds") is not None]
            facts = {
                key: sorted({str(cell[key]) for cell in cells if cell.get(key) is not None})
                for key in ("parameters", "trained_parameters", "device", "epochs", "revision")
            }
            run_s, all_s = (float(f(seconds)) if seconds else None for f in (np.mean, np.sum))
            same = facts["trained_parameters"] in ([], facts["parameters"])
            trained = "" if same else f" ({_join_numbers(facts['trained_parameters'])} trained)"
            lines.append([
                f"`{system}`", protocol, _join_numbers(facts["parameters"]) + trained,
                _format_seconds(run_s), _format_seconds(all_s), str(len(cells)),
                ", ".join(facts["epochs"]) or "-", "; ".join(facts["device"]) or "not recorded",
            ])  # fmt: skip
            records.append({
                "system": system, "protocol": protocol, "seconds_per_run": run_s,
                "seconds": all_s, "runs": len(cells),
                **{key: "; ".join(values) for key, values in facts.items()},
            })  # fmt: skip
    head = ["System", "Protocol", "Parameters", "Wall time of a run", "of all runs", "Runs",
            "Epochs", "Device"]  # fmt: skip
    note = "As each run recorded it. Runs trained together share the wall time equally."
    return Section("cost", "What each row costs", [Table(head, lines, note, (0, 1, 7))]), {
        "cost": records
    }


def _join_numbers(numbers: Sequence[str]) -> str:
    return ", ".join(f"{int(n):,}" for n in numbers) or "-"


def _format_seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
