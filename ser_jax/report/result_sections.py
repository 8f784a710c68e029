"""Tables of a report: figures of every system, what leakage is worth, validation, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ser_jax.metrics import FIGURES
from ser_jax.report.analysis import SHARED, Analysis
from ser_jax.report.contrasts import Contrast, Term, compute_contrast
from ser_jax.report.formats import (
    format_count,
    format_mark,
    format_p,
    format_points,
    format_range,
    format_worst,
    label,
    list_columns,
)
from ser_jax.report.page import Section, Table

Leakage = Mapping[str, dict[str, Contrast]]
"""By speaker-independent protocol and system, what the study's split adds."""


def make_table_1(analysis: Analysis) -> Section:
    """What each system reaches, beside the study's figures where there are any."""
    protocols, study = analysis.evidence.protocols, analysis.study
    head = ["System", *["accuracy\npublished", "weighted F1\npublished"] * bool(study)]
    for protocol in protocols:
        figures = ("accuracy", "weighted F1", "worst seed", "n")
        head += [f"{figure}\n`{protocol}`" for figure in figures]
    rows, records = [], []
    for system in analysis.ranking:
        published = study.get(system, {})
        row = [f"`{system}`"]
        if study:
            row += [f"{published[f]:.4f}" if f in published else "" for f in FIGURES[:2]]
        for protocol in protocols:
            score = analysis.scores.get((system, protocol))
            row += [format_mark(score and score.marks[f]) for f in FIGURES[:2]]
            row += [format_worst(score), format_count(score)] if score else ["-", "no result"]
            records.append(_record_score(analysis, system, protocol))
        rows.append(row)
    note = "Mean over seeds [95 % interval over seeds]; worst seed: the lowest accuracy; "
    note += "n: seeds, test clips per seed. "
    note += "`tables/table_1.csv` has unweighted average recall (UAR) too."
    if any(score.over == "speakers" for score in analysis.scores.values()):
        note += " *: one seed; its interval is over speakers, by bootstrap."
    title, text = "Results", f"What each system reaches on {analysis.evidence.corpus}."
    if analysis.evidence.is_of_study:
        title, text = "Table 1", (
            "The study's Table 1 beside what its systems, those that it cites and our own reach "
            "here. The study gives one seed, one split and no interval."
        )  # fmt: skip
    notes = []
    stand_in = analysis.roles.plain.get("wav2vec2", "wav2vec2")
    if stand_in != "wav2vec2" and study:
        notes.append(
            f"`{stand_in}` stands in the study's wav2vec 2.0 row, but is a much smaller network; "
            "the study fine-tuned facebook/wav2vec2-base-960h."
        )
    return Section(
        "table-1", title, [text], tables=[Table(head, rows, note)], notes=notes,
        records={"table_1": records},
    )  # fmt: skip


def _record_score(analysis: Analysis, system: str, protocol: str) -> dict[str, Any]:
    score = analysis.scores.get((system, protocol))
    record: dict[str, Any] = {"system": system, "protocol": protocol}
    for figure in FIGURES:
        mark = score.marks[figure] if score else None
        low, high = (mark.interval if mark else None) or (None, None)
        record |= {figure: mark and mark.mean, f"{figure}_low": low, f"{figure}_high": high}
    if score:
        record |= {"accuracy_worst": score.worst.accuracy, "worst_seed": score.worst.seed}
        record |= {"interval_over": score.over, "seeds": " ".join(map(str, score.seeds))}
        record |= {"clips": score.n, "folds": score.folds}
    published = analysis.study.get(system, {})
    columns = {f"study_{figure}": published.get(figure) for figure in FIGURES[:2]}
    return record | (columns if analysis.study else {})


def compute_leakage(analysis: Analysis) -> Leakage:
    """For each speaker-independent protocol, what each system gains by the study's split."""
    protocols = analysis.evidence.protocols
    found: dict[str, dict[str, Contrast]] = {}
    for protocol in protocols if SHARED in protocols else ():
        for system in analysis.ranking if protocol != SHARED else ():
            terms = [Term(1, system, SHARED), Term(-1, system, protocol)]
            contrast = compute_contrast(analysis.evidence, terms)
            found.setdefault(protocol, {}).update({system: contrast} if not contrast.lack else {})
    return found


def make_leakage(analysis: Analysis, leakage: Leakage) -> Section | None:
    """The same system with known and with unseen speakers."""
    title = "What leakage is worth"
    if not leakage:
        text = "Needs the study's split and a speaker-independent protocol in one grid."
        return Section("leakage", title, [text], records={"leakage": []}) \
            if analysis.evidence.is_of_study else None  # fmt: skip
    text = (
        "In the study's split the same people speak in training and test. What that is worth is "
        "a system's accuracy under it minus the same system's on unseen speakers."
    )
    tables, records = [], []
    for protocol, found in leakage.items():
        rows = []
        for system, c in found.items():
            pair = [analysis.scores[system, p] for p in (SHARED, protocol)]
            known, unseen = (score.marks["accuracy"].mean for score in pair)
            seeds = " and ".join(str(len(score.seeds)) for score in pair)
            rows.append([
                f"`{system}`", f"{known:.3f}", f"{unseen:.3f}", format_points(c.effect),
                format_range(c.over_speakers), format_range(c.over_seeds), format_p(c.p),
                seeds + (f", {c.folds}" if c.folds else ""),
            ])  # fmt: skip
            record = {"system": system, "protocol": protocol, "known": known, "unseen": unseen}
            records.append(record | list_columns(c))
        head = ["System", SHARED, protocol, "Difference (points)", "95 % over speakers",
                "95 % over seeds", "p", "n (seeds)"]  # fmt: skip
        tables.append(Table(head, rows, f"`{SHARED}` against {label(protocol)}"))
    return Section("leakage", title, [text], tables=tables, records={"leakage": records})


def make_validation(analysis: Analysis) -> Section | None:
    """Validation accuracy, by which settings are chosen, beside the test's; None without any."""
    rows, records = [], []
    for (system, protocol), cells in _find_cells(analysis).items():
        counted = analysis.evidence.rows[system, protocol].keys
        cells = [c for c in cells if c.get("val_accuracy") is not None
                 and (c["seed"], c["fold"]) in counted]  # fmt: skip
        if not cells:
            continue
        # The mean over runs, as the best epoch of each was chosen by its own figure.
        val, test = (
            float(np.mean([c[key] for c in cells])) for key in ("val_accuracy", "accuracy")
        )
        figures = [f"{val:.3f}", f"{test:.3f}", format_points(val - test)]
        rows.append([f"`{system}`", protocol, *figures, str(len(cells))])
        record = {"system": system, "protocol": protocol, "val_accuracy": val}
        records.append(record | {"test_accuracy": test, "runs": len(cells)})
    if not rows:
        return None
    head = ["System", "Protocol", "Validation", "Test", "Difference (points)", "Runs"]
    note = (
        "Mean accuracy over runs; the best epoch of each, and settings, were chosen by validation."
    )
    table = Table(head, rows, note, (0, 1))
    title = "Validation beside test"
    return Section("validation", title, tables=[table], records={"validation": records})


def _find_cells(analysis: Analysis) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Finished cells by system and protocol, best system first."""
    rows = [
        row
        for system in analysis.ranking
        for protocol in analysis.evidence.protocols
        if (row := analysis.evidence.get(system, protocol))
    ]
    return {
        (row.system, row.protocol): [c for c in row.cells if (c["seed"], c["fold"]) in row.clips]
        for row in rows
    }


def make_cost(analysis: Analysis) -> Section:
    """Wall time, parameters and device of every system."""
    rows, records = [], []
    for (system, protocol), cells in _find_cells(analysis).items():
        seconds = [cell["seconds"] for cell in cells if cell.get("seconds") is not None]
        facts = {
            key: sorted({str(cell[key]) for cell in cells if cell.get(key) is not None})
            for key in ("parameters", "trained_parameters", "device", "epochs", "revision")
        }
        run_s, all_s = (float(f(seconds)) if seconds else None for f in (np.mean, np.sum))
        parameters = _join_numbers(facts["parameters"])
        if facts["trained_parameters"] not in ([], facts["parameters"]):
            parameters += f" ({_join_numbers(facts['trained_parameters'])} trained)"
        rows.append([
            f"`{system}`", protocol, parameters, _format_seconds(run_s), _format_seconds(all_s),
            str(len(cells)), ", ".join(facts["epochs"]) or "-",
            "; ".join(facts["device"]) or "not recorded",
        ])  # fmt: skip
        records.append({
            "system": system, "protocol": protocol, "seconds_per_run": run_s, "seconds": all_s,
            "runs": len(cells), **{key: "; ".join(values) for key, values in facts.items()},
        })  # fmt: skip
    head = ["System", "Protocol", "Parameters", "Wall time per run", "of all runs", "Runs",
            "Epochs", "Device"]  # fmt: skip
    note = "As each run recorded it. Runs trained together share the wall time equally."
    table = Table(head, rows, note, (0, 1, 7))
    return Section("cost", "What each system costs", tables=[table], records={"cost": records})


def _join_numbers(numbers: Sequence[str]) -> str:
    return ", ".join(f"{int(n):,}" for n in numbers) or "-"


def _format_seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
