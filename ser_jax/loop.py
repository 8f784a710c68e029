"""fit(): epochs, validation, best epoch, early stop, resumption; says what happens by events."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ser_jax.batching import Dataset, cut_batches, shuffle
from ser_jax.checkpoint import Checkpoints
from ser_jax.errors import UserError
from ser_jax.metrics import Sums, compute_accuracy, compute_loss
from ser_jax.parallel import Programs, Stream
from ser_jax.sharing import SharedCheckpoints
from ser_jax.state import TrainState

OnEvent = Callable[[dict[str, Any]], None]


class Diverged(UserError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class FitSettings:
    """How long to train, and which epoch to keep; see `config.TrainConfig`."""

    seed: int
    epochs: int
    batch_size: int
    best_by: str = "accuracy"
    early_stop_epochs: int = 0


@dataclass(frozen=True)
class FitResult:
    """Where training ended.

    Attributes:
      best_epoch: the epoch best on validation, counted from 1.
      epochs: epochs trained, fewer than asked for after an early stop.
      step: steps taken.
      state: state of the best epoch.
    """

    best_epoch: int
    epochs: int
    step: int
    state: TrainState


def compute_score(best_by: str, figures: dict[str, float]) -> list[float]:
    """Greater is better; equal accuracies are parted by the loss, equal losses by the accuracy."""
    loss, accuracy = figures["val_loss"], figures["val_accuracy"]
    return [accuracy, -loss] if best_by == "accuracy" else [-loss, accuracy]


def read_figures(train: Sums, val: Sums, *, epoch: int, learning_rate: float) -> dict[str, float]:
    """An epoch's train_loss, train_accuracy, val_loss and val_accuracy.

    Raises:
      Diverged: a loss is NaN or infinite.
    """
    figures: dict[str, float] = {}
    # The last step of an epoch shows in the validation loss alone.
    for part, kind, sums in (("train", "training", train), ("val", "validation", val)):
        loss = float(compute_loss(sums))
        if not math.isfinite(loss):
            raise Diverged(
                f"train.learning_rate={learning_rate:g}: the {kind} loss is {loss} in "
                f"epoch {epoch}; choose a smaller one"
            )
        figures |= {f"{part}_loss": loss, f"{part}_accuracy": float(compute_accuracy(sums))}
    return figures


def make_epoch_event(
    epoch: int, step: int, figures: dict[str, float], best_epoch: int, seconds: float
) -> dict[str, Any]:
    """What is told of a finished epoch."""
    return {
        "event": "epoch", "epoch": epoch, "step": step, **figures, "best_epoch": best_epoch,
        "seconds": round(seconds, 3),
    }  # fmt: skip


def fit(
    state: TrainState,
    programs: Programs,
    *,
    load_epoch: Callable[[int], Dataset | Stream],
    train_index: np.ndarray,
    val_index: np.ndarray,
    settings: FitSettings,
    checkpoints: Checkpoints | SharedCheckpoints,
    on_event: OnEvent,
    facts: dict[str, Any],
) -> FitResult:
    """Train, and keep the epoch best on validation.

    A run whose checkpoints hold an epoch goes on after it, and ends with the same numbers to the
    bit as one that was never interrupted: order, dropout and augmentation follow from the seed, the
    step and the epoch alone.

    Args:
      state: the state before the first step.
      programs: compiled programs of the network.
      load_epoch: the corpus as epoch number e (from 1) sees it; validation clips never change.
      train_index, val_index: clip numbers.
      settings: see `FitSettings`.
      checkpoints: where every epoch is saved.
      on_event: told of 'restored', 'step', 'epoch'.
      facts: JSON-able, saved with every checkpoint beside what this function adds.

    Raises:
      Diverged: the training or validation loss became NaN or infinite.
      UserError: a checkpoint cannot be written or read.
    """
    best_score, best_epoch, epoch = [-math.inf], 0, 0
    if (latest := checkpoints.latest_epoch()) is not None:
        saved = checkpoints.load_facts(latest)
        best_score, best_epoch, epoch = saved["best_score"], saved["best_epoch"], latest
        state = checkpoints.load_state(latest, state)
        on_event({"event": "restored", "epoch": epoch, "step": int(state.step)})
    n_shards = programs.layout.n_shards
    val_index_SB = cut_batches(val_index, settings.batch_size, n_shards)

    def stop_early() -> bool:
        return 0 < settings.early_stop_epochs <= epoch - best_epoch

    while epoch < settings.epochs and not stop_early():
        epoch += 1
        start_s = time.perf_counter()
        dataset = load_epoch(epoch)
        order = shuffle(train_index, settings.seed, epoch)
        index_SB = cut_batches(order, settings.batch_size, n_shards)

        def on_step(number: int, epoch: int = epoch, of: int = len(index_SB)) -> None:
            on_event({"event": "step", "epoch": epoch, "number": number + 1, "of": of})

        state, train_sums = programs.train_epoch(state, dataset, index_SB, on_step)
        val_sums = programs.evaluate(state.variables, dataset, val_index_SB)
        figures = read_figures(
            train_sums, val_sums, epoch=epoch, learning_rate=_learning_rate(state)
        )
        score = compute_score(settings.best_by, figures)
        if best_epoch == 0 or score > best_score:
            best_score, best_epoch = score, epoch
        # The event first: a kill between the two drops an event that the epoch, run again, brings
        # back. The other way round it would be lost.
        seconds = time.perf_counter() - start_s
        on_event(make_epoch_event(epoch, int(state.step), figures, best_epoch, seconds))
        progress = {"best_score": best_score, "best_epoch": best_epoch}
        checkpoints.save(epoch, state, facts | progress, best_epoch=best_epoch)
    best_state = state if best_epoch == epoch else checkpoints.load_state(best_epoch, state)
    return FitResult(best_epoch, epoch, int(state.step), best_state)


def _learning_rate(state: TrainState) -> float:
    return float(jax.device_get(state.opt_state.hyperparams["learning_rate"]))
