"""A grid of runs equals its runs alone, goes on where it stopped, and says what is wrong first."""

import csv
import json
import os
import shutil
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ser_jax import ablation
from ser_jax import run as run_module
from ser_jax.ablation import ablate, list_cells, with_shared
from ser_jax.ablation.processes import naming_dead_workers
from ser_jax.config import AblationConfig, override
from ser_jax.errors import UserError
from ser_jax.run import train
from tests.tiny import (
    Child,
    drop_progress,
    list_group,
    make_config,
    make_keys,
    read_run,
    run_command,
    start_command,
    wait_until,
)

SYSTEMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "diverging": {"train.optimizer": "sgd", "train.learning_rate": 1e30},
    "augmented": {"augment.enabled": True, "augment.backend": "host", "augment.workers": 1},
}
# Of the four actors, fold 1 tests on 2 and fold 5 on 1 and 4.
GRID: dict[str, Any] = {
    "protocols": ("luna5",), "folds": (1, 5), "seeds": (3,), "systems": SYSTEMS,
    "train.epochs": 8,
}  # fmt: skip


def make_grid(out: Path, **changes: Any) -> AblationConfig:
    keys = make_keys(GRID) | {"out": str(out), "workers": 1} | changes
    return override(AblationConfig(), keys)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A finished grid, run in this process, and what `ablate` returned."""
    out = tmp_path_factory.mktemp("finished") / "grid"
    return out, ablate(make_grid(out))


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "grid"))


def find_cell(results: dict[str, Any], system: str, fold: int) -> dict[str, Any]:
    (cell,) = (c for c in results["cells"] if (c["system"], c["fold"]) == (system, fold))
    return cell


def drop_times(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in cell.items() if k != "seconds"} for cell in results["cells"]]


# What a grid computes.


@pytest.mark.parametrize("system", ["plain", "augmented"])
def test_a_cell_equals_the_same_run_alone(system, finished, tmp_path):
    out, results = finished
    place = {"data.protocol": "luna5", "data.fold": 5, "seed": 3, "train.epochs": 8}
    config = make_config(tmp_path / "run", place | SYSTEMS[system])
    metrics = train(config, observe=lambda event: None)
    assert read_run(tmp_path / "run") == read_run(out / "cells" / f"{system}-luna5-5-3")
    cell = find_cell(results, system, 5)
    assert cell["confusion"] == metrics["test"]["confusion"]
    assert cell["accuracy"] == metrics["test"]["accuracy"]


def test_a_diverging_cell_is_recorded_and_harms_no_other(finished):
    _, results = finished
    status = {(cell["system"], cell["fold"]): cell["status"] for cell in results["cells"]}
    assert status == {
        (system, fold): "diverged" if system == "diverging" else "done"
        for system in SYSTEMS for fold in (1, 5)
    }  # fmt: skip
    assert "train.learning_rate" in find_cell(results, "diverging", 1)["reason"]


def test_folds_are_pooled_into_one_row(finished):
    out, results = finished
    with (out / "results.csv").open() as file:
        rows = {row["system"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(SYSTEMS)
    matrices = [np.array(find_cell(results, "plain", fold)["confusion"]) for fold in (1, 5)]
    pooled_CC = matrices[0] + matrices[1]
    assert [matrix.sum() for matrix in matrices] == [16, 32]
    assert float(rows["plain"]["accuracy_mean"]) == pytest.approx(
        pooled_CC.trace() / pooled_CC.sum()
    )
    assert int(float(rows["plain"]["n"])) == 48


def test_a_grid_writes_its_results_tables_and_figures(finished):
    out, results = finished
    assert json.loads((out / "results.json").read_text()) == results
    names = {path.name for path in out.iterdir()}
    assert names == {
        "cells", "figures", "manifest.json", "results.json", "results.csv", "results.md",
    }  # fmt: skip
    assert len(results["labels"]) == 8
    assert "study" not in results  # the published figures are of other recordings
    assert (out / "figures" / "comparison-luna5.png").exists()


# Going on.


def test_finished_cells_are_not_run_again(copy, finished, monkeypatch):
    fitted = []
    fit = run_module.fit

    def counting_fit(*arguments: Any, **options: Any) -> Any:
        fitted.append(options["settings"])
        return fit(*arguments, **options)

    monkeypatch.setattr(run_module, "fit", counting_fit)
    shutil.rmtree(copy / "cells" / "plain-luna5-5-3")
    results = ablate(make_grid(copy))
    assert len(fitted) == 1
    assert drop_times(results) == drop_times(finished[1])


def write_yaml(path: Path) -> str:
    """The grid as a file for the command line."""
    keys = {k: list(v) if isinstance(v, tuple) else v for k, v in make_keys(GRID).items()}
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return str(path)


def count_lines(out: Path) -> int:
    """Events of all cells."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("cells/*/events.jsonl"))


@pytest.mark.slow
def test_a_grid_of_processes_can_be_stopped_and_ends_as_one_in_this_process(finished, tmp_path):
    out = tmp_path / "grid"
    config = write_yaml(tmp_path / "grid.yaml")
    argv = ["ablate", "--config", config, "--out", str(out), "--workers", "2"]

    process = start_command(*argv)
    wait_until(lambda: count_lines(out) >= 3, "no progress", 180)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all workers, too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert drop_progress(errors) == [
        "ser-jax: interrupted; the same command goes on with what is left of the grid"
    ]
    wait_until(lambda: not list_group(process.pid), "processes are left")

    status, output = Child(run_command, *argv).wait(300)
    assert status == 0, output
    results = json.loads((out / "results.json").read_text())
    assert drop_times(results) == drop_times(finished[1])
    for system in ("plain", "augmented"):
        for fold in (1, 5):
            name = f"cells/{system}-luna5-{fold}-3"
            assert read_run(out / name) == read_run(finished[0] / name)


def test_a_worker_that_dies_is_said_in_one_line():
    with pytest.raises(UserError, match="run the same command again") as caught:  # noqa: SIM117
        with naming_dead_workers():
            raise BrokenProcessPool("died")
    assert "\n" not in str(caught.value)


# Mistakes, before anything is run.


@pytest.mark.parametrize(
    ("systems", "match"),
    [
        ({}, "name at least one system"),
        ({"good": {}, "bad": {"model.nam": "cnn"}}, r"systems\.bad: .*no such key"),
        ({"good": {}, "bad": {"train.epochs": 0}}, r"systems\.bad: train\.epochs=0"),
        ({"good": {}, "bad": {"train": 3}}, r"systems\.bad: train=3"),
        ({"good": {}, "bad": {"train.epochs": "many"}}, r"systems\.bad: "),
        ({"good": {}, "bad": "cnn"}, r"systems\.bad: "),
    ],
)
def test_a_bad_system_is_an_error_before_any_is_run(systems, match, tmp_path):
    config = override(make_grid(tmp_path / "grid"), {"systems": systems})
    with pytest.raises(UserError, match=match) as caught:
        ablate(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize("changes", [{"folds": (1, 6)}, {"protocols": ("study",), "folds": (2,)}])
def test_a_fold_that_does_not_exist_is_an_error_before_any_is_run(changes, tmp_path):
    with pytest.raises(UserError, match="fold"):
        ablate(make_grid(tmp_path / "grid", **changes))
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_folder_of_other_cells_is_refused_before_any_is_run(copy, monkeypatch):
    monkeypatch.setattr(ablation, "_run_cells", None)
    with pytest.raises(UserError, match="was run with other settings; choose another --out"):
        ablate(make_grid(copy, **{"train.epochs": 9}))


def test_keys_for_all_reach_systems_that_set_them_themselves():
    config = make_grid(Path("grid"))
    cells = list_cells(with_shared(config, {"train.learning_rate": 0.5, "model.hidden": 4}))
    assert {cell.config.train.learning_rate for cell in cells} == {0.5}
    assert {cell.config.model.hidden for cell in cells} == {4}
    assert [cell.fold for cell in cells] == [1, 5] * 3
