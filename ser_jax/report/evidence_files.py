"""Reads the evidence of a grid from the folders of its cells, and says what is wrong there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ser_jax.errors import UserError
from ser_jax.grid.cells import make_cell_name
from ser_jax.report.clips import from_confusion, load_scored_clips
from ser_jax.report.evidence import CellResult, Evidence, SystemResult, name_folds, name_values
from ser_jax.report.study_systems import get_settings
from ser_jax.run.events import drop_validation, load_events
from ser_jax.run.file_names import METRICS_FILE, PREDICTIONS_FILE


class _Fault(NamedTuple):
    """What is wrong with one cell."""

    cell: CellResult
    what: str


def load_evidence(folder: Path, results: Mapping[str, Any]) -> Evidence:
    """Read what the cells of a results.json left in their folders; what is wrong is a problem.

    Raises:
      KeyError, TypeError, ValueError: results.json itself has unexpected content.
    """
    cells = results["cells"]
    rows: dict[tuple[str, str], SystemResult] = {}
    for cell in cells:
        key = (cell["system"], cell["protocol"])
        rows.setdefault(key, SystemResult(*key)).cells.append(cell)
    done = [cell for cell in cells if cell["status"] == "done"]
    n_classes = len(done[0]["confusion"]) if done else 0
    labels = list(results.get("labels") or map(str, range(n_classes)))
    settings = {system: get_settings(results, system) for system, _ in rows}
    # Checksums are of samples, which are others at another rate.
    rates = {system: of.get("data.rate_hz") for system, of in settings.items()}
    common = _find_common(done, rates)
    faults: list[_Fault] = []
    n_done = 0
    for cell in cells:
        if cell["status"] != "done":
            reason = f": {cell['reason']}" if cell.get("reason") else ""
            faults.append(_Fault(cell, f"{cell['status']}{reason}"))
        elif cell.get("checksum") not in (None, most := common.get(rates[cell["system"]])):
            what = f"checksum {cell['checksum']}, the others {most}"
            faults.append(_Fault(cell, f"foreign, trained on other recordings ({what}); left out"))
        else:
            n_done += 1
            found = _load_cell(folder, cell, labels, rows[cell["system"], cell["protocol"]])
            faults += [_Fault(cell, what) for what in found]
    problems = [*_describe_faults(faults), *_find_unlisted(folder, cells)]
    for (system, _), row in rows.items():
        if settings[system].get("data.train_on_validation"):
            row.events = {at: drop_validation(events) for at, events in row.events.items()}
    return Evidence(folder, results, labels, rows, settings, problems, len(cells), n_done)


def _find_common(cells: Sequence[CellResult], rates: Mapping[str, Any]) -> dict[Any, str]:
    """The commonest checksum of the cells at each rate."""
    counts: dict[Any, Counter[str]] = {}
    for cell in cells:
        if cell.get("checksum"):
            counts.setdefault(rates[cell["system"]], Counter())[cell["checksum"]] += 1
    return {rate: found.most_common(1)[0][0] for rate, found in counts.items()}


def _load_cell(
    folder: Path, cell: CellResult, labels: Sequence[str], row: SystemResult
) -> Iterator[str]:
    """Put the clips and events of a finished cell into its row; yields what is wrong."""
    run_dir, at = _find_folder(folder, cell), (cell["seed"], cell["fold"])
    row.clips[at] = from_confusion(cell)
    if fault := _find_fault(run_dir, cell):
        yield f"{fault}; its curves, clips and groups are left out"
        return
    try:
        row.clips[at] = load_scored_clips(run_dir / PREDICTIONS_FILE, cell, labels)
    except UserError as error:
        yield f"{error}; left out of statistics over speakers and groups"
    try:
        events = load_events(run_dir)
        if any(event.get("event") == "epoch" for event in events):  # an svm or hmm has none
            row.events[at] = events
    except UserError as error:
        yield f"{str(error).replace(f'{run_dir}/', '')}; left out of the curves"


def _find_folder(folder: Path, cell: CellResult) -> Path:
    name = make_cell_name(cell["system"], cell["protocol"], cell["fold"], cell["seed"])
    return folder / "cells" / name


def _find_fault(run_dir: Path, cell: CellResult) -> str | None:
    """Why a cell's folder is not that of the cell."""
    if not run_dir.is_dir():
        return f"cells/{run_dir.name} is gone"
    try:
        metrics = json.loads((run_dir / METRICS_FILE).read_bytes())
        found = {key: metrics.get(key) for key in ("identity", "checksum")}
    except OSError as error:
        return f"metrics.json cannot be read ({error.strerror})"
    except (ValueError, AttributeError):
        return "metrics.json is no JSON object"
    for key, word in (("identity", "settings"), ("checksum", "recordings")):
        if None not in (cell.get(key), found[key]) and cell[key] != found[key]:
            return f"foreign, a run with other {word} ({key} {found[key]}, not {cell[key]})"
    return None


def _describe_faults(faults: Sequence[_Fault]) -> Iterator[str]:
    """A line for all cells of a row that have the same fault."""
    groups: dict[tuple[str, str, str], list[CellResult]] = {}
    for cell, what in faults:
        groups.setdefault((cell["system"], cell["protocol"], what), []).append(cell)
    for (system, protocol, what), cells in groups.items():
        yield f"{system}, {protocol}, {_describe_places(cells)}: {what}"


def _describe_places(cells: Sequence[CellResult]) -> str:
    """`seed 0 folds 3, 4; seed 1 fold 2`; the study's split has no folds to name."""
    by_seed: dict[int, list[int]] = {}
    for cell in cells:
        by_seed.setdefault(cell["seed"], []).append(cell["fold"])
    if cells[0]["protocol"] == "study":
        return name_values("seed", list(by_seed))
    return "; ".join(f"seed {seed} {name_folds(cells, folds)}" for seed, folds in by_seed.items())


def _find_unlisted(folder: Path, cells: Sequence[CellResult]) -> Iterator[str]:
    known = {_find_folder(folder, cell) for cell in cells}
    for path in sorted((folder / "cells").glob("[!.]*/")):
        if path not in known:
            yield f"cells/{path.name}: foreign, no cell of this grid; left out"
