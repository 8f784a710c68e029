"""The cells of a grid: its runs, their names and folders, and how each one ended."""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ser_jax.config import AblationConfig, Config, DataConfig, Protocol, override
from ser_jax.data.cross_corpus import record_pair
from ser_jax.data.protocols import count_speakers
from ser_jax.data.splits import count_folds
from ser_jax.errors import UserError, check
from ser_jax.files.atomic import write_atomic
from ser_jax.files.json_files import load_json
from ser_jax.files.names import make_slug
from ser_jax.run.file_names import METRICS_FILE
from ser_jax.run.run_dir import read_finished

DIVERGED_FILE = "diverged.json"
"""In the folder of a cell whose loss is no longer finite."""


class Cell(NamedTuple):
    """One run of the grid.

    Attributes:
      system: name of its row: the system's, followed by what the sweep sets.
      protocol, fold, seed: its place in that row.
      config: all settings.
      sweep: what the sweep sets, by dotted key.
    """

    system: str
    protocol: str
    fold: int
    seed: int
    config: Config
    sweep: dict[str, Any]

    @property
    def run_dir(self) -> Path:
        """Its folder."""
        return Path(self.config.run_dir or "")

    def describe(self) -> dict[str, Any]:
        """The cell's place in the grid."""
        place = {key: getattr(self, key) for key in ("system", "protocol", "fold", "seed")}
        return place | record_pair(self.config.data) | ({"sweep": self.sweep} if self.sweep else {})


def list_cells(config: AblationConfig) -> list[Cell]:
    """The runs of a grid, folds innermost.

    Raises:
      UserError: no systems, an unknown key or a value out of range in a system or the sweep, a fold
        that a protocol does not have, two cells of the same name.
    """
    check(len(config.systems) > 0, "systems={}: the grid has no rows; name at least one system")
    _check_sweep(config.sweep)
    n_folds: dict[Protocol, int] = {
        protocol: _count_folds(config.data, protocol) for protocol in config.protocols
    }
    for protocol, most in n_folds.items():
        _check_folds(protocol, config.folds, most)
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)
              if field.name not in ("seed", "run_dir")}  # fmt: skip
    cells = []
    for system, changes in config.systems.items():
        base = _override(Config(**shared), changes or {}, f"systems.{system}")
        for values in itertools.product(*config.sweep.values()):
            sweep = dict(zip(config.sweep, values, strict=True))
            row = " ".join([system, *_name_values(sweep)])
            cells += _list_row(config, row, _override(base, sweep, "sweep"), sweep, n_folds)
    (run_dir, count), *_ = Counter(cell.run_dir for cell in cells).most_common(1)
    check(count == 1, f"out={config.out}: {count} cells are called {run_dir.name}; rename a system")
    return cells


def _list_row(
    config: AblationConfig,
    row: str,
    base: Config,
    sweep: dict[str, Any],
    n_folds: dict[Protocol, int],
) -> list[Cell]:
    cells = []
    for protocol, most in n_folds.items():
        folds = config.folds or range(1, most + 1)
        for seed, fold in itertools.product(config.seeds, folds):
            run_dir = Path(config.out) / "cells" / make_cell_name(row, protocol, fold, seed)
            place = {"data.protocol": protocol, "data.fold": fold, "seed": seed}
            run = override(base, place | {"run_dir": str(run_dir)})
            cells.append(Cell(row, protocol, fold, seed, run, sweep))
    return cells


def _name_values(sweep: dict[str, Any]) -> list[str]:
    """`learning_rate=0.01` for each swept key; with its section where two keys share a name."""
    last = Counter(key.rpartition(".")[2] for key in sweep)
    return [
        f"{short if last[short := key.rpartition('.')[2]] == 1 else key}="
        f"{value if isinstance(value, str) else json.dumps(value)}"
        for key, value in sweep.items()
    ]


def _check_sweep(sweep: dict[str, list[Any]]) -> None:
    elsewhere = {"seed": "seeds", "data.protocol": "protocols", "data.fold": "folds"}
    for key, values in sweep.items():
        check(key not in elsewhere, f"sweep.{key}: name the values as {elsewhere.get(key)}")
        check("." in key, f"sweep.{key}: write the section too, as in train.learning_rate")
        written = [json.dumps(value) for value in values]
        check(len(set(written)) == len(written), f"sweep.{key}={values}: a value stands twice")


def _count_folds(data: DataConfig, protocol: Protocol) -> int:
    """The number of folds of a protocol; of some it depends on the corpus."""
    if protocol == "cross_corpus":
        data = dataclasses.replace(data, protocol=protocol)  # raises unless corpora are joined
    n_speakers = count_speakers(data) if protocol == "loso" else None
    return count_folds(protocol, n_speakers, len(data.corpora))


def _check_folds(protocol: str, folds: Sequence[int] | None, most: int) -> None:
    check(
        folds is None or (min(folds) >= 1 and max(folds) <= most),
        f"folds={list(folds or ())}: {protocol} has {'one' if most == 1 else f'1 to {most}'}",
    )


def _override(base: Config, changes: dict[str, Any], where: str) -> Config:
    try:
        return override(base, changes)
    except (UserError, AttributeError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error


def with_shared(config: AblationConfig, changes: dict[str, Any]) -> AblationConfig:
    """`config` with dotted keys set for every cell, overriding systems and sweep."""
    systems = {
        name: {key: value for key, value in (own or {}).items() if key not in changes}
        for name, own in config.systems.items()
    }
    sweep = {key: values for key, values in config.sweep.items() if key not in changes}
    return dataclasses.replace(override(config, changes), systems=systems, sweep=sweep)


def read_outcome(cell: Cell) -> dict[str, Any]:
    """How a cell ended, as results.json holds it: done, diverged or missing."""
    if (cell.run_dir / METRICS_FILE).exists():
        metrics = read_finished(cell.run_dir)
        test = metrics["test"]
        names = ("accuracy", "weighted_f1", "uar", "macro_f1", "n", "confusion", "labels")
        facts = {key: metrics[key] for key in ("best_epoch", "seconds", "identity", "checksum")}
        # Not in older runs.
        later = ("epochs", "parameters", "trained_parameters", "device", "test_speakers")
        facts |= {key: metrics.get(key) for key in later}
        facts["val_accuracy"] = metrics.get("val", {}).get("accuracy")
        facts["revision"] = metrics.get("versions", {}).get("revision")
        return {"status": "done", **{key: test[key] for key in names}, **facts}
    path = cell.run_dir / DIVERGED_FILE
    if path.exists():
        return load_json(path, "delete it, and the same command runs the cell anew")
    return {"status": "missing"}


def write_diverged(cell: Cell, reason: object) -> None:
    """Record that a cell's loss is no longer finite, so that it is not run again."""
    record = {"status": "diverged", "reason": str(reason)}
    write_atomic(cell.run_dir / DIVERGED_FILE, json.dumps(record, indent=1))


def make_cell_name(system: str, protocol: str, fold: int, seed: int) -> str:
    """The name of a run's folder in cells/ of an ablation."""
    return f"{make_slug(system)}-{protocol}-{fold}-{seed}"
