"""The test clips of a cell, from its predictions.csv or, failing that, its confusion matrix."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.errors import UserError, one_line
from ser_jax.metrics import compute_confusion

GROUPINGS = ("gender", "intensity", "statement")
_NO_SPEAKER = ""


@dataclass(frozen=True)
class ScoredClips:
    """Test clips of one or several cells, with the class predicted for each.

    Attributes:
      columns: arrays [B]: seed, fold, actor, true and predicted class, and the attributes. Actor
        and attributes are strings, empty if only a confusion matrix is known.
    """

    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["true"])

    @property
    def has_speakers(self) -> bool:
        """Whether the speaker of every clip is known."""
        return len(self) > 0 and bool((self.columns["actor"] != _NO_SPEAKER).all())

    def compute_confusion(self, n_classes: int, speakers: Sequence[str]) -> np.ndarray:
        """Number of clips by [speaker, true, predicted]; `speakers` is sorted and complete."""
        at_B = np.searchsorted(speakers, self.columns["actor"])
        confusion_ACC = np.zeros((len(speakers), n_classes, n_classes))
        np.add.at(confusion_ACC, (at_B, self.columns["true"], self.columns["predicted"]), 1)
        return confusion_ACC


def join_clips(parts: Sequence[ScoredClips]) -> ScoredClips:
    """The clips of several cells."""
    names = parts[0].columns
    return ScoredClips(
        {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
    )


def from_confusion(cell: Mapping[str, Any]) -> ScoredClips:
    """The clips that a confusion matrix counts, without speakers and attributes."""
    confusion_CC = np.asarray(cell["confusion"], int)
    true_C, pred_C = np.nonzero(confusion_CC)
    repeats = confusion_CC[true_C, pred_C]
    true_B, pred_B = np.repeat(true_C, repeats), np.repeat(pred_C, repeats)
    return _make_clips(cell, true_B, pred_B, np.full(len(true_B), _NO_SPEAKER), {})


def _make_clips(
    cell: Mapping[str, Any], true_B: Any, pred_B: Any, actor_B: Any, attributes: Mapping[str, Any]
) -> ScoredClips:
    B = len(true_B)
    columns = {
        "seed": np.full(B, cell["seed"]), "fold": np.full(B, cell["fold"]),
        "true": true_B, "predicted": pred_B, "actor": actor_B,
    }  # fmt: skip
    empty = np.full(B, "")
    return ScoredClips(columns | {name: attributes.get(name, empty) for name in GROUPINGS})


def load_scored_clips(path: Path, cell: Mapping[str, Any], labels: Sequence[str]) -> ScoredClips:
    """The clips listed in a cell's predictions.csv.

    Raises:
      UserError: the file is missing or unreadable, or disagrees with results.json.
    """
    where = path.name
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        number = {label: place for place, label in enumerate(labels)}
        true_B = np.array([number[row["emotion"]] for row in rows], int)
        pred_B = np.array([number[row["predicted"]] for row in rows], int)
        actor_B = np.array([row["actor"] for row in rows], dtype=str)
        attributes = {
            name: np.array([row[name] for row in rows], dtype=str)
            for name in GROUPINGS
            if rows and name in rows[0]
        }
    except FileNotFoundError as error:
        raise UserError(f"{where}: missing, as in runs of older versions") from error
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        reason = one_line(error)
        raise UserError(f"{where}: cannot be read ({type(error).__name__}: {reason})") from error
    confusion_CC = compute_confusion(len(labels), true_B, pred_B)
    if confusion_CC.tolist() != [list(map(int, row)) for row in cell["confusion"]]:
        raise UserError(f"{where}: foreign, counts other clips than results.json")
    return _make_clips(cell, true_B, pred_B, actor_B, attributes)
