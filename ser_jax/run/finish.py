"""The end of a run: scores, what each clip was taken for, and metrics.json, which completes it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.config import Config
from ser_jax.data.corpus import Corpus
from ser_jax.data.splits import Split
from ser_jax.files.atomic import write_atomic
from ser_jax.multihost.processes import is_writer
from ser_jax.run.file_names import METRICS_FILE
from ser_jax.run.known_clips import write_known
from ser_jax.run.results import compute_scores, make_metrics, save_spectrogram, write_predictions
from ser_jax.systems.system import Fitted
from ser_jax.training.loop import OnEvent


def finish_run(
    run_dir: Path,
    config: Config,
    corpus: Corpus,
    split: Split,
    fitted: Fitted,
    on_event: OnEvent,
    *,
    seconds: float,
    rows: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score a run that was trained, alone or with others, and write what it leaves.

    Killed before metrics.json is there, the run is scored anew from its checkpoints.

    Args:
      run_dir: the directory of the run.
      config: of the run.
      corpus, split: its clips.
      fitted: how training ended.
      on_event: called with the end.
      seconds: that training took.
      rows: numbers of the clips whose samples this process has; `None`: all.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: a file cannot be written.
    """
    scores: dict[str, Any] = {
        part: compute_scores(corpus, getattr(split, part), predicted_B)
        for part, predicted_B in fitted.predicted.items()
        if part == "test" or not config.data.train_on_validation  # clips that were trained on
    }
    metrics = make_metrics(config, corpus, split, fitted, scores, seconds=seconds)

    def leave() -> None:
        held = split.test if rows is None else split.test[np.isin(split.test, rows)]
        save_spectrogram(run_dir, config.features, corpus, int([*held, split.test[0]][0]))
        write_known(run_dir, corpus, split)
        write_predictions(run_dir, corpus, split.test, fitted.predicted["test"])

    end = {"step": fitted.step, "test_accuracy": metrics["test"]["accuracy"]}
    end_run(run_dir, metrics, on_event, end, leave)
    return metrics


def end_run(
    run_dir: Path,
    metrics: dict[str, Any],
    on_event: OnEvent,
    end: dict[str, Any],
    leave: Callable[[], None],
) -> None:
    """Log the end and write what a run leaves; metrics.json comes last and marks it complete.

    Args:
      run_dir: the directory of the run.
      metrics: for metrics.json.
      on_event: called with the end.
      end: the figures of that event.
      leave: writes everything else.
    """
    on_event({"event": "end", **end})
    if is_writer():
        leave()
        write_atomic(run_dir / METRICS_FILE, json.dumps(metrics, indent=1))
