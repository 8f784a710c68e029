"""Settings of training in a grid: a cell is the run alone, and what is kept is used."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ser_jax.api import ablate, train
from ser_jax.config import AblationConfig, override
from ser_jax.grid.cells import list_cells
from ser_jax.grid.schedule import compute_program_key
from ser_jax.inference.load import load_run
from ser_jax.report.rebuild import rebuild
from ser_jax.run.events import load_events
from ser_jax.training.checkpoint import Checkpoints
from tests.tiny import drop_seconds, make_config, make_keys, make_template, read_state
from tests.tolerance import assert_near

SETTINGS: dict[str, Any] = {
    "train.optimizer": "sgd", "train.epochs": 1,
    "train.schedule": "cosine", "train.balanced": True, "train.average_decay": 0.5,
    "augment.time_masks": 2,
}  # fmt: skip
"""One that each goes its own way; what the others do, training/test_step_settings.py tells."""


def make_grid(out: Path, sweep: dict[str, list[Any]]) -> AblationConfig:
    shared = {"out": str(out), "systems": {"lstm": {}}, "seeds": (3,), "batching": "vmap"}
    keys = make_keys(SETTINGS) | shared | {"sweep": sweep}
    return override(AblationConfig(), keys)


def test_a_cell_of_a_swept_grid_equals_the_run_alone(tmp_path):
    sweep = {"augment.time_mask_frames": [2, 9], "train.learning_rate": [0.05, 0.2]}
    ablate(make_grid(tmp_path / "grid", sweep))
    alone = tmp_path / "alone"
    values = {"augment.time_mask_frames": 9, "train.learning_rate": 0.05}
    train(make_config(alone, SETTINGS | values | {"seed": 3}), observe=lambda event: None)
    cell = tmp_path / "grid" / "cells" / "lstm_time_mask_frames_9_learning_rate_0.05-study-1-3"
    for a, b in zip(drop_seconds(load_events(alone)), drop_seconds(load_events(cell)), strict=True):
        assert a == {k: pytest.approx(v) if isinstance(v, float) else v for k, v in b.items()}
    for a, b in zip(read_state(alone, 1), read_state(cell, 1), strict=True):
        a, b = (np.nan_to_num(np.frombuffer(x, np.float32)) for x in (a, b))
        assert_near(a, b, rtol=1e-4, atol=1e-6)

    # What a run is used for are its averages.
    run = load_run(alone)
    checkpoints = Checkpoints(alone / "checkpoints", read_only=True)
    state = checkpoints.load_state(1, make_template(run.config))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, run.variables["params"], state.average["params"])
    gaps = jax.tree.map(lambda x, y: np.abs(x - y).max(), state.average["params"], state.params)
    assert max(jax.tree.leaves(gaps)) > 1e-6


def test_values_share_a_program_and_switches_do_not(tmp_path):
    def count(sweep: dict[str, list[Any]]) -> int:
        cells = list_cells(make_grid(tmp_path, sweep))
        return len({compute_program_key(cell.config) for cell in cells})

    assert count({"train.mixup": [0.2, 1.0], "train.average_decay": [0.9, 0.99]}) == 1
    assert count({"augment.time_mask_frames": [0, 9], "augment.time_warp": [0.1, 0.2]}) == 1
    assert count({"train.balanced": [True, False], "train.focal_gamma": [1.0, 2.0]}) == 1
    assert count({"train.mixup": [0.0, 1.0]}) == 2
    assert count({"augment.time_masks": [1, 2]}) == 2
    assert count({"augment.band_warp": [0.0, 0.1]}) == 2


def test_an_ensemble_on_all_but_the_test_clips_is_the_same_in_a_grid(tmp_path):
    changes = {
        "model.ensemble": 2, "data.train_on_validation": True, "train.best_by": "last",
        "train.optimizer": "sgd", "train.learning_rate": 0.5,
    }  # fmt: skip
    grid = make_keys(changes) | {
        "out": str(tmp_path / "grid"), "systems": {"lstm": {}}, "seeds": (3, 4), "batching": "vmap",
    }  # fmt: skip
    ablate(override(AblationConfig(), grid))
    alone, cell = tmp_path / "alone", tmp_path / "grid" / "cells" / "lstm-study-1-3"
    metrics = train(make_config(alone, changes | {"seed": 3}), observe=lambda event: None)
    assert metrics["best_epoch"] == metrics["epochs"] == 2
    assert "val" not in metrics  # those clips were trained on
    for a, b in zip(read_state(alone, 2), read_state(cell, 2), strict=True):
        a, b = (np.nan_to_num(np.frombuffer(x, np.float32)) for x in (a, b))
        assert_near(a, b, rtol=1e-4, atol=1e-6)
    n_known = len(set((alone / "known_clips.txt").read_text().split()))
    first = next(event for event in load_events(alone) if event["event"] == "epoch")
    assert n_known == 64 - metrics["test"]["n"]
    assert first["step"] == -(-n_known // 16)

    assert {leaf.shape[0] for leaf in jax.tree.leaves(load_run(alone).variables)} == {2}
    assert alone / "figures" / "curves.png" in rebuild(alone)
