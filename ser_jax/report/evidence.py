"""What a report may draw on: the cells of a grid, their clips and curves, and what is amiss."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ser_jax.errors import UserError
from ser_jax.grid.cells import make_cell_name
from ser_jax.report.clips import ScoredClips, from_confusion, load_scored_clips
from ser_jax.run.events import load_events
from ser_jax.run.file_names import METRICS_FILE, PREDICTIONS_FILE


@dataclass
class SystemResult:
    """One system under one protocol.

    Attributes:
      folds: that the grid has.
      clips: of the finished cells, by (seed, fold).
      events: of the finished cells, by (seed, fold), where they are at hand.
    """

    system: str
    protocol: str
    folds: frozenset[int]
    cells: list[Mapping[str, Any]]
    clips: dict[tuple[int, int], ScoredClips] = field(default_factory=dict)
    events: dict[tuple[int, int], list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """Seeds of which every fold is done."""
        return find_full({key for key in self.clips}, self.folds)

    @property
    def keys(self) -> set[tuple[int, int]]:
        """Cells that count: those of full seeds or, where there is none, what there is."""
        full = self.seeds
        return {key for key in self.clips if key[0] in full or not full}

    def name_folds(self, folds: Sequence[int]) -> str:
        """`folds 1, 2`; of `loso` `speakers EB0, EB1` where the runs say who they are."""
        names = {cell["fold"]: cell["test_speakers"][0] for cell in self.cells
                 if self.protocol == "loso" and cell.get("test_speakers")}  # fmt: skip
        known = all(fold in names for fold in folds)
        word = ("speaker" if known else "fold") + ("" if len(folds) == 1 else "s")
        return f"{word} {', '.join(str(names[f] if known else f) for f in folds)}"


def find_full(keys: set[tuple[int, int]], folds: frozenset[int]) -> list[int]:
    """Seeds of which every fold is among `keys`."""
    by_seed: dict[int, set[int]] = {}
    for seed, fold in keys:
        by_seed.setdefault(seed, set()).add(fold)
    return sorted(seed for seed, found in by_seed.items() if found >= folds)


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
        """Name of the recordings; grids that do not say are of RAVDESS."""
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


def load_evidence(folder: Path, results: Mapping[str, Any]) -> Evidence:
    """Read what the cells of a results.json left in their folders; what is amiss becomes a problem.

    Raises:
      KeyError, TypeError, ValueError: results.json itself has unexpected content.
    """
    cells = results["cells"]
    done = [cell for cell in cells if cell["status"] == "done"]
    n_classes = len(done[0]["confusion"]) if done else 0
    labels = list(results.get("labels") or map(str, range(n_classes)))
    faults: list[_Fault] = []
    rows: dict[tuple[str, str], SystemResult] = {}
    for cell in cells:
        key = (cell["system"], cell["protocol"])
        folds = frozenset(c["fold"] for c in cells if (c["system"], c["protocol"]) == key)
        rows.setdefault(key, SystemResult(*key, folds, [])).cells.append(cell)
    checksums = Counter(cell["checksum"] for cell in done if cell.get("checksum"))
    common = checksums.most_common(1)[0][0] if checksums else None
    n_done = 0
    for cell in cells:
        if cell["status"] != "done":
            reason = f": {cell['reason']}" if cell.get("reason") else ""
            faults.append(_Fault(cell, f"{cell['status']}{reason}"))
            continue
        if cell.get("checksum") not in (None, common):
            what = f"checksum {cell['checksum']}, the others {common}"
            faults.append(_Fault(cell, f"foreign, trained on other recordings ({what}); left out"))
            continue
        n_done += 1
        _load_cell(folder, cell, labels, rows[cell["system"], cell["protocol"]], faults)
    problems = [*_describe_faults(faults), *_find_unlisted(folder, cells)]
    settings = {system: get_settings(results, system) for system, _ in rows}
    return Evidence(folder, results, labels, rows, settings, problems, len(cells), n_done)


class _Fault(NamedTuple):
    """What is wrong with one cell."""

    cell: Mapping[str, Any]
    what: str


def _load_cell(
    folder: Path,
    cell: Mapping[str, Any],
    labels: Sequence[str],
    row: SystemResult,
    faults: list[_Fault],
) -> None:
    """Put the clips and events of a finished cell into its row."""
    keys = (cell["system"], cell["protocol"], cell["fold"], cell["seed"])
    run_dir, at = folder / "cells" / make_cell_name(*keys), (cell["seed"], cell["fold"])
    row.clips[at] = from_confusion(cell)
    if fault := _find_fault(run_dir, cell):
        faults.append(_Fault(cell, f"{fault}; its curves, clips and groups are left out"))
        return
    try:
        row.clips[at] = load_scored_clips(run_dir / PREDICTIONS_FILE, cell, labels)
    except UserError as error:
        faults.append(_Fault(cell, f"{error}; left out of statistics over speakers and groups"))
    try:
        events = load_events(run_dir)
        if any(event.get("event") == "epoch" for event in events):  # an svm or hmm has none
            row.events[at] = events
    except UserError as error:
        reason = str(error).replace(f"{run_dir}/", "")
        faults.append(_Fault(cell, f"{reason}; left out of the curves"))


def _describe_faults(faults: Sequence[_Fault]) -> Iterator[str]:
    """A line for all cells of a row that have the same fault."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for cell, what in faults:
        groups.setdefault((cell["system"], cell["protocol"], what), []).append(cell)
    for (system, protocol, what), cells in groups.items():
        yield f"{system}, {protocol}, {describe_places(cells)}: {what}"


def describe_places(cells: Sequence[Mapping[str, Any]]) -> str:
    """`seed 0 folds 3, 4; seed 1 fold 2`; folds are left out of the study's split."""
    by_seed: dict[int, list[int]] = {}
    for cell in cells:
        by_seed.setdefault(cell["seed"], []).append(cell["fold"])
    if cells[0]["protocol"] == "study":
        return ("seed " if len(by_seed) == 1 else "seeds ") + ", ".join(map(str, by_seed))
    return "; ".join(
        f"seed {seed} fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
        for seed, folds in by_seed.items()
    )


def _find_fault(run_dir: Path, cell: Mapping[str, Any]) -> str | None:
    """What keeps a cell's folder from being that of the cell."""
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


def _find_unlisted(folder: Path, cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    known = {make_cell_name(c["system"], c["protocol"], c["fold"], c["seed"]) for c in cells}
    if (folder / "cells").is_dir():
        for path in sorted((folder / "cells").iterdir()):
            if path.is_dir() and not path.name.startswith(".") and path.name not in known:
                yield f"cells/{path.name}: foreign, no cell of this grid; left out"


def get_settings(results: Mapping[str, Any], row: str) -> dict[str, Any]:
    """Dotted keys of a system: what the grid shares, what is its own, what a sweep sets."""
    from ser_jax.config import flatten

    config = results.get("config") or {}
    systems = config.get("systems") or {}
    shared = {
        key: value
        for key, value in config.items()
        if isinstance(value, dict) and key not in ("systems", "sweep")
    }
    base = max(
        (name for name in systems if row == name or row.startswith(f"{name} ")),
        key=len,
        default=None,
    )
    own = systems[base] or {} if base is not None else {}
    sweep = next((c["sweep"] for c in results["cells"] if c["system"] == row and "sweep" in c), {})
    settings = flatten(shared) | own | sweep
    settings.setdefault("model.name", row)
    return settings
