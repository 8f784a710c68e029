"""What a report may draw on: the cells of a grid, their clips and curves, and what is wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ser_jax.data.cross_corpus import CROSS_CORPUS
from ser_jax.errors import UserError
from ser_jax.grid.cells import make_cell_name
from ser_jax.report.clips import ScoredClips, from_confusion, load_scored_clips
from ser_jax.report.study_systems import get_settings
from ser_jax.run.events import load_events
from ser_jax.run.file_names import METRICS_FILE, PREDICTIONS_FILE

_Cell = Mapping[str, Any]
"""An entry of a results.json."""


@dataclass
class SystemResult:
    """One system under one protocol.

    Attributes:
      cells: of the grid, finished or not.
      clips: of the finished cells, by (seed, fold).
      events: of the finished cells that left them, by (seed, fold); without figures of validation
        clips that were trained on.
    """

    system: str
    protocol: str
    cells: list[_Cell] = field(default_factory=list)
    clips: dict[tuple[int, int], ScoredClips] = field(default_factory=dict)
    events: dict[tuple[int, int], list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def folds(self) -> frozenset[int]:
        """Those of the grid."""
        return frozenset(cell["fold"] for cell in self.cells)

    @property
    def keys(self) -> set[tuple[int, int]]:
        """Cells that count: those of full seeds or, where there is none, all that are finished."""
        full = find_full(set(self.clips), self.folds)
        return {key for key in self.clips if key[0] in full or not full}

    def name_folds(self, folds: Sequence[int]) -> str:
        """`folds 1, 2`; where the runs name them, `speakers EB0, EB1` or `nemo -> ravdess`."""
        names = {cell["fold"]: cell["test_speakers"][0] for cell in self.cells
                 if self.protocol == "loso" and cell.get("test_speakers")}  # fmt: skip
        if all(fold in names for fold in folds):
            return _enumerate("speaker", [names[fold] for fold in folds])
        return _name_folds(self.cells, folds)


def _name_folds(cells: Sequence[_Cell], folds: Sequence[int]) -> str:
    names = {cell["fold"]: cell["fold_name"] for cell in cells if cell.get("fold_name")}
    return ", ".join(names[fold] for fold in folds) if names else _enumerate("fold", folds)


def _enumerate(noun: str, values: Sequence[object]) -> str:
    """`fold 3`, `folds 3, 4`."""
    return f"{noun}{'s' * (len(values) != 1)} {', '.join(map(str, values))}"


def find_full(keys: set[tuple[int, int]], folds: frozenset[int]) -> list[int]:
    """Seeds of which every fold is among `keys`."""
    seeds = sorted({seed for seed, _ in keys})
    return [seed for seed in seeds if all((seed, fold) in keys for fold in folds)]


@dataclass
class Evidence:
    """A grid's results.

    Attributes:
      rows: by (system, protocol), in order of first appearance.
      settings: dotted keys of each system.
      problems: a line for each cell that is missing, failed or foreign, and each unreadable file.
      n_cells, n_done: cells of the grid, and those that count.
    """

    folder: Path
    results: Mapping[str, Any]
    labels: list[str]
    rows: dict[tuple[str, str], SystemResult]
    settings: dict[str, dict[str, Any]]
    problems: list[str]
    n_cells: int
    n_done: int

    @property
    def corpus(self) -> str:
        """Name of the recordings; RAVDESS where results.json does not name them."""
        data = (self.results.get("config") or {}).get("data") or {}
        kind = data.get("corpus", "ravdess")
        if kind == "joined":
            return "+".join(sorted(data.get("roots") or {})) or kind
        return Path(data.get("root") or kind).stem if kind == "manifest" else kind

    @property
    def is_of_study(self) -> bool:
        """Whether these are the study's recordings, on which its claims can be judged."""
        return self.corpus == "ravdess"

    @property
    def is_cross_corpus(self) -> bool:
        """Whether folds are pairs of corpora, which no pooled figure describes."""
        return self.protocols == [CROSS_CORPUS]

    @property
    def protocols(self) -> list[str]:
        """In order of first appearance."""
        return list(dict.fromkeys(protocol for _, protocol in self.rows))

    @property
    def systems(self) -> list[str]:
        """In order of first appearance."""
        return list(dict.fromkeys(system for system, _ in self.rows))

    def get(self, system: str, protocol: str) -> SystemResult | None:
        """A row that has at least one finished cell."""
        row = self.rows.get((system, protocol))
        return row if row is not None and row.clips else None


class _Fault(NamedTuple):
    """What is wrong with one cell."""

    cell: _Cell
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
            row.events = {at: _drop_validation(events) for at, events in row.events.items()}
    return Evidence(folder, results, labels, rows, settings, problems, len(cells), n_done)


def _find_common(cells: Sequence[_Cell], rates: Mapping[str, Any]) -> dict[Any, str]:
    """The commonest checksum of the cells at each rate."""
    counts: dict[Any, Counter[str]] = {}
    for cell in cells:
        if cell.get("checksum"):
            counts.setdefault(rates[cell["system"]], Counter())[cell["checksum"]] += 1
    return {rate: found.most_common(1)[0][0] for rate, found in counts.items()}


def _drop_validation(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events without figures of validation clips, which mean nothing where these are trained on."""
    return [
        {key: value for key, value in event.items() if not key.startswith("val_")}
        for event in events
    ]


def _load_cell(
    folder: Path, cell: _Cell, labels: Sequence[str], row: SystemResult
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


def _find_folder(folder: Path, cell: _Cell) -> Path:
    name = make_cell_name(cell["system"], cell["protocol"], cell["fold"], cell["seed"])
    return folder / "cells" / name


def _find_fault(run_dir: Path, cell: _Cell) -> str | None:
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
    groups: dict[tuple[str, str, str], list[_Cell]] = {}
    for cell, what in faults:
        groups.setdefault((cell["system"], cell["protocol"], what), []).append(cell)
    for (system, protocol, what), cells in groups.items():
        yield f"{system}, {protocol}, {_describe_places(cells)}: {what}"


def _describe_places(cells: Sequence[_Cell]) -> str:
    """`seed 0 folds 3, 4; seed 1 fold 2`; the study's split has no folds to name."""
    by_seed: dict[int, list[int]] = {}
    for cell in cells:
        by_seed.setdefault(cell["seed"], []).append(cell["fold"])
    if cells[0]["protocol"] == "study":
        return _enumerate("seed", list(by_seed))
    return "; ".join(f"seed {seed} {_name_folds(cells, folds)}" for seed, folds in by_seed.items())


def _find_unlisted(folder: Path, cells: Sequence[_Cell]) -> Iterator[str]:
    known = {_find_folder(folder, cell) for cell in cells}
    for path in sorted((folder / "cells").glob("[!.]*/")):
        if path not in known:
            yield f"cells/{path.name}: foreign, no cell of this grid; left out"
