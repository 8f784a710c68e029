"""A finished grid made by hand: results.json and the folders of its cells, without training."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.grid.cells import make_cell_name
from ser_jax.metrics import compute_report

LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STUDY = {"cnn": {"accuracy": 0.3519, "weighted_f1": 0.3014},
         "lstm": {"accuracy": 0.4352, "weighted_f1": 0.4044}}  # fmt: skip


def make_corpus(n_actors: int = 24) -> dict[str, np.ndarray]:
    """RAVDESS' grid of clips: 60 an actor, odd actors male, neutral never strong."""
    rows = [
        (actor, label, strong, statement, repetition)
        for actor in range(1, n_actors + 1)
        for label in range(8)
        for strong in (0, 1)
        for statement in (0, 1)
        for repetition in (1, 2)
        if label or not strong
    ]
    actor, true, strong, statement, repetition = map(np.array, zip(*rows, strict=True))
    return {
        "actor": actor, "true": true, "gender": np.where(actor % 2, "male", "female"),
        "intensity": np.where(strong, "strong", "normal"),
        "statement": np.where(statement, "dogs", "kids"), "repetition": repetition,
    }  # fmt: skip


def write_grid(
    folder: Path,
    systems: Mapping[str, Mapping[str, Any]],
    *,
    protocols: Mapping[str, Sequence[int]],
    seeds: Mapping[str, Sequence[int]] | Sequence[int] = (0, 1, 2),
    n_actors: int = 24,
    n_folds: int = 6,
    epochs: int = 10,
) -> dict[str, Any]:
    """Write a grid's files; returns what results.json holds.

    Args:
      systems: by name: dotted keys of the settings, and under 'skill', 'leak', 'gap', 'calm' how
        the predictions come about: share recognised, what a known speaker adds to it, what women
        have above men, share of calm among the errors; 'strong': what strong clips add.
      protocols: name to folds that are done; those of 'study' are [1].
      seeds: that were run, or by protocol.
    """
    corpus = make_corpus(n_actors)
    cells = []
    for name, own in systems.items():
        for protocol, folds in protocols.items():
            chosen = seeds[protocol] if isinstance(seeds, Mapping) else seeds
            every = (1,) if protocol == "study" else range(1, n_folds + 1)
            for seed in chosen:
                for fold in every:
                    place = {"system": name, "protocol": protocol, "fold": fold, "seed": seed}
                    if fold in folds:
                        cells.append(
                            place | _write_cell(folder, place, own, corpus, n_folds, epochs)
                        )
                    else:
                        cells.append(place | {"status": "missing"})
    hidden = ("skill", "leak", "gap", "calm", "strong", "parameters", "seconds", "checksum")
    config = {
        "out": "runs/study", "seeds": [0, 1, 2], "protocols": list(protocols),
        "data": {"corpus": "ravdess", "rate_hz": 16000}, "train": {"epochs": 10},
        "systems": {n: {k: v for k, v in s.items() if k not in hidden} for n, s in systems.items()},
    }  # fmt: skip
    results = {
        "cells": cells, "labels": list(LABELS), "config": config, "study": STUDY,
        "versions": {"jax": "0.10.2", "python": "3.11.9", "revision": "0123abcd4567"},
        "git": "0123abcd4567", "command": "ser-jax ablate --config configs/study.yaml",
    }  # fmt: skip
    write_results(folder, results)
    return results


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))


def _write_cell(
    folder: Path,
    place: dict[str, Any],
    own: Mapping[str, Any],
    corpus: dict[str, np.ndarray],
    n_folds: int,
    epochs: int,
) -> dict[str, Any]:
    protocol, fold, seed = place["protocol"], place["fold"], place["seed"]
    rng = np.random.default_rng([seed, fold, sum(map(ord, place["system"] + protocol))])
    n = len(corpus["true"])
    if protocol == "study":
        index = np.sort(np.random.default_rng(seed).permutation(n)[: round(0.15 * n)])
    else:
        index = np.flatnonzero(corpus["actor"] % n_folds == fold % n_folds)
    test = {name: values[index] for name, values in corpus.items()}
    skill = own.get("skill", 0.4) + rng.normal(0, 0.015)
    skill += own.get("leak", 0.08) if protocol == "study" else 0
    skill = skill + np.where(test["gender"] == "female", 1, -1) * own.get("gap", 0.06) / 2
    skill = skill + 0.05 * np.sin(7.0 * test["actor"]) + 0.06 * np.cos(3.0 * test["true"])
    skill = skill + np.where(test["intensity"] == "strong", own.get("strong", 0.0), 0.0)
    guess_B = np.where(
        rng.random(len(index)) < own.get("calm", 0.2), 1, rng.integers(0, 8, len(index))
    )
    pred_B = np.where(rng.random(len(index)) < skill, test["true"], guess_B)
    attributes = {name: test[name] for name in ("gender", "intensity", "statement")}
    report = compute_report(LABELS, test["true"], pred_B, attributes)
    facts = {"best_epoch": epochs, "epochs": epochs, "seconds": own.get("seconds", 42.5),
             "identity": "ab12cd34ef56", "checksum": own.get("checksum", "0011223344556677"),
             "parameters": own.get("parameters", 123_456), "trained_parameters": None,
             "device": "Some processor, 2 cores", "revision": "0123abcd4567"}  # fmt: skip
    run_dir = folder / "cells" / make_cell_name(place["system"], protocol, fold, seed)
    run_dir.mkdir(parents=True)
    (run_dir / "metrics.json").write_text(json.dumps(place | facts | {"test": report}))
    with (run_dir / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "actor", *attributes, "emotion", "predicted"])
        for row, (clip, true, pred) in enumerate(zip(index, test["true"], pred_B, strict=True)):
            known = [values[row] for values in attributes.values()]
            writer.writerow([f"{clip}.wav", test["actor"][row], *known, LABELS[true], LABELS[pred]])
    with (run_dir / "events.jsonl").open("w") as file:
        for epoch in range(1, epochs + 1):
            done = 1 - np.exp(-epoch / 6)
            event = {"event": "epoch", "epoch": epoch, "step": 32 * epoch, "seconds": 1.0}
            for part, over in (("train", 1.2), ("val", 1.0)):
                accuracy = 0.12 + (float(np.mean(skill)) - 0.12) * done * over
                noise = rng.normal(0, 0.02)
                event |= {
                    f"{part}_accuracy": accuracy + noise,
                    f"{part}_loss": 2.1 - 1.6 * accuracy + noise,
                }
            file.write(json.dumps(event) + "\n")
    keys = ("accuracy", "weighted_f1", "uar", "macro_f1", "n", "confusion", "labels")
    return {"status": "done", **{key: report[key] for key in keys}, **facts}
