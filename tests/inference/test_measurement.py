"""What an evaluation says and leaves: scikit-learn's figures, clips by name, warnings."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
)

from ser_jax.api import train
from ser_jax.cli.commands import main
from ser_jax.config import Config, override
from ser_jax.data.corpus import Corpus
from ser_jax.data.store import load_corpus
from ser_jax.inference.measurement import Heard, Measurement, write_evaluation
from ser_jax.run.results import compute_scores

SETTINGS = {
    "data.corpus": "synthetic",
    "data.synthetic_actors": 4,
    "data.synthetic_clips": 16,
    "data.rate_hz": 8000,
    "features.hop_length": 1024,
    "model.name": "lstm",
    "model.hidden": 8,
    "model.dense": [8],
    "train.epochs": 1,
}

NOTHING: Any = 0  # what scikit-learn's type hints lack


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("trained")
    places = {"run_dir": str(folder / "run"), "data.store_dir": str(folder / "store")}
    return override(Config(), SETTINGS | places)


@pytest.fixture(scope="module")
def run_dir(config) -> Path:
    train(config, observe=lambda event: None)
    return Path(config.run_dir)


@pytest.fixture(scope="module")
def corpus(config) -> Corpus:
    return load_corpus(config.data)


def test_every_figure_of_an_evaluation_is_scikit_learns_on_its_own_predictions(
    run_dir, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(["evaluate", str(run_dir), "--split", "all", "--out", str(out)]) == 0
    found = json.loads((out / "evaluation.json").read_text())
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 64
    labels = found["labels"]
    assert all(row["predicted"] == max(labels, key=lambda x: float(row[x])) for row in rows)
    assert all(sum(float(row[x]) for x in labels) == pytest.approx(1) for row in rows)
    check_figures(found, rows)
    for name in ("gender", "intensity", "statement"):
        for value, figures in found["by"][name].items():
            check_figures(figures, [row for row in rows if row[name] == value])
    true, pred = ([row[key] for row in rows] for key in ("emotion", "predicted"))
    assert found["confusion"] == confusion_matrix(true, pred, labels=labels).tolist()
    per_class: Any = precision_recall_fscore_support(
        true, pred, labels=labels, zero_division=NOTHING
    )
    for name, precision, recall, f1, n in zip(labels, *per_class, strict=True):
        figures = {"accuracy": recall if n else None, "precision": precision, "f1": f1, "n": n}
        figures["predicted"] = pred.count(name)
        assert found["by"]["emotion"][name] == pytest.approx(figures, abs=1e-12)
        assert found["predicted"][name]["share"] == pytest.approx(pred.count(name) / 64)
    for figure, (low, high) in found["intervals"].items():
        assert low <= found[figure] <= high
    capsys.readouterr()
    assert main(["evaluate", str(run_dir), "--split", "all", "--format", "csv"]) == 0
    printed = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert float(printed[0]["weighted_f1"]) == found["weighted_f1"]
    assert main(["evaluate", str(run_dir), "--split", "all", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert json.loads((run_dir / "evaluations/synthetic-all/evaluation.json").read_text()) == found


def check_figures(figures, rows):
    true, pred = ([row[key] for row in rows] for key in ("emotion", "predicted"))
    expected = {
        "accuracy": accuracy_score(true, pred),
        "weighted_f1": f1_score(true, pred, average="weighted", zero_division=NOTHING),
        "macro_f1": f1_score(true, pred, average="macro", zero_division=NOTHING),
        "uar": recall_score(
            true, pred, average="macro", labels=sorted(set(true)), zero_division=NOTHING
        ),
        "n": len(rows),
    }
    assert {key: figures[key] for key in expected} == pytest.approx(expected, abs=1e-12)


def make_measurement(corpus, predicted_B, probability=0.7):
    C, B = len(corpus.labels), len(predicted_B)
    probability_BC = np.full((B, C), (1 - probability) / (C - 1))
    probability_BC[np.arange(B), predicted_B] = probability
    index = np.arange(B)
    report = compute_scores(corpus, index, np.asarray(predicted_B))
    heard = Heard(corpus, index, probability_BC)
    return Measurement(report, corpus.name, "all", "study split", "ravdess", heard)


def test_predictions_that_fall_onto_one_class_are_warned_of(corpus):
    predicted_B = corpus.emotion_B.copy()
    predicted_B[:60] = 5
    said = make_measurement(corpus, predicted_B).list_warnings()
    assert len(said) == 1
    assert "clips are taken for fearful, at a mean probability of 0.70" in said[0]
    assert make_measurement(corpus, corpus.emotion_B).list_warnings() == []


def test_one_class_alone_is_warned_of_and_named(corpus):
    alone = dataclasses.replace(corpus, emotion_B=np.full_like(corpus.emotion_B, 3))
    (said,) = make_measurement(alone, alone.emotion_B).list_warnings()
    assert "all 64 clips are of one class, sad" in said


def test_clips_name_their_speakers_as_the_corpus_does(corpus, tmp_path):
    named = dataclasses.replace(corpus, speakers=tuple(f"s{n}" for n in range(1, 25)))
    found = make_measurement(named, named.emotion_B)
    assert write_evaluation(found, tmp_path) == tmp_path / "evaluations" / "synthetic-all"
    with (tmp_path / "evaluations/synthetic-all/predictions.csv").open() as file:
        speakers = [row["actor"] for row in csv.DictReader(file)]
    assert speakers == [f"s{n}" for n in corpus.actor_B]


def test_a_run_that_cannot_be_written_to_is_measured_with_a_warning(run_dir, tmp_path, capsys):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    shutil.rmtree(copy / "evaluations", ignore_errors=True)
    (copy / "evaluations").write_text("in the way")
    assert main(["evaluate", str(copy)]) == 0
    printed = capsys.readouterr()
    assert "Weighted F1" in printed.out
    assert "cannot write" in printed.err
    assert "--out DIR" in printed.err
    assert main(["evaluate", str(copy), "--out", str(copy / "evaluations")]) == 2
