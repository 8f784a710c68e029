"""train() and ablate(): a run and a grid, and the report that is drawn of what they leave."""

from typing import Any

from ser_jax.config import AblationConfig, Config
from ser_jax.grid.ablate import run_grid
from ser_jax.report.grid_report import write_ablation_report
from ser_jax.report.run_report import write_run_report
from ser_jax.run.train import Memo, train_run
from ser_jax.training.loop import OnEvent


def train(
    config: Config, *, memo: Memo | None = None, observe: OnEvent | None = None
) -> dict[str, Any]:
    """Train one network, or fit an svm or hmm, score its best epoch, and write the run directory.

    A directory that holds the same run is resumed, or read if the run is complete.

    Args:
      config: all settings.
      memo: augmented features to share between the runs of a grid; see `augment.epochs`.
      observe: told of every event; None: a progress bar and a line per epoch, and figures, which
        take seconds that many runs would rather save.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: bad input, a directory of another run, a write that failed, a loss that is no
        number.
    """
    report = write_run_report if observe is None else None
    return train_run(config, memo=memo, observe=observe, report=report)


def ablate(config: AblationConfig, *, command: str | None = None) -> dict[str, Any]:
    """Run every cell of the grid that has not been run, and write the tables and figures.

    Killed or interrupted, the same call goes on: finished cells are read, a cell that ran alone
    goes on from its last checkpoint, and those that ran together begin anew. A cell that diverges
    is recorded and harms no other. With `config.shard` the other shards' cells are only read.

    Args:
      config: of the grid.
      command: the command line that asked for it, for the record.

    Returns:
      What results.json holds: {"cells": [...], "labels": [...], "config": {...}, "study": {...},
      "versions": {...}, "git": ..., "command": ...}.

    Raises:
      UserError: bad input; the folder holds a grid or a cell with other settings or recordings; a
        write failed.
    """
    return run_grid(config, command=command, report=write_ablation_report)
