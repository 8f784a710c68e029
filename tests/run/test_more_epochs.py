"""A run trained for more epochs ends as one of as many epochs from the start, or is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import ser_jax.systems.network
from ser_jax.api import train
from ser_jax.config import find_differences, name_differences
from ser_jax.errors import UserError
from ser_jax.inference.load import load_run
from ser_jax.run.run_dir import load_run_config
from tests.tiny import make_config, read_run


def train_quietly(run_dir: Path, **changes: Any) -> None:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    train(make_config(run_dir, keys), observe=lambda event: None)


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """A finished run of two epochs."""
    run_dir = tmp_path_factory.mktemp("short") / "run"
    train_quietly(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    """A finished run of four epochs."""
    run_dir = tmp_path_factory.mktemp("long") / "run"
    train_quietly(run_dir, train__epochs=4)
    return run_dir


@pytest.fixture
def copy(short, tmp_path) -> Path:
    return Path(shutil.copytree(short, tmp_path / "run"))


def test_a_finished_run_of_more_epochs_is_as_one_from_the_start(copy, long):
    train_quietly(copy, train__epochs=4)
    assert read_run(copy) == read_run(long)
    assert load_run_config(copy).train.epochs == 4
    load_run(copy)


def test_an_interrupted_run_of_more_epochs_is_as_one_from_the_start(copy, long):
    (copy / "metrics.json").unlink()
    train_quietly(copy, train__epochs=4)
    assert read_run(copy) == read_run(long)


def test_killed_before_its_first_further_epoch_it_can_be_used_and_resumed(copy, long, monkeypatch):
    monkeypatch.setattr(ser_jax.systems.network, "fit", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_quietly(copy, train__epochs=4)
    monkeypatch.undo()
    assert not (copy / "metrics.json").exists()
    assert load_run(copy).best_epoch <= 2
    train_quietly(copy, train__epochs=4)
    assert read_run(copy) == read_run(long)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train__epochs": 1}, "train.epochs=2, not 1"),
        ({"train__epochs": 4, "seed": 1}, "seed=0, not 1; train.epochs=2, not 4"),
        ({"train__epochs": 4, "train__schedule": "cosine"}, "train.schedule=constant, not cosine"),
    ],
)
def test_other_settings_are_refused_and_named(copy, changes, said):
    before = json.loads((copy / "metrics.json").read_text())
    with pytest.raises(
        UserError, match=r"holds another run .*; choose another --run_dir"
    ) as caught:
        train_quietly(copy, **changes)
    assert said in str(caught.value)
    assert json.loads((copy / "metrics.json").read_text()) == before


def test_a_schedule_that_follows_from_all_epochs_is_not_lengthened(tmp_path):
    train_quietly(tmp_path / "run", train__epochs=1, train__schedule="linear")
    with pytest.raises(UserError, match=r"holds another run \(train\.epochs=1, not 2\)"):
        train_quietly(tmp_path / "run", train__epochs=2, train__schedule="linear")


def test_many_differences_are_counted():
    there = make_config(None)
    here = make_config(
        None,
        {"seed": 1, "train.epochs": 9, "model.hidden": 9, "model.name": "cnn", "augment.p": 0.1},
    )
    found = name_differences(find_differences(there, here))
    named = "augment.p=0.5, not 0.1; model.hidden=8, not 9; model.name=lstm, not cnn"
    assert found == f"{named}; and 2 more"
