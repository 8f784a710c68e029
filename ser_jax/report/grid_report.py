"""The report of an ablation: HTML, Markdown, CSV and figures, from its results.json and cells."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ser_jax.errors import check
from ser_jax.files.atomic import write_atomic
from ser_jax.files.json_files import blaming, load_json
from ser_jax.machine.environment import import_matplotlib
from ser_jax.report import (
    claim_sections,
    document,
    figure_sections,
    group_sections,
    record,
    rendering,
    result_sections,
    summary,
    tables,
)
from ser_jax.report.analysis import Analysis, analyse
from ser_jax.report.evidence import load_evidence
from ser_jax.report.figures import save_figure
from ser_jax.report.style import CSS
from ser_jax.run.file_names import RESULTS_FILE

REPORT_FILE = "report.html"
_REMEDY = "ser-jax ablate writes it: run it again with this out folder"
_TITLE = "Emotion in the voice: a study, run again"
_STUDY = "Comparative Analysis of Deep Learning Architectures for Emotion Classification in Audio"


def write_ablation_report(folder: str | Path) -> list[Path]:
    """Write report.html, report.md, tables/ and figures/ from an ablation's files.

    Beside "cells", results.json may hold "labels", the names of the classes, "study", published
    figures by system, "config", "command", "git" and "versions". Clips, curves and a spectrogram
    come from the runs below cells/, where they are; cells that are missing, failed or foreign are
    named in the report.

    Raises:
      UserError: results.json is missing or broken, or a result cannot be written.
    """
    import_matplotlib()
    folder = Path(folder)
    path = folder / RESULTS_FILE
    results = load_json(path, _REMEDY)
    with blaming(path, _REMEDY):
        check(len(results["cells"]) > 0, f"{path}: holds no cells; {_REMEDY}")
        rows = tables.summarise(results["cells"])
        texts = {
            "results.md": tables.rows_to_markdown(rows),
            "results.csv": tables.rows_to_csv(rows),
        }
        evidence = load_evidence(folder, results)
    report, drawn = make_report(analyse(evidence))
    written = []
    for name, draw in drawn.items():
        written += save_figure(draw(), folder / "figures" / name)
    texts["report.md"] = rendering.to_markdown(report)
    texts |= {
        f"tables/{name}.csv": rendering.to_csv(found) for name, found in report.records.items()
    }
    texts[REPORT_FILE] = _to_page(report, folder / "figures")
    for name, text in texts.items():
        write_atomic(folder / name, text)
        written.append(folder / name)
    return written


def make_report(analysis: Analysis) -> tuple[document.Document, figure_sections.Drawings]:
    """The report, and what draws its figures."""
    evidence = analysis.evidence
    leakage = result_sections.compute_leakage(analysis)
    table_1, score_records = result_sections.make_table_1(analysis)
    claims, claim_records = claim_sections.make_claims(analysis)
    leaks, leak_records = result_sections.make_leakage(analysis, leakage)
    validation, val_records = result_sections.make_validation(analysis)
    cost, cost_records = result_sections.make_cost(analysis)
    spectrogram, first = figure_sections.make_spectrogram(analysis)
    curves, second = figure_sections.make_curves(analysis)
    confusions, third = figure_sections.make_confusions(analysis)
    by_group, fourth, group_records = group_sections.make_groups(analysis)
    sections = [
        summary.make_overview(analysis), table_1, *claims, *leaks, by_group, curves, confusions,
         *spectrogram, *validation, cost, record.make_missing(analysis),
        record.make_provenance(analysis),
    ]  # fmt: skip
    records: Mapping[str, Any] = (
        score_records | claim_records | leak_records | cost_records
        | group_records | val_records
    )  # fmt: skip
    what = "its own split and with unseen speakers" if leakage else " and ".join(evidence.protocols)
    n_systems, n_runs = len(evidence.systems), evidence.n_done
    runs = f"{n_systems} system{'s' * (n_systems != 1)} on {n_runs:,} run{'s' * (n_runs != 1)}"
    title, subtitle = _TITLE, f"What holds of \u201c{_STUDY}\u201d: {runs}"
    if not evidence.is_of_study:
        title = f"Emotion in the voice: {evidence.corpus}"
        subtitle = f"{runs} on the {len(evidence.labels)} classes of {evidence.corpus}"
    subtitle += f", under {what}, with intervals."
    first_words = summary.make_summary(analysis, leakage)
    drawn = figure_sections.make_overviews(analysis) | first | second | third | fourth
    return document.Document(title, subtitle, first_words, sections, records), drawn


def _to_page(report: document.Document, folder: Path) -> str:
    """One file that needs no other."""

    def embed(picture: document.Picture) -> str:
        form, kind = ("png", "png") if picture.raster else ("svg", "svg+xml")
        data = (folder / f"{picture.name}.{form}").read_bytes()
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    body = rendering.to_body(report, embed)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{rendering.escape(report.title)}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
