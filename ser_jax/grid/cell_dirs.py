"""The folder of a cell trained together with others, the same as if it had been trained alone."""

import contextlib
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ser_jax.data.splits import Split, draw_split
from ser_jax.features.batching import cut_batches, order_epoch
from ser_jax.features.corpus_features import Inputs, fit_to_training
from ser_jax.features.normaliser import Normaliser
from ser_jax.grid.cells import Cell, write_diverged
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.metrics import Sums
from ser_jax.run.events import EventLog, make_start
from ser_jax.run.finish import finish_run
from ser_jax.run.results import describe_run
from ser_jax.run.run_dir import open_run_dir
from ser_jax.systems.network_checkpoints import CHECKPOINTS
from ser_jax.systems.system import Fitted
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.loop import Diverged, compute_score, make_epoch_event, read_figures
from ser_jax.training.state import count_parameters
from ser_jax.wav2vec2.finetune import Prepared
from ser_jax.wav2vec2.frozen_files import save_frozen

_WRITERS = 4
"""Cells written at the same time; they mostly wait for the disk."""


class Plan(NamedTuple):
    """A cell and what it trains on; `label_B` as in `loop.fit`."""

    cell: Cell
    split: Split
    normaliser: Normaliser
    label_B: np.ndarray | None

    def cut_epoch(self, epoch: int) -> np.ndarray:
        """Training clips [S, B] of an epoch, counted from 1, in the order that `loop.fit` uses."""
        config = self.cell.config
        order = order_epoch(self.split.train, config.seed, epoch, self.label_B)
        return cut_batches(order, config.train.batch_size)


class Trained(NamedTuple):
    """One cell after training.

    Attributes:
      sums: training and validation sums of each epoch, on the host.
      best: the saved part of the state after the best epoch on validation, on the host; see
        `saved_state.copy_to_host`.
      predicted: class of each clip of 'val' and 'test' by `best`.
      seconds: its share of the wall time.
    """

    sums: list[tuple[Sums, Sums]]
    best: dict[str, Any]
    predicted: dict[str, np.ndarray]
    seconds: float


def make_plan(cell: Cell, inputs: Inputs) -> Plan:
    """The cell's clips and normaliser."""
    split = draw_split(cell.config.data, cell.seed, inputs.corpus)
    features, masked = cell.config.features, cell.config.model.mask_padding
    normaliser = fit_to_training(inputs, split.train, features, masked)
    label_B = inputs.corpus.emotion_B if cell.config.train.balanced else None
    return Plan(cell, split, normaliser, label_B)


def write_cells(
    plans: Sequence[Plan], prepared: Prepared, results: Sequence[Trained]
) -> Generator[Cell]:
    """`write_cell` of each, some at the same time; yields the cells in order, each once written.

    If one cannot be written, or the caller stops, writes in progress finish and no others start.
    """

    @with_jax_defaults
    def write(plan: Plan, trained: Trained) -> Cell:
        write_cell(plan, prepared, trained)
        return plan.cell

    # The first one alone: it triggers the late imports, and threads that import a package with
    # circular imports at the same time may see it half initialised.
    yield from map(write, plans[:1], results[:1])
    pool = ThreadPoolExecutor(_WRITERS, "cell")
    try:
        yield from pool.map(write, plans[1:], results[1:])
    finally:
        pool.shutdown(cancel_futures=True)


def write_cell(plan: Plan, prepared: Prepared, trained: Trained) -> None:
    """Write all that `run.train.train_run` would have written, metrics.json last.

    If killed before that, the cell resumes alone from the checkpoint of its best epoch.

    Raises:
      UserError: a file cannot be written.
    """
    (cell, split, normaliser, _), corpus = plan, prepared.inputs.corpus
    config, run_dir = cell.config, cell.run_dir
    facts = describe_run(corpus, split, normaliser, config)
    open_run_dir(run_dir, config)
    log = EventLog(run_dir)
    log.cut_back(-1)
    log(make_start(facts))
    save_frozen(run_dir, prepared)
    try:
        best_epoch, best_score = _log_epochs(plan, trained, log)
    except Diverged as error:
        write_diverged(cell, error)
        return
    with contextlib.closing(Checkpoints(run_dir / CHECKPOINTS)) as checkpoints:
        facts |= {"best_score": best_score, "best_epoch": best_epoch}
        checkpoints.save(best_epoch, trained.best, facts, best_epoch=best_epoch)
    epochs, n_trained = len(trained.sums), count_parameters(trained.best["params"])
    fitted = Fitted(
        trained.predicted, epochs * len(plan.cut_epoch(1)), epochs, best_epoch,
        n_trained + count_parameters(prepared.kept), n_trained,
    )  # fmt: skip
    finish_run(run_dir, config, corpus, split, fitted, log, seconds=trained.seconds)


def _log_epochs(plan: Plan, trained: Trained, log: EventLog) -> tuple[int, list[float]]:
    """Log each epoch; returns the best one and its score.

    Raises:
      Diverged: in an epoch; those before it are logged.
    """
    train, steps = plan.cell.config.train, len(plan.cut_epoch(1))
    best_epoch, best_score = 0, []
    for epoch, sums in enumerate(trained.sums, 1):
        figures = read_figures(*sums, epoch=epoch, learning_rate=train.learning_rate)
        score = compute_score(train.best_by, figures, epoch)
        if best_epoch == 0 or score > best_score:
            best_epoch, best_score = epoch, score
        seconds = trained.seconds / len(trained.sums)
        log(make_epoch_event(epoch, epoch * steps, figures, best_epoch, seconds))
    return best_epoch, best_score
