"""Numbers, verdicts and table rows of a rich grid stay as they were.

`python -m tests.report.test_frozen_grid` writes frozen_grid.json anew; look at what differs.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ser_jax.report.analysis import analyse
from ser_jax.report.evidence_files import load_evidence
from ser_jax.report.grid_report import list_texts, make_report
from tests.handmade import write_grid, write_results

FROZEN = Path(__file__).with_name("frozen_grid.json")
AUGMENTED = {"model.name": "cnn_lstm", "augment.enabled": True}
SYSTEMS: dict[str, dict[str, Any]] = {
    "cnn": {"model.name": "cnn", "skill": 0.3},
    "cnn_50": {"model.name": "cnn", "train.epochs": 50, "skill": 0.36},
    "lstm": {"model.name": "lstm", "skill": 0.5, "gap": 0.2},
    "cnn_lstm": {"model.name": "cnn_lstm", "skill": 0.55},
    "cnn_lstm_augmented": AUGMENTED | {"skill": 0.4, "calm": 0.5},
    "cnn_lstm_augmented_peak": AUGMENTED | {"augment.normalise": "peak", "skill": 0.67},
    "wav2vec2_small": {"model.name": "wav2vec2", "skill": 0.66},
    "reslstm": {"model.name": "reslstm", "skill": 0.7, "parameters": 46_772},
}
PROTOCOLS = {"study": [1], "emobox6": range(1, 7)}
SEEDS = {"study": range(3), "emobox6": range(2)}


def write_rich_grid(folder: Path) -> None:
    """Eight systems under two protocols, with cells that are missing, foreign or have no clips."""
    results = write_grid(folder, SYSTEMS, protocols=PROTOCOLS, seeds=SEEDS, epochs=4)
    cells = {(c["system"], c["protocol"], c["fold"], c["seed"]): c for c in results["cells"]}
    cells["cnn", "emobox6", 6, 1] |= {"status": "missing"}
    for fold in (3, 4, 5, 6):
        for seed in SEEDS["emobox6"]:
            cells["cnn_50", "emobox6", fold, seed] |= {"status": "missing"}
    for place, cell in cells.items():
        if place[:2] == ("wav2vec2_small", "emobox6"):
            cell |= {"status": "missing"}
    cells["reslstm", "study", 1, 2] |= {"status": "diverged", "reason": "the loss is nan"}
    cells["reslstm", "study", 1, 1]["checksum"] = "ffff"
    (folder / "cells" / "lstm-study-1-0" / "predictions.csv").unlink()
    for cell in results["cells"]:
        cell["val_accuracy"] = 0.25 + cell["seed"] / 8 + cell["fold"] / 64
    write_results(folder, results)


def read_tables(folder: Path) -> dict[str, Any]:
    """Every CSV file as a head and rows of numbers and text, and the rows of report.md's tables."""
    write_rich_grid(folder)
    analysis = analyse(load_evidence(folder, json.loads((folder / "results.json").read_text())))
    texts = list_texts(analysis, make_report(analysis))
    found: dict[str, Any] = {
        Path(name).stem: [
            [to_number(cell) for cell in row] for row in csv.reader(io.StringIO(text))
        ]
        for name, text in texts.items()
        if name.endswith(".csv")
    }
    lines = (texts["report.md"] + texts["results.md"]).splitlines()
    return found | {"markdown": [line for line in lines if line.startswith("| ")]}


def to_number(text: str) -> str | float:
    try:
        return float(f"{float(text):.7g}")
    except ValueError:
        return text


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("frozen") / "grid"
    return read_tables(folder)


EXPECTED = json.loads(FROZEN.read_text()) if FROZEN.exists() else {}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_table_has_the_figures_that_it_had(tables, name):
    assert len(tables[name]) == len(EXPECTED[name])
    for row, expected in zip(tables[name], EXPECTED[name], strict=True):
        if isinstance(row, str):
            assert row == expected
            continue
        assert len(row) == len(expected)
        for cell, known in zip(row, expected, strict=True):
            assert cell == (known if isinstance(known, str) else pytest.approx(known, rel=1e-5))


def test_no_table_is_new_or_lost(tables):
    assert set(tables) == set(EXPECTED)


def freeze() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = read_tables(Path(folder) / "grid")
    lines = [
        f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]"
        for name, rows in tables.items()
    ]
    FROZEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    freeze()
