"""What a report may draw on: the cells of a grid, their clips and curves, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ser_jax.data.cross_corpus import CROSS_CORPUS
from ser_jax.report.clips import ScoredClips

CellResult = Mapping[str, Any]
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
    cells: list[CellResult] = field(default_factory=list)
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
            return name_values("speaker", [names[fold] for fold in folds])
        return name_folds(self.cells, folds)


def name_folds(cells: Sequence[CellResult], folds: Sequence[int]) -> str:
    """`folds 1, 2` or, where the runs name them, `nemo -> ravdess`."""
    names = {cell["fold"]: cell["fold_name"] for cell in cells if cell.get("fold_name")}
    return ", ".join(names[fold] for fold in folds) if names else name_values("fold", folds)


def name_values(noun: str, values: Sequence[object]) -> str:
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
