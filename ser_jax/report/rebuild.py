"""Redraw the figures and tables of a run or an ablation from its files."""

from __future__ import annotations

from pathlib import Path

from ser_jax.errors import UserError, check
from ser_jax.files.atomic import expand
from ser_jax.report.grid_report import write_ablation_report
from ser_jax.report.run_report import write_run_report
from ser_jax.run.file_names import (
    CONFIG_FILE,
    EVENTS_FILE,
    METRICS_FILE,
    RESULTS_FILE,
)


def rebuild(folder: str | Path) -> list[Path]:
    """Redraw the figures and tables of a run or an ablation from its files.

    Args:
      folder: written by `ser-jax train` or `ser-jax ablate`.

    Returns:
      The files written.

    Raises:
      UserError: a file is missing or broken, or a result cannot be written.
    """
    folder = expand(folder)
    check(folder.is_dir(), f"{folder}: no such folder; name one that ser-jax train or ablate wrote")
    if (folder / RESULTS_FILE).exists():
        return write_ablation_report(folder)
    if any((folder / name).exists() for name in (METRICS_FILE, EVENTS_FILE, CONFIG_FILE)):
        return write_run_report(folder)
    raise UserError(
        f"{folder}: holds neither {METRICS_FILE} of a run nor {RESULTS_FILE} of an ablation; "
        "name a folder that ser-jax train or ser-jax ablate finished"
    )
