"""An evaluation: its figures, each clip's probabilities, and both as files."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ser_jax.data.corpus import Corpus
from ser_jax.errors import UserError, warn
from ser_jax.files.atomic import expand, write_atomic
from ser_jax.files.names import make_slug
from ser_jax.metrics import FIGURES
from ser_jax.run.results import collect_versions, name_speakers, write_predictions
from ser_jax.statistics import bootstrap_figure

EVALUATION_FILE = "evaluation.json"
_COLLAPSED = 0.8
"""Share of the predictions above which one class is worth a warning."""
_MOST_SPEAKERS = 1000  # to resample; 10,000 draws of more would fill the memory


class Heard(NamedTuple):
    """The clips that were measured, and what was predicted.

    Attributes:
      corpus: with the run's classes.
      index_B: numbers of the clips.
      probability_BC: of each class.
    """

    corpus: Corpus
    index_B: np.ndarray
    probability_BC: np.ndarray

    @property
    def predicted_B(self) -> np.ndarray:
        """The most probable class."""
        return self.probability_BC.argmax(axis=-1)


class Measurement(NamedTuple):
    """An evaluation and what it was made on.

    Attributes:
      report: see `metrics.compute_report`.
      corpus: name of the corpus.
      part: test, val, train or all.
      protocol: the split that the run was trained on, and `part` is of: `emobox6 split, fold 2`.
      trained_on: name of the corpus that it was trained on.
      heard: clip by clip.
    """

    report: dict[str, Any]
    corpus: str
    part: str
    protocol: str
    trained_on: str
    heard: Heard

    def compute_intervals(self) -> dict[str, list[float]]:
        """95 % bootstrap intervals of accuracy, weighted F1 and UAR, resampling speakers.

        Empty for one speaker, and for more than a thousand.
        """
        corpus, index_B, _ = self.heard
        speakers, at_B = np.unique(corpus.actor_B[index_B], return_inverse=True)
        if not 1 < len(speakers) <= _MOST_SPEAKERS:
            return {}
        C = len(corpus.labels)
        confusion_ACC = np.zeros((len(speakers), C, C))
        np.add.at(confusion_ACC, (at_B, corpus.emotion_B[index_B], self.heard.predicted_B), 1)
        found = {name: bootstrap_figure(name, confusion_ACC[None]) for name in FIGURES}
        return {name: [*interval] for name, interval in found.items() if interval}

    def describe_predictions(self) -> dict[str, dict[str, Any]]:
        """By class: how many clips were predicted as it, their share, their mean probability."""
        predicted_B = self.heard.predicted_B
        probability_B = self.heard.probability_BC.max(axis=-1)
        found = {}
        for number, label in enumerate(self.heard.corpus.labels):
            here_B = predicted_B == number
            count = int(here_B.sum())
            mean = float(probability_B[here_B].mean()) if count else None
            found[label] = {"clips": count, "share": count / len(here_B), "probability": mean}
        return found

    def list_warnings(self) -> list[str]:
        """What makes the figures doubtful: clips of one class alone, nearly all predictions of one
        class, clips that the run was trained on."""
        truth = {name: sum(row) / self.report["n"]
                 for name, row in zip(self.report["labels"], self.report["confusion"], strict=True)
                 }  # fmt: skip
        warnings = [
            f"{self.corpus}: all {self.report['n']} clips are of one class, {name}; its accuracy "
            "says nothing of the others"
            for name, share in truth.items()
            if share == 1
        ]
        if n_known := self.report.get("known_clips"):
            warnings.append(
                f"{self.corpus}: the run was trained or validated on {n_known} of its clips, "
                "which makes its figures too good; leave them out"
            )
        for name, found in self.describe_predictions().items():
            if found["share"] > max(_COLLAPSED, truth[name]):
                warnings.append(
                    f"{self.corpus}: {found['clips']} of {self.report['n']} clips are taken for "
                    f"{name}, at a mean probability of {found['probability']:.2f}; the run hardly "
                    "tells these recordings apart"
                )
        return warnings

    def make_record(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        corpus, index_B, _ = self.heard
        speakers = np.unique(name_speakers(corpus)[index_B])
        return {
            "corpus": self.corpus, "part": self.part, "trained_on": self.trained_on,
            "protocol": self.protocol, "checksum": corpus.checksum, "speakers": len(speakers),
            **self.report, "intervals": self.compute_intervals(),
            "predicted": self.describe_predictions(), "warnings": self.list_warnings(),
            "versions": collect_versions(),
        }  # fmt: skip


def write_evaluation(
    found: Measurement, run_dir: str | Path, out: str | None = None
) -> Path | None:
    """Write evaluation.json and predictions.csv.

    Args:
      found: the evaluation.
      run_dir: of the run that was measured.
      out: folder; `None`: evaluations/CORPUS-PART below the run's, with a warning if that cannot be
        written.

    Returns:
      The folder; None where nothing was written.

    Raises:
      UserError: `out` cannot be written.
    """
    usual = Path(run_dir) / "evaluations" / make_slug(f"{found.corpus}-{found.part}")
    folder = expand(out or usual)
    try:
        corpus, index_B, probability_BC = found.heard
        write_predictions(folder, corpus, index_B, found.heard.predicted_B, probability_BC)
        write_atomic(
            folder / EVALUATION_FILE, json.dumps(found.make_record(), indent=1, allow_nan=False)
        )
    except UserError as error:
        if out is not None:
            raise
        warn(f"{error}, by --out DIR; the evaluation is printed but not saved")
        return None
    return folder
