"""The report of an ablation: HTML, Markdown, CSV and figures, from its results.json and cells."""

from __future__ import annotations

import base64
from pathlib import Path

from ser_jax.errors import check, count_noun
from ser_jax.files.atomic import write_atomic
from ser_jax.files.json_files import blaming, load_json
from ser_jax.machine.environment import import_matplotlib
from ser_jax.report import claim_sections, figure_sections, group_sections, provenance
from ser_jax.report import result_sections as results_of
from ser_jax.report.analysis import Analysis, analyse
from ser_jax.report.evidence_files import load_evidence
from ser_jax.report.figures import save_figure
from ser_jax.report.overview import make_overview, make_summary
from ser_jax.report.page import Picture, Report, to_csv, to_html, to_markdown
from ser_jax.report.pair_sections import make_pairs
from ser_jax.report.tables import rows_to_csv, rows_to_markdown
from ser_jax.run.file_names import RESULTS_FILE

REPORT_FILE = "report.html"
_REMEDY = "ser-jax ablate writes it: run it again with this out folder"
_TITLE = "Emotion in the voice: a study, run again"
_STUDY = "Comparative Analysis of Deep Learning Architectures for Emotion Classification in Audio"
_SYNTHETIC = (
    "These clips are synthetic sound made by a program, not speech: the figures show that "
    "everything runs, and say nothing about emotion in voices."
)


def write_ablation_report(folder: str | Path) -> list[Path]:
    """Write report.html, report.md, tables/ and figures/ from an ablation's files.

    Beside "cells", results.json may hold "labels", the names of the classes, "study", published
    figures by system, "config", "command", "git" and "versions". Clips, curves and a spectrogram
    come from the runs below cells/, where they are; the report names cells that are missing,
    failed or foreign.

    Raises:
      UserError: results.json is missing or broken, or a result cannot be written.
    """
    import_matplotlib()
    folder = Path(folder)
    path = folder / RESULTS_FILE
    results = load_json(path, _REMEDY)
    with blaming(path, _REMEDY):
        check(len(results["cells"]) > 0, f"{path}: holds no cells; {_REMEDY}")
        analysis = analyse(load_evidence(folder, results))
    report = make_report(analysis)
    written = []
    for section in report.sections:
        for name, draw in section.figures.items():
            written += save_figure(draw(), folder / "figures" / name)
    texts = list_texts(analysis, report) | {REPORT_FILE: to_html(report, _make_embed(folder))}
    for name, text in texts.items():
        write_atomic(folder / name, text)
    return written + [folder / name for name in texts]


def list_texts(analysis: Analysis, report: Report) -> dict[str, str]:
    """By name, what is written beside the page and the figures."""
    tables = {
        f"tables/{name}.csv": to_csv(records)
        for section in report.sections
        for name, records in section.records.items()
    }
    return {
        "results.md": rows_to_markdown(analysis.summary),
        "results.csv": rows_to_csv(analysis.summary),
        "report.md": to_markdown(report),
        **tables,
    }


def make_report(analysis: Analysis) -> Report:
    """The report as data, and what draws its figures."""
    evidence = analysis.evidence
    leakage = results_of.compute_leakage(analysis)
    pooled = not evidence.is_cross_corpus  # whose clips are tested by several pairs
    sections = [
        make_overview(analysis) if pooled else make_pairs(analysis),
        results_of.make_table_1(analysis) if pooled else None,
        claim_sections.make_claims(analysis), claim_sections.make_augmentation(analysis),
        results_of.make_leakage(analysis, leakage),
        group_sections.make_groups(analysis) if pooled else None,
        figure_sections.make_curves(analysis), figure_sections.make_confusions(analysis),
        figure_sections.make_spectrogram(analysis), results_of.make_validation(analysis),
        results_of.make_cost(analysis), provenance.make_missing(analysis),
        provenance.make_provenance(analysis),
    ]  # fmt: skip
    under = f"under {' and '.join(f'`{protocol}`' for protocol in evidence.protocols)}"
    systems, runs = count_noun(len(evidence.systems), "system"), count_noun(evidence.n_done, "run")
    said = f"{systems}, {runs}"
    title, subtitle = _TITLE, f"What holds of “{_STUDY}”: {said} {under}"
    if not evidence.is_of_study:
        title = f"Emotion in the voice: {evidence.corpus}"
        subtitle = f"{said} on the {len(evidence.labels)} classes of {evidence.corpus}, {under}"
    return Report(
        title, f"{subtitle}, with 95 % intervals.",
        _SYNTHETIC if evidence.corpus == "synthetic" else "", make_summary(analysis, leakage),
        [section for section in sections if section],
    )  # fmt: skip


def _make_embed(folder: Path):
    """From a picture to the data URI of its file."""

    def embed(picture: Picture) -> str:
        form, kind = ("png", "png") if picture.raster else ("svg", "svg+xml")
        data = (folder / "figures" / f"{picture.name}.{form}").read_bytes()
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    return embed
