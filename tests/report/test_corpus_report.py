"""A report about other recordings than the study's, and its groups against scikit-learn."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from ser_jax.report.analysis import analyse
from ser_jax.report.evidence_files import load_evidence
from ser_jax.report.grid_report import make_report
from ser_jax.report.page import to_html, to_markdown
from ser_jax.report.rebuild import rebuild
from ser_jax.report.run_report import name_run
from tests.handmade import LABELS, write_grid, write_results

SYSTEMS: dict[str, dict[str, Any]] = {"lstm": {"model.name": "lstm", "skill": 0.3}}
NOTHING: Any = 0  # what scikit-learn's type hints lack


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """Twelve speakers left out one by one, two of them not run, of a corpus of our own."""
    folder = tmp_path_factory.mktemp("corpus") / "grid"
    results = write_grid(
        folder, SYSTEMS, protocols={"loso": range(1, 11)}, seeds=[0], n_actors=12, n_folds=12,
        epochs=2,
    )  # fmt: skip
    results["config"]["data"] = {"corpus": "manifest", "root": "clips/mine.csv"}
    del results["study"]
    for cell in results["cells"]:
        if cell["status"] == "done":
            cell["test_speakers"] = [f"speaker {cell['fold']}"]
    write_results(folder, results)
    rebuild(folder)
    return folder


def test_the_report_names_the_corpus_and_makes_no_claims_of_the_study(grid):
    text = (grid / "report.md").read_text()
    assert text.startswith("# Emotion in the voice: mine\n")
    for word in ("study", "claims", "not decided", "published", "Table 1", "RAVDESS"):
        assert word not in text.split("## How to reproduce it")[0], word
    assert not (grid / "tables" / "claims.csv").exists()
    page = (grid / "report.html").read_text().split('id="reproduce"')[0]
    assert "published by the study" not in page


def test_a_report_on_synthetic_sound_says_so_first_and_judges_no_claim(tmp_path):
    results = write_grid(tmp_path, SYSTEMS, protocols={"study": [1]}, seeds=[0, 1], epochs=2)
    results["config"]["data"] = {"corpus": "synthetic"}  # the published figures are there
    write_results(tmp_path, results)
    report = make_report(analyse(load_evidence(tmp_path, results)))
    text, page = to_markdown(report), to_html(report, lambda picture: "data:,")
    assert "synthetic sound made by a program, not speech" in text.split("\n\n")[2]
    header = page.split("</header>")[0]
    assert "synthetic sound" in header
    for word in ("published", "claims", "Table 1", "Diamonds"):
        assert word not in text
        assert word not in page.split("<body>")[1], word
    assert "study_accuracy" not in report.sections[1].records["table_1"][0]


def test_figures_that_the_study_does_not_give_have_no_column(tmp_path):
    own = {"svm": {"model.name": "svm", "skill": 0.3}}
    results = write_grid(tmp_path, own, protocols={"study": [1]}, seeds=[0], epochs=2)
    report = make_report(analyse(load_evidence(tmp_path, results)))
    assert "published" not in to_markdown(report)
    assert "published" not in to_html(report, lambda picture: "data:,").split("<body>")[1]


def test_chance_counts_the_classes_and_the_most_frequent_one(grid):
    rows = read_clips(grid)
    true = [row["emotion"] for row in rows]
    most = max(LABELS, key=true.count)
    assert (
        f"| chance, 1/8 | 12.5 % | always {most}: {100 * true.count(most) / len(true):.1f} % |"
        in (grid / "report.md").read_text()
    )


def test_speakers_left_out_are_named(grid):
    text = (grid / "report.md").read_text()
    assert "speakers speaker 1, speaker 2, " in text
    assert "speaker 10 of 12" in text
    rows = read_clips(grid)
    found = read_groups(grid, "speaker")
    assert set(found) == {row["actor"] for row in rows}
    for speaker, row in found.items():
        own = [r for r in rows if r["actor"] == speaker]
        expected = accuracy_score([r["emotion"] for r in own], [r["predicted"] for r in own])
        assert float(row["accuracy"]) == pytest.approx(expected, abs=1e-12)


def test_figures_by_emotion_are_scikit_learns_over_all_test_clips(grid):
    rows = read_clips(grid)
    true, pred = ([row[key] for row in rows] for key in ("emotion", "predicted"))
    expected: Any = precision_recall_fscore_support(
        true, pred, labels=LABELS, zero_division=NOTHING
    )
    found = read_groups(grid, "emotion")
    for name, precision, recall, f1, _ in zip(LABELS, *expected, strict=True):
        shown = [float(found[name][key]) for key in ("precision", "accuracy", "f1")]
        assert shown == pytest.approx([precision, recall, f1], abs=1e-12)


def test_a_run_on_a_speaker_left_out_is_called_by_that_speaker():
    metrics = {"protocol": "loso", "fold": 3, "model": "cnn", "corpus": "mine", "seed": 0}
    assert name_run(metrics) == "cnn on mine, loso split, fold 3, seed 0"
    named = metrics | {"test_speakers": ["MP0"]}
    assert name_run(named) == "cnn on mine, loso split, speaker MP0 left out, seed 0"


def test_speakers_of_long_names_stay_apart(tmp_path):
    folder = tmp_path / "grid"
    protocols = {"loso": [1]}
    results = write_grid(folder, SYSTEMS, protocols=protocols, seeds=[0], n_actors=2, n_folds=1)
    path = next((folder / "cells").glob("*/predictions.csv"))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["actor"] = f"{'a' * 40} {row['actor']}"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    write_results(folder, results)
    rebuild(folder)
    assert len(read_groups(folder, "speaker")) == 2


def read_clips(grid: Path) -> list[dict[str, str]]:
    rows = []
    for path in sorted((grid / "cells").glob("*/predictions.csv")):
        with path.open() as file:
            rows += csv.DictReader(file)
    assert len(rows) == np.sum([json.loads(p.with_name("metrics.json").read_text())["test"]["n"]
                                for p in (grid / "cells").glob("*/predictions.csv")])  # fmt: skip
    return rows


def read_groups(grid: Path, group: str) -> dict[str, dict[str, str]]:
    with (grid / "tables" / "groups.csv").open() as file:
        return {row["value"]: row for row in csv.DictReader(file) if row["group"] == group}
