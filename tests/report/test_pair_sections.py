"""The report of cross_corpus: a matrix for each system, and what crossing costs it."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from ser_jax.report.analysis import analyse
from ser_jax.report.evidence_files import load_evidence
from ser_jax.report.grid_report import make_report
from ser_jax.report.page import to_html, to_markdown
from ser_jax.report.rebuild import rebuild
from ser_jax.report.tables import rank_systems, summarise
from tests.handmade import write_grid, write_results

PAIRS = [("mine", "mine"), ("mine", "savee"), ("savee", "mine"), ("savee", "savee")]
SYSTEMS: dict[str, dict[str, Any]] = {
    "lstm": {"model.name": "lstm", "skill": 0.3}, "cnn": {"model.name": "cnn", "skill": 0.6},
}  # fmt: skip


def write(folder: Path, seeds: list[int], folds=(1, 2, 3, 4)) -> dict[str, Any]:
    results = write_grid(
        folder, SYSTEMS, protocols={"cross_corpus": folds}, seeds=seeds, n_folds=4, epochs=2
    )
    roots = {"savee": "DIR", "mine": "mine.csv"}
    results["config"]["data"] = {"corpus": "joined", "roots": roots}
    del results["study"]
    for cell in results["cells"]:
        cell["fold_name"] = " -> ".join(PAIRS[cell["fold"] - 1])
    write_results(folder, results)
    return results


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """Three seeds of two systems."""
    folder = tmp_path_factory.mktemp("cross") / "grid"
    write(folder, [0, 1, 2])
    rebuild(folder)
    return folder


def read_table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def compute_uar(folder: Path, system: str, fold: int, seed: int) -> float:
    """scikit-learn's, from a cell's predictions."""
    path = folder / "cells" / f"{system}-cross_corpus-{fold}-{seed}" / "predictions.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return balanced_accuracy_score(
        [row["emotion"] for row in rows], [row["predicted"] for row in rows]
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_cells_of_the_matrix_are_scikit_learns_uar_over_seeds(grid, system):
    rows = [row for row in read_table(grid, "cross_corpus") if row["system"] == system]
    assert [(row["trained_on"], row["tested_on"]) for row in rows] == PAIRS
    matrix = read_matrix((grid / "report.md").read_text(), system)
    for fold, row in enumerate(rows, 1):
        expected = np.mean([compute_uar(grid, system, fold, seed) for seed in range(3)])
        assert float(row["uar"]) == pytest.approx(expected, abs=1e-12)
        assert row["interval_over"] == "seeds"
        assert float(row["uar_low"]) < expected < float(row["uar_high"])
        shown = matrix[row["trained_on"]][row["tested_on"]]
        low, high = (f"{float(row[f'uar_{end}']):.3f}" for end in ("low", "high"))
        assert shown == f"{expected:.3f} [{low}, {high}]"


def read_matrix(text: str, system: str) -> dict[str, dict[str, str]]:
    """Rows, trained on, and columns, tested on, of a system's table in the Markdown."""
    lines = text.split(f"`{system}`: UAR")[1].split("\n\n")[1].splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]
    head = [name.removeprefix("tested on `") for name in cells[0][1:]]
    return {row[0]: dict(zip(head, row[1:], strict=True)) for row in cells[2:]}


@pytest.mark.parametrize("system", SYSTEMS)
def test_crossing_costs_the_diagonal_minus_the_rest(grid, system):
    uar_SP = np.array([[compute_uar(grid, system, fold, seed) for fold in (1, 2, 3, 4)]
                       for seed in range(3)])  # fmt: skip
    within, across = uar_SP[:, [0, 3]].mean(), uar_SP[:, [1, 2]].mean()
    (row,) = [row for row in read_table(grid, "crossing") if row["system"] == system]
    found = [float(row[key]) for key in ("within", "across", "cost")]
    assert found == pytest.approx([within, across, within - across], abs=1e-12)
    assert float(row["cost_low"]) < within - across < float(row["cost_high"])
    points = f"{100 * (within - across):.1f}".replace("-", "\u2212")
    sentence = rf"Crossing costs `{system}` {points} points of UAR \(95 % over 3 seeds: \S+ to \S+"
    text = (grid / "report.md").read_text()
    assert re.search(sentence, text)
    assert text.index(f"`{system}`: UAR") < re.search(sentence, text).start()  # pyright: ignore
    page = (grid / "report.html").read_text()
    assert f"Crossing costs <code>{system}</code> {points} points of UAR" in page


def test_no_figure_is_pooled_over_pairs_and_no_claim_is_judged(grid):
    text = (grid / "report.md").read_text().split("## How to reproduce it")[0]
    for word in ("accuracy `cross_corpus`", "best accuracy", "## Table 1", "claims", "published"):
        assert word not in text, word
    assert not (grid / "tables" / "table_1.csv").exists()
    assert not (grid / "tables" / "claims.csv").exists()
    for name in ("confusion-cnn-cross_corpus-mine-savee", "confusion-lstm-cross_corpus-savee-mine"):
        assert (grid / "figures" / f"{name}.svg").exists()
    rows = (grid / "results.md").read_text()
    for source, target in PAIRS:
        assert f"| cnn | cross_corpus {source} -> {target} |" in rows


def test_a_single_seed_has_its_interval_over_test_speakers(tmp_path):
    write(tmp_path, [0])
    rebuild(tmp_path)
    assert {row["interval_over"] for row in read_table(tmp_path, "cross_corpus")} == {"speakers"}
    text = (tmp_path / "report.md").read_text()
    assert "`cnn`: UAR [95 % interval over test speakers, by bootstrap]; rows: trained on" in text
    assert re.search(r"Crossing costs `cnn` \S+ points of UAR: ", text)


def test_a_pair_that_is_missing_leaves_the_cost_open_and_is_named(tmp_path):
    results = write(tmp_path, [0], folds=(1, 2, 4))
    report = make_report(analyse(load_evidence(tmp_path, results)))
    text, page = to_markdown(report), to_html(report, lambda picture: "data:,")
    assert read_matrix(text, "cnn")["savee"]["mine"] == "no result"
    assert "What crossing costs `cnn` is open until a seed has every pair." in text
    assert "cnn, cross_corpus, seed 0 savee -&gt; mine: missing" in page.replace("_<wbr>", "_")


def test_some_folds_of_a_grid_have_a_matrix_but_no_cost(tmp_path):
    results = write(tmp_path, [0])
    results["cells"] = [cell for cell in results["cells"] if cell["fold"] in (2, 3)]
    text = to_markdown(make_report(analyse(load_evidence(tmp_path, results))))
    assert read_matrix(text, "cnn")["mine"]["mine"] == "no result"
    assert "What crossing costs `cnn` is open until a seed has every pair." in text


def test_nothing_done_is_said(tmp_path):
    results = write(tmp_path, [0], folds=())
    text = to_markdown(make_report(analyse(load_evidence(tmp_path, results))))
    assert "No run has finished." in text.split("## From corpus to corpus")[1]


def test_systems_are_ranked_by_the_mean_over_pairs():
    def make_cell(system: str, fold: int, hits: int) -> dict[str, Any]:
        return {
            "system": system, "protocol": "cross_corpus", "fold": fold, "seed": 0,
            "fold_name": " -> ".join(PAIRS[fold - 1]), "status": "done",
            "confusion": [[hits, 10 - hits], [10 - hits, hits]],
        }  # fmt: skip

    first = [make_cell("first", fold, hits) for fold, hits in enumerate((9, 1, 1, 2), 1)]
    later = [make_cell("later", fold, hits) for fold, hits in enumerate((5, 6, 6, 5), 1)]
    assert rank_systems(summarise(first + later)) == ["later", "first"]
