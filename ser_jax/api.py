"""train() and ablate(): a run and a grid, each with its report."""

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
      memo: augmented features that the runs of a grid share; see `augment.epochs`.
      observe: called with every event; None: show a progress bar and a line per epoch, and draw
        figures, which takes some seconds.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: bad input, a directory of another run, a failed write, a loss that is not finite.
    """
    report = write_run_report if observe is None else None
    return train_run(config, memo=memo, observe=observe, report=report)


def ablate(config: AblationConfig, *, command: str | None = None) -> dict[str, Any]:
    """Run every cell of the grid that has not been run, and write the tables and figures.

    After an interruption the same call resumes: finished cells are read, a cell that ran alone
    resumes from its last checkpoint, and cells that ran together start over. A cell that diverges
    is recorded and does not affect others. With `config.shard` other shards' cells are only read.

    Args:
      config: settings of the grid.
      command: the command line, to be recorded with the results.

    Returns:
      What results.json holds: {"cells": [...], "labels": [...], "config": {...}, "study": {...},
      "versions": {...}, "git": ..., "command": ...}.

    Raises:
      UserError: bad input, a folder that holds a grid or a cell with other settings or recordings,
        a failed write.
    """
    return run_grid(config, command=command, report=write_ablation_report)
