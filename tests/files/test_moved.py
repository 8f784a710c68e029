"""A run directory that is moved or deleted under a training, and comes back."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_jax.api import train
from ser_jax.errors import UserError
from ser_jax.training.checkpoint import Checkpoints
from tests.tiny import make_config, read_run

CHANGES = {"train.epochs": 6}


def train_and(act: Any, run_dir: Path) -> None:
    """Train, and `act` once when the second epoch has ended."""
    done = []

    def observe(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 2 and not done:
            done.append(act())

    train(make_config(run_dir, CHANGES), observe=observe)


def delete(folder: Path) -> None:
    """Delete a folder that is written to meanwhile, which may take several tries."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def test_a_run_that_was_moved_is_resumed_where_it_was_and_where_it_is(tmp_path):
    train_and(lambda: None, tmp_path / "whole")
    run_dir, other = tmp_path / "run", tmp_path / "other"
    with pytest.raises(UserError, match=rf"^{run_dir}: was moved or deleted .*; move it back"):
        train_and(lambda: shutil.move(run_dir, other), run_dir)
    assert not run_dir.exists()  # nothing stands in its way back
    shutil.copytree(other, run_dir)
    for place in (run_dir, other):
        train_and(lambda: None, place)
        assert read_run(place) == read_run(tmp_path / "whole")


def test_a_run_that_was_deleted_leaves_nothing_and_begins_anew(tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(UserError, match="was moved or deleted"):
        train_and(lambda: delete(run_dir), run_dir)
    assert not run_dir.exists()
    train_and(lambda: None, run_dir)
    assert (run_dir / "metrics.json").exists()


def test_a_save_leaves_alone_what_has_come_in_its_folders_place(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, {"x": np.zeros(3)}, {}, best_epoch=1)
    checkpoints.wait()
    (tmp_path / "run").rename(tmp_path / "other")
    folder.mkdir(parents=True)
    (folder / "theirs").write_text("x")
    checkpoints.save(2, {"x": np.zeros(3)}, {}, best_epoch=2)
    with pytest.raises(UserError, match="run: was moved or deleted"):
        checkpoints.wait()
    checkpoints.close()
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert [path.name for path in (tmp_path / "other" / "checkpoints").iterdir()] == ["1"]
