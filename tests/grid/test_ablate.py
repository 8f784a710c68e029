"""A grid of runs equals its runs alone, goes on where it stopped, and says what is wrong first."""

import csv
import json
import os
import re
import shutil
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml

from ser_jax.api import ablate, train
from ser_jax.cli.arguments import parse
from ser_jax.config import AblationConfig, override
from ser_jax.errors import UserError
from ser_jax.grid import ablate as ablate_module
from ser_jax.grid import groups, schedule
from ser_jax.grid.cells import list_cells, with_shared
from ser_jax.grid.schedule import choose_cells, select_cells
from ser_jax.grid.slurm import launch
from ser_jax.grid.stacks import Stack
from ser_jax.grid.workers import deal_cells, naming_dead_workers
from ser_jax.inference.evaluate import evaluate
from ser_jax.run.events import load_events
from ser_jax.systems import network
from tests.tiny import (
    Child,
    drop_progress,
    drop_seconds,
    list_group,
    make_config,
    make_keys,
    read_run,
    read_state,
    run_command,
    start_command,
    wait_until,
)
from tests.tolerance import assert_near

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
    where = ("seconds", "device", "revision")
    return [{k: v for k, v in cell.items() if k not in where} for cell in results["cells"]]


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
        "cells", "figures", "tables", "manifest.json", "results.json", "results.csv",
        "results.md", "report.html", "report.md",
    }  # fmt: skip
    assert len(results["labels"]) == 8
    assert "study" not in results  # the published figures are of other recordings
    assert (out / "figures" / "comparison-luna5.png").exists()


# Going on.


def test_finished_cells_are_not_run_again(copy, finished, monkeypatch):
    fitted = []
    fit = network.fit

    def counting_fit(*arguments: Any, **options: Any) -> Any:
        fitted.append(options["settings"])
        return fit(*arguments, **options)

    monkeypatch.setattr(network, "fit", counting_fit)
    shutil.rmtree(copy / "cells" / "plain-luna5-5-3")
    results = ablate(make_grid(copy))
    assert len(fitted) == 1
    assert drop_times(results) == drop_times(finished[1])


def test_a_finished_grid_is_read_where_its_systems_could_not_train(copy, finished, monkeypatch):
    def refuse(self: network.NetworkSystem, config: Any) -> None:
        raise UserError("needs what is not here")

    monkeypatch.setattr(network.NetworkSystem, "check", refuse)
    assert drop_times(ablate(make_grid(copy))) == drop_times(finished[1])
    shutil.rmtree(copy / "cells" / "plain-luna5-5-3")
    with pytest.raises(UserError, match="needs what is not here"):
        ablate(make_grid(copy))


def write_yaml(path: Path) -> str:
    """The grid as a file for the command line."""
    keys = {k: list(v) if isinstance(v, tuple) else v for k, v in make_keys(GRID).items()}
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return str(path)


def count_lines(out: Path) -> int:
    """Events of all cells."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("cells/*/events.jsonl"))


@pytest.mark.cpu_only("starts workers, which cannot all have the device")
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
        "ser-jax: interrupted; the same command resumes what is left of the grid"
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
    monkeypatch.setattr(ablate_module, "_run_cells", None)
    with pytest.raises(
        UserError, match=r"was run with other settings \(.*=.*, not .*\); choose another --out"
    ):
        ablate(make_grid(copy, **{"train.epochs": 9}))


def test_keys_for_all_reach_systems_and_sweeps_that_set_them_themselves():
    config = make_grid(Path("grid"), sweep={"model.hidden": [2, 3], "model.dropout": [0.1, 0.3]})
    cells = list_cells(with_shared(config, {"train.learning_rate": 0.5, "model.hidden": 4}))
    assert {cell.config.train.learning_rate for cell in cells} == {0.5}
    assert {cell.config.model.hidden for cell in cells} == {4}
    assert {cell.config.model.dropout for cell in cells} == {0.1, 0.3}
    assert [cell.fold for cell in cells] == [1, 5] * 6


# Sweeps.


def test_a_sweep_gives_every_system_a_row_per_combination():
    sweep = {"train.learning_rate": [0.01, 0.1], "model.dense": [[4], [8, 8]]}
    cells = list_cells(make_grid(Path("grid"), systems={"a": {}}, folds=(1,), sweep=sweep))
    assert [cell.system for cell in cells] == [
        f"a learning_rate={rate} dense={dense}"
        for rate in (0.01, 0.1)
        for dense in ("[4]", "[8, 8]")
    ]
    assert cells[1].config.train.learning_rate == 0.01
    assert cells[1].config.model.dense == (8, 8)
    assert cells[1].describe()["sweep"] == {"train.learning_rate": 0.01, "model.dense": [8, 8]}
    assert len({cell.run_dir for cell in cells}) == 4


def test_swept_keys_that_end_alike_are_told_apart():
    sweep = {"features.normalise": ["none"], "augment.normalise": ["peak"]}
    (cell,) = list_cells(make_grid(Path("grid"), systems={"a": {}}, folds=(1,), sweep=sweep))
    assert cell.system == "a features.normalise=none augment.normalise=peak"


@pytest.mark.parametrize(
    ("sweep", "match"),
    [
        ({"model.nam": ["cnn"]}, r"sweep: .*no such key"),
        ({"train.epochs": [1, 0]}, r"sweep: train\.epochs=0"),
        ({"seed": [1]}, "name the values as seeds"),
        ({"data.fold": [1]}, "name the values as folds"),
        ({"epochs": [1]}, r"sweep\.epochs: write the section too"),
        ({"train.epochs": [1, 1]}, "stands twice"),
    ],
)
def test_a_bad_sweep_is_an_error_in_one_line(sweep, match):
    with pytest.raises(UserError, match=match) as caught:
        list_cells(make_grid(Path("grid"), sweep=sweep))
    assert "\n" not in str(caught.value)


def test_systems_whose_folders_would_be_one_are_refused():
    with pytest.raises(UserError, match="rename a system"):
        list_cells(make_grid(Path("grid"), systems={"a b": {}, "a_b": {}}))


def test_the_command_line_types_a_sweep_and_wins_over_it(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "systems: {a: {}}\nsweep: {train.learning_rate: [1e-3, 1], model.hidden: [2, 3]}"
    )
    config = parse(["ablate", "--config", str(path), "--model.hidden", "5"]).config
    assert config.sweep == {"train.learning_rate": [0.001, 1.0]}
    assert config.model.hidden == 5
    with pytest.raises(UserError, match=r"sweep: model\.hidden=many: must be a whole number"):
        parse(["ablate", "--sweep", "{model.hidden: [2, many]}"])


# Together in one program.

TOGETHER: dict[str, Any] = {
    "protocols": ("luna5",), "folds": (1, 5), "seeds": (3, 4), "systems": {"a": {}},
    "sweep": {"train.learning_rate": [0.01, 1e30]},
}  # fmt: skip


def make_together(out: Path, **changes: Any) -> AblationConfig:
    keys = make_keys(TOGETHER) | {"out": str(out), "workers": 1} | changes
    return override(AblationConfig(), keys)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "grid"
    ablate(make_together(out, batching="one"))
    return out


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("together") / "grid"
    ablate(make_together(out, batching="vmap"))
    return out


def assert_same_runs(one: Path, two: Path) -> None:
    """All that both grids' runs left is equal, numbers within 1e-4."""
    names = sorted(path.name for path in (one / "cells").iterdir())
    assert names == sorted(path.name for path in (two / "cells").iterdir())
    for name in names:
        a, b = one / "cells" / name, two / "cells" / name
        assert_close(drop_seconds(load_events(a)), drop_seconds(load_events(b)))
        if (a / "diverged.json").exists():
            assert (a / "diverged.json").read_text() == (b / "diverged.json").read_text()
            assert not (a / "metrics.json").exists()
            assert not (b / "metrics.json").exists()
            continue
        metrics, others = (json.loads((run / "metrics.json").read_text()) for run in (a, b))
        assert_close(metrics | {"seconds": 0}, others | {"seconds": 0})
        best = metrics["best_epoch"]
        for x, y in zip(read_state(a, best), read_state(b, best), strict=True):
            assert_near(to_numbers(x), to_numbers(y), rtol=1e-4, atol=1e-4, why="cudnn")


def to_numbers(leaf: bytes) -> np.ndarray:
    return np.nan_to_num(np.frombuffer(leaf, np.float32).astype(np.float64))


def assert_close(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)
    else:
        assert a == (pytest.approx(b, rel=1e-4, abs=1e-4) if isinstance(b, float) else b)


def test_cells_together_leave_what_each_leaves_alone(alone, together):
    statuses = [
        cell["status"] for cell in json.loads((together / "results.json").read_text())["cells"]
    ]
    assert statuses == ["done"] * 4 + ["diverged"] * 4
    assert_same_runs(alone, together)


def test_a_cell_trained_together_can_be_evaluated(together):
    run_dir = together / "cells" / "a_learning_rate_0.01-luna5-5-3"
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert evaluate(run_dir)["confusion"] == metrics["test"]["confusion"]


def test_less_memory_means_fewer_runs_at_a_time_and_the_same_results(alone, tmp_path, monkeypatch):
    sizes = []
    init = Stack.__init__

    def counting_init(self: Any, shared: Any, plans: Any, size: int) -> None:
        sizes.append(size)
        init(self, shared, plans, size)

    monkeypatch.setattr(Stack, "__init__", counting_init)
    monkeypatch.setattr(groups, "_count_free_bytes", lambda: 1.0)
    ablate(make_together(tmp_path / "grid", batching="map"))
    assert sizes[0] > 1
    assert sizes[-1] == 1
    assert_same_runs(alone, tmp_path / "grid")


def test_when_memory_runs_out_half_as_many_are_tried(alone, tmp_path, monkeypatch):
    train, sizes = Stack.train, []

    def failing_train(self: Any, way: str, advance: Any) -> None:
        sizes.append(self.size)
        if self.size > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        train(self, way, advance)

    monkeypatch.setattr(Stack, "train", failing_train)
    ablate(make_together(tmp_path / "grid", batching="vmap"))
    assert sizes == [4, 2, 2, 4, 2, 2]  # of each fold
    assert_same_runs(alone, tmp_path / "grid")


def test_the_faster_way_is_found_once_and_kept(alone, tmp_path, monkeypatch, capsys):
    # As on a GPU, where compilation is worth its while.
    monkeypatch.setattr(groups, "choose_how", lambda config, n: "probe")
    monkeypatch.setattr(schedule, "choose_how", lambda config, n: "probe")
    monkeypatch.setattr(groups, "_PROBE_WORTH", 0)
    out = tmp_path / "grid"
    ablate(make_together(out))
    decisions = json.loads((out / "manifest.json").read_text())["decisions"]
    assert len(decisions) == 2  # the folds have unequal numbers of steps
    for decision in decisions.values():
        seconds = decision["seconds"]
        assert set(seconds) == {"vmap", "map"}
        assert seconds[decision["batching"]] == min(seconds.values())
    assert capsys.readouterr().out.count("one after another") == 2
    assert_same_runs(alone, out)
    shutil.rmtree(out / "cells" / "a_learning_rate_0.01-luna5-5-3")
    monkeypatch.setattr(Stack, "time_epoch", None)
    ablate(make_together(out))
    assert_same_runs(alone, out)


def test_a_cell_killed_while_it_was_written_goes_on_alone(alone, together, tmp_path):
    out = Path(shutil.copytree(together, tmp_path / "grid"))
    (out / "cells" / "a_learning_rate_0.01-luna5-1-3" / "metrics.json").unlink()
    for name in ("a_learning_rate_0.01-luna5-5-3", "a_learning_rate_1e+30-luna5-1-3"):
        assert (out / "cells" / name).exists()
        shutil.rmtree(out / "cells" / name)
    ablate(make_together(out, batching="vmap"))
    assert_same_runs(alone, out)


# The manifest and shards.


def test_other_recordings_are_refused(together, tmp_path):
    out = Path(shutil.copytree(together, tmp_path / "grid"))
    tree = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(tree | {"checksum": "0" * 8}))
    with pytest.raises(UserError, match=r"begun on other recordings .*; give the same data.root"):
        ablate(make_together(out))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train.epochs": 3}, r"was begun with train\.epochs=2, not 3; choose another --out"),
        ({"systems": {"a": {"model.hidden": 4}}}, r"was begun with systems\.a=\{\}, not "),
    ],
)
def test_another_grid_in_the_folder_is_refused(changes, match, together, tmp_path):
    (tmp_path / "grid").mkdir()
    shutil.copy(together / "manifest.json", tmp_path / "grid")
    with pytest.raises(UserError, match=match):
        ablate(make_together(tmp_path / "grid", **changes))


def test_other_versions_are_warned_of_in_one_line(together, tmp_path, capsys):
    out = Path(shutil.copytree(together, tmp_path / "grid"))
    tree = json.loads((out / "manifest.json").read_text())
    tree["versions"]["jax"] = "0.0.1"
    (out / "manifest.json").write_text(json.dumps(tree))
    ablate(make_together(out))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {out}: was begun with jax 0.0.1 (now ")


def test_a_grid_may_grow(together, tmp_path):
    out = Path(shutil.copytree(together, tmp_path / "grid"))
    changes = {
        "systems": {"a": {}, "b": {}},
        "folds": (1,),
        "sweep": {"train.learning_rate": [0.01]},
    }
    results = ablate(make_together(out, **changes))
    assert [cell["status"] for cell in results["cells"]] == ["done"] * 4


def test_shards_are_the_grid_and_share_nothing():
    systems = {"a": {}, "b": {"model.hidden": 4}, "c": {"train.epochs": 6}}
    cells = list_cells(make_together(Path("grid"), systems=systems))
    for count in (1, 2, 5, 18, 25):
        shares = [choose_cells(cells, f"{i}/{count}") for i in range(count)]
        names = [cell.run_dir.name for share in shares for cell in share]
        assert sorted(names) == sorted(cell.run_dir.name for cell in cells)
        epochs = [sum(cell.config.train.epochs for cell in share) for share in shares]
        assert max(epochs) <= max(6, 2 * sum(epochs) / count)


def test_only_the_cells_that_a_pattern_names_are_run(tmp_path):
    out = tmp_path / "grid"
    grid = {"systems": {"a": {}, "b": {}}, "seeds": (0, 1), "sweep": {}}
    changes = {**grid, "batching": "one", "workers": 1}
    results = ablate(make_together(out, **changes, only=("a-*-0", "b-*-1")))
    ran = {(cell["system"], cell["seed"]) for cell in results["cells"] if cell["status"] == "done"}
    assert ran == {("a", 0), ("b", 1)}
    assert ablate(make_together(out, **changes))["cells"][0] == results["cells"][0]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (("!b-*",), {("a", 0), ("a", 1)}),
        (("*-1", "!b-*"), {("a", 1)}),
        (("a-*", "b-*-0", "!*-1", "!a-*"), {("b", 0)}),
    ],
)
def test_what_a_pattern_after_an_exclamation_mark_names_is_left_out(tmp_path, only, expected):
    config = make_together(tmp_path, systems={"a": {}, "b": {}}, seeds=(0, 1), sweep={})
    selected = select_cells(list_cells(config), only)
    assert {(cell.system, cell.seed) for cell in selected} == expected


@pytest.mark.parametrize("pattern", ["c-*", "!c-*"])
def test_a_pattern_that_names_no_cell_is_refused(tmp_path, pattern):
    with pytest.raises(UserError, match=re.escape(f"only={pattern}: matches no cell")):
        ablate(make_together(tmp_path / "grid", only=(pattern,)))
    assert not (tmp_path / "grid").exists()


def test_the_last_shard_to_end_reports_the_whole_grid(alone, tmp_path):
    out = tmp_path / "grid"
    first = ablate(make_together(out, batching="vmap", shard="0/2"))
    statuses = [cell["status"] for cell in first["cells"]]
    assert statuses.count("missing") == 4
    assert "missing" in (out / "results.md").read_text()
    second = ablate(make_together(out, batching="vmap", shard="1/2"))
    assert [cell["status"] for cell in second["cells"]] == ["done"] * 4 + ["diverged"] * 4
    assert json.loads((out / "results.json").read_text()) == second
    assert_same_runs(alone, out)


@pytest.mark.parametrize(
    ("system", "seeds", "workers", "sizes"),
    [
        ("plain", (3,), 2, [1, 1]),  # fewer systems and seeds than workers: folds are dealt out
        ("plain", (3,), 8, [1, 1]),
        ("plain", (3, 4), 2, [2, 2]),  # else they share the program of one process
        ("augmented", (3,), 2, [2]),  # or the clips that it has augmented
    ],
)
def test_no_worker_of_a_grid_is_left_without_a_fold(tmp_path, system, seeds, workers, sizes):
    config = make_grid(tmp_path, seeds=seeds, systems={system: SYSTEMS[system]})
    cells = list_cells(config)
    groups = deal_cells(cells, workers)
    assert [len(group) for group in groups] == sizes
    assert sorted(c.run_dir for group in groups for c in group) == sorted(c.run_dir for c in cells)


@pytest.mark.cpu_only("starts workers, which cannot all have the device")
@pytest.mark.slow
def test_jobs_of_a_launched_grid_do_its_shards(alone, tmp_path):
    pytest.importorskip("submitit")
    out = tmp_path / "grid"
    with pytest.raises(UserError, match=r"launch=local: .*nonsense"):
        launch(make_together(out), "local", 2, {"nonsense": 1})
    jobs = launch(make_together(out, batching="one"), "local", 2, {"timeout_min": 5})
    assert len(jobs) == 2
    for job in jobs:
        job.result()
    assert_same_runs(alone, out)
