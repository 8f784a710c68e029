"""The tables and figures of an ablation, drawn from its results.json and its runs' events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_jax.errors import check
from ser_jax.files import write_atomic
from ser_jax.report import curves, figures, tables
from ser_jax.report.events import EVENTS_FILE, load_events
from ser_jax.report.inputs import blaming, load_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS_FILE = "results.json"
_REMEDY = "ser-jax ablate writes it: run it again with this out folder"


def write_ablation_report(folder: str | Path) -> list[Path]:
    """Write an ablation's results.md, results.csv and figures/*.png from its results.json.

    Beside "cells", results.json may hold "labels", the names of the classes, and "study", published
    figures by system for the study split. Curves come from the runs below cells/, where they are.

    Raises:
      UserError: a file is missing or broken, or a result cannot be written.
    """
    folder = Path(folder)
    path = folder / RESULTS_FILE
    results = load_json(path, _REMEDY)
    with blaming(path, _REMEDY):
        cells = results["cells"]
        check(len(cells) > 0, f"{path}: holds no cells; {_REMEDY}")
        rows = tables.summarise(cells)
        texts = {"results.md": tables.to_markdown(rows), "results.csv": tables.to_csv(rows)}
        drawn: dict[str, Figure] = {}
        for protocol in dict.fromkeys(row["protocol"] for row in rows):
            drawn |= _draw_results(results, rows, protocol)
            drawn |= _draw_curves(folder, cells, protocol)
    for name, text in texts.items():
        write_atomic(folder / name, text)
    written = [folder / name for name in texts]
    for name, figure in drawn.items():
        written.append(figures.save_figure(figure, folder / "figures" / f"{name}.png"))
    return written


def _draw_results(results: Mapping, rows: Sequence[Mapping], protocol: str) -> dict[str, Figure]:
    """Comparison of a protocol's systems, and the confusion matrix of each over its full seeds."""
    drawn: dict[str, Figure] = {}
    n_classes = 0
    for (system, _), by_seed in _get_systems(results["cells"], protocol):
        pooled = {seed: tables.pool_folds(folds) for seed, folds in by_seed.items()}
        full = {seed: matrix for seed, matrix in pooled.items() if matrix is not None}
        if not full:
            continue
        confusion_CC = np.sum(list(full.values()), axis=0)
        n_classes = len(confusion_CC)
        labels = results.get("labels") or [str(place) for place in range(n_classes)]
        title = f"{system}, {protocol} split, {_describe_seeds(full)}, n = {confusion_CC.sum():.0f}"
        name = f"confusion-{tables.make_slug(system)}-{protocol}"
        drawn[name] = figures.draw_confusion(confusion_CC, labels, title)
    if drawn:
        rows = [row for row in rows if row["protocol"] == protocol]
        seeds = {seed for row in rows for seed in row["seeds"]}
        n = max(row["n"] or 0 for row in rows)
        title = f"{protocol} split, {_describe_seeds(seeds)}, n = {n} test clips per seed"
        study = results.get("study") if protocol == "study" else None
        drawn[f"comparison-{protocol}"] = figures.draw_comparison(rows, title, n_classes, study)
    return drawn


def _draw_curves(folder: Path, cells: Sequence[Mapping], protocol: str) -> dict[str, Figure]:
    """Loss and accuracy by epoch, a panel per system; nothing where no run has a folder."""
    systems = {
        system: _load_runs(folder, by_seed)
        for (system, _), by_seed in _get_systems(cells, protocol)
    }
    systems = {system: runs for system, runs in systems.items() if runs}
    if not systems:
        return {}
    seeds = {cell["seed"] for cell in cells if cell["protocol"] == protocol}
    drawn = {}
    for name in ("loss", "accuracy"):
        title = f"{name.capitalize()}, {protocol} split, {_describe_seeds(seeds)}"
        drawn[f"{name}-{protocol}"] = curves.draw_curve_grid(systems, name, title)
    return drawn


def _get_systems(cells: Sequence[Mapping], protocol: str) -> list[tuple[Any, Any]]:
    return [item for item in tables.group_cells(cells).items() if item[0][1] == protocol]


def _load_runs(folder: Path, by_seed: Mapping[int, Sequence[Mapping]]) -> list[list[dict]]:
    """Events of the finished runs of one system that have a folder below cells/."""
    runs = []
    for cell in (cell for folds in by_seed.values() for cell in folds if cell["status"] == "done"):
        keys = (cell["system"], cell["protocol"], cell["fold"], cell["seed"])
        run_dir = folder / "cells" / tables.make_cell_name(*keys)
        events = load_events(run_dir) if (run_dir / EVENTS_FILE).exists() else []
        if any(event.get("event") == "epoch" for event in events):  # an svm or hmm has none
            runs.append(events)
    return runs


def _describe_seeds(seeds: Any) -> str:
    """`seed 0`, `seeds 0 to 4`, `seeds 0, 2`."""
    seeds = sorted(seeds)
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"
