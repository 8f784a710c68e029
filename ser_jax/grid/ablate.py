"""A grid of runs, trained together in one program or one by one, resumable cell by cell."""

import contextlib
import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from ser_jax.config import AblationConfig, find_differences, name_differences, to_dict
from ser_jax.data.cross_corpus import name_pair
from ser_jax.data.protocols import check_protocols
from ser_jax.data.store import load_corpus, prepare
from ser_jax.errors import check
from ser_jax.files.atomic import held, write_atomic
from ser_jax.grid.cells import Cell, list_cells, read_outcome
from ser_jax.grid.grid_manifest import Manifest
from ser_jax.grid.groups import run_together
from ser_jax.grid.schedule import choose_cells, part_cells, select_cells
from ser_jax.grid.workers import run_one_by_one
from ser_jax.machine.compile_cache import use_compile_cache
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.progress import progress
from ser_jax.run.file_names import CONFIG_FILE, RESULTS_FILE
from ser_jax.run.results import collect_versions
from ser_jax.run.run_dir import load_run_config
from ser_jax.systems.registry import find_system

STUDY = {
    "cnn": {"accuracy": 0.3519, "weighted_f1": 0.3014},
    "lstm": {"accuracy": 0.4352, "weighted_f1": 0.4044},
    "cnn_lstm": {"accuracy": 0.4630, "weighted_f1": 0.4463},
    "cnn_lstm_augmented": {"accuracy": 0.3889, "weighted_f1": 0.3462},
    "wav2vec2": {"accuracy": 0.8194, "weighted_f1": 0.8212},
}
"""Table 1 of the study, by the names that the configurations give the systems."""


@with_jax_defaults
def run_grid(
    config: AblationConfig,
    *,
    command: str | None = None,
    report: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Run every cell of the grid that has not been run, and write results.json.

    After a kill or an interrupt the same call resumes: finished cells are read, a cell that ran
    alone resumes from its last checkpoint, and those that ran together start over. A cell that
    diverges is recorded and does not affect the others. With `config.shard` the other shards'
    cells are only read.

    Args:
      config: of the grid.
      command: the command line that asked for it, for the record.
      report: called with the grid's folder once all results are there, while the lock is held.

    Returns:
      What results.json holds: {"cells": [...], "labels": [...], "config": {...}, "study": {...},
      "versions": {...}, "git": ..., "command": ...}.

    Raises:
      UserError: bad input; the folder holds a grid or a cell with other settings or recordings; a
        write failed.
    """
    cells = list_cells(config)
    selected = select_cells(cells, config.only)
    _check_folders(config, cells)
    use_compile_cache(config.parallel.cache_dir)
    results = _Results(config, cells, command)
    waiting = [cell for cell in choose_cells(selected, config.shard) if results.is_missing(cell)]
    for cell in waiting:  # complete cells can be read on any machine
        find_system(cell.config.model.name).check(cell.config)
    check_protocols((cell.config.data, cell.seed) for cell in cells)
    prepare(config.data)
    manifest = Manifest(config, load_corpus(config.data).checksum)
    share = f"-{config.shard.replace('/', '-of-')}" if config.shard else ""
    with held(Path(config.out), "wait until it ends, or choose another --out", share):
        _run(config, waiting, manifest, results)
        if report:
            report(config.out)
    return results.tree


def _run(
    config: AblationConfig, waiting: list[Cell], manifest: Manifest, results: "_Results"
) -> None:
    """Run the remaining cells."""
    results.write()  # so that `ser-jax report` can say at any time what is missing
    with contextlib.closing(_run_cells(config, waiting, manifest)) as finished:
        for cell in finished:
            _print_outcome(cell, results.update([cell]))
            results.write()
    results.write_all()


class _Results:
    """results.json: every cell and how it ended, as read from the cells' folders."""

    def __init__(self, config: AblationConfig, cells: Sequence[Cell], command: str | None):
        self._path, self._cells = Path(config.out) / RESULTS_FILE, cells
        self._number = {cell.run_dir: number for number, cell in enumerate(cells)}
        versions = collect_versions()
        self.tree: dict[str, Any] = {
            "cells": [{} for _ in cells], "labels": [], "config": to_dict(config),
            "versions": versions, "git": versions.get("revision"), "command": command,
        }  # fmt: skip
        if config.data.corpus == "ravdess":
            self.tree["study"] = STUDY
        self.update(cells)

    def is_missing(self, cell: Cell) -> bool:
        """Whether a cell has not finished."""
        return self.tree["cells"][self._number[cell.run_dir]]["status"] == "missing"

    def update(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Read how `cells` ended; returns the outcome of the last one."""
        outcome: dict[str, Any] = {}
        for cell in cells:
            outcome = read_outcome(cell)
            self.tree["labels"] = outcome.pop("labels", None) or self.tree["labels"]
            self.tree["cells"][self._number[cell.run_dir]] = cell.describe() | outcome
        return outcome

    def write(self) -> None:
        """Write the file."""
        write_atomic(self._path, json.dumps(self.tree, indent=1))

    def write_all(self) -> None:
        """Write the file with what other shards have finished meanwhile. If two shards end at the
        same time, the last to write must have seen all cells: so look again after writing."""
        before = None
        while before != self.tree["cells"]:
            before = list(self.tree["cells"])
            self.write()
            self.update([cell for cell in self._cells if self.is_missing(cell)])


def _check_folders(config: AblationConfig, cells: list[Cell]) -> None:
    """Raise if a cell's folder holds a run with other settings."""
    for cell in cells:
        if (cell.run_dir / CONFIG_FILE).exists():
            differences = find_differences(load_run_config(cell.run_dir), cell.config)
            check(
                not differences,
                f"out={config.out}: {cell.run_dir.name} was run with other settings "
                f"({name_differences(differences)}); choose another --out, or delete it",
            )


def _run_cells(config: AblationConfig, cells: list[Cell], manifest: Manifest) -> Generator[Cell]:
    """Yield each cell once its folder is complete."""
    together, alone = part_cells(config, cells)
    epochs = sum(cell.config.train.epochs for cell in cells)
    title = f"{len(cells)} run{'' if len(cells) == 1 else 's'}"
    with progress(title, epochs, "epochs") as advance:
        for groups in together:
            with contextlib.closing(run_together(config, groups, manifest, advance)) as run:
                yield from run
        if alone:
            with contextlib.closing(run_one_by_one(config, alone, advance)) as run:
                yield from run


def _print_outcome(cell: Cell, outcome: dict[str, Any]) -> None:
    pair = name_pair(cell.config.data)
    fold = f"fold {cell.fold}" + f" ({pair})" * bool(pair)
    place = f"{cell.system}  {cell.protocol} {fold}  seed {cell.seed}"
    if outcome["status"] != "done":
        print(f"{place}  {outcome['status']}: {outcome['reason']}", flush=True)
        return
    print(
        f"{place}  test accuracy {outcome['accuracy']:.3f}  weighted F1 "
        f"{outcome['weighted_f1']:.3f}  {outcome['seconds']:.0f} s",
        flush=True,
    )
