"""fit(): epochs, validation, best epoch, early stopping, resuming; reports progress by events."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from ser_jax.errors import UserError
from ser_jax.features.batching import Dataset, cut_batches, cut_buckets, order_epoch
from ser_jax.metrics import Sums, compute_accuracy, compute_loss
from ser_jax.multihost.sharing import SharedCheckpoints
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.optimizer import get_learning_rate
from ser_jax.training.programs import Programs, Stream
from ser_jax.training.state import TrainState

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
    buckets: int = 1


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


def compute_score(best_by: str, figures: dict[str, float], epoch: int) -> list[float]:
    """Greater is better; the loss breaks ties of accuracy, and the accuracy ties of loss."""
    if best_by == "last":
        return [float(epoch), 0.0]
    loss, accuracy = figures["val_loss"], figures["val_accuracy"]
    return [accuracy, -loss] if best_by == "accuracy" else [-loss, accuracy]


def read_figures(train: Sums, val: Sums, *, epoch: int, learning_rate: float) -> dict[str, float]:
    """An epoch's train_loss, train_accuracy, val_loss and val_accuracy.

    Raises:
      Diverged: a loss is NaN or infinite.
    """
    figures: dict[str, float] = {}
    train, val = jax.device_get((train, val))
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
    """The event of a finished epoch."""
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
    label_B: np.ndarray | None = None,
) -> FitResult:
    """Train, and keep the epoch best on validation.

    A run whose checkpoints hold an epoch is resumed after it, and ends bit for bit as one that was
    never interrupted: order, dropout and augmentation depend only on the seed, the step and the
    epoch.

    Args:
      state: the state before the first step.
      programs: compiled programs of the network.
      load_epoch: the corpus as epoch number e (from 1) sees it; validation clips never change.
      train_index, val_index: clip numbers.
      settings: see `FitSettings`.
      checkpoints: where every epoch is saved.
      on_event: called with the events 'restored', 'step' and 'epoch'.
      facts: JSON-able, saved with every checkpoint beside what this function adds.
      label_B: classes of all clips, to draw every class equally often; `None`: every clip once.

    Raises:
      Diverged: the training or validation loss became NaN or infinite.
      UserError: a checkpoint cannot be written or read.
    """
    state, epoch, best = _restore(state, checkpoints, on_event)
    while epoch < settings.epochs and not 0 < settings.early_stop_epochs <= epoch - best.epoch:
        epoch += 1
        start_s = time.perf_counter()
        dataset = load_epoch(epoch)
        order = order_epoch(train_index, settings.seed, epoch, label_B)
        state, train_sums = _train_epoch(
            state, programs, dataset, order, settings=settings, epoch=epoch, on_event=on_event
        )
        val_sums = _evaluate(state, programs, dataset, val_index, settings)
        figures = read_figures(
            train_sums, val_sums, epoch=epoch, learning_rate=get_learning_rate(state)
        )
        score = compute_score(settings.best_by, figures, epoch)
        if best.epoch == 0 or score > best.score:
            best = _Best(score, epoch)
        # The event first: after a kill before the checkpoint is whole, the epoch is run again and
        # its event replaced. In the other order a kill between the two would lose the event.
        seconds = time.perf_counter() - start_s
        on_event(make_epoch_event(epoch, int(state.step), figures, best.epoch, seconds))
        progress = {"best_score": best.score, "best_epoch": best.epoch}
        trained = dataclasses.replace(state, frozen={})
        checkpoints.save(epoch, trained, facts | progress, best_epoch=best.epoch)
    checkpoints.wait()  # before anybody calls the run complete
    best_state = state if best.epoch == epoch else _load(checkpoints, best.epoch, state)
    return FitResult(best.epoch, epoch, int(state.step), best_state)


class _Best(NamedTuple):
    """The epoch best so far, 0 before the first, and its `compute_score`."""

    score: list[float]
    epoch: int


def _restore(
    state: TrainState, checkpoints: Checkpoints | SharedCheckpoints, on_event: OnEvent
) -> tuple[TrainState, int, _Best]:
    """Where training resumes: after the latest saved epoch, or at the start."""
    epoch = checkpoints.latest_epoch()
    if epoch is None:
        return state, 0, _Best([-math.inf], 0)
    saved = checkpoints.load_facts(epoch)
    state = _load(checkpoints, epoch, state)
    on_event({"event": "restored", "epoch": epoch, "step": int(state.step)})
    return state, epoch, _Best(saved["best_score"], saved["best_epoch"])


def _train_epoch(
    state: TrainState,
    programs: Programs,
    dataset: Dataset | Stream,
    order: np.ndarray,
    *,
    settings: FitSettings,
    epoch: int,
    on_event: OnEvent,
) -> tuple[TrainState, Sums]:
    """All steps of an epoch, over clips in this order; buckets of lengths are shuffled too."""
    pieces = _cut_epoch(dataset, order, settings, programs.multiple)
    n_steps, done = sum(len(index_SB) for _, index_SB in pieces), 0

    def report(number: int) -> None:
        on_event({"event": "step", "epoch": epoch, "number": done + number + 1, "of": n_steps})

    total = None
    for piece in np.random.default_rng((settings.seed, epoch, 1)).permutation(len(pieces)):
        part, index_SB = pieces[piece]
        state, sums = programs.train_epoch(state, part, index_SB, report)
        total = sums if total is None else total + sums
        done += len(index_SB)
    assert total is not None
    return state, total


def _evaluate(
    state: TrainState,
    programs: Programs,
    dataset: Dataset | Stream,
    index: np.ndarray,
    settings: FitSettings,
) -> Sums:
    total = None
    for part, index_SB in _cut_epoch(dataset, index, settings, programs.multiple):
        sums = programs.evaluate(state.variables, part, index_SB)
        total = sums if total is None else total + sums
    assert total is not None
    return total


def _cut_epoch(
    dataset: Dataset | Stream, index: np.ndarray, settings: FitSettings, n_shards: int
) -> list[tuple[Dataset | Stream, np.ndarray]]:
    """Batches as programs take them: all at once, or one by one where they differ in length."""
    cut = functools.partial(cut_batches, batch_size=settings.batch_size, n_shards=n_shards)
    if settings.buckets == 1:
        return [(dataset, cut(index))]
    assert isinstance(dataset, Dataset)
    batches = cut_buckets(index, np.asarray(dataset.frames_B), settings.buckets, cut)
    return [(dataset.replace(n_frames=n), index_1B) for n, index_1B in batches]  # pyright: ignore


def _load(checkpoints: Checkpoints | SharedCheckpoints, epoch: int, state: Any) -> TrainState:
    """The state of an epoch; what is not trained is not in the checkpoint."""
    trained = dataclasses.replace(state, frozen={})
    return dataclasses.replace(checkpoints.load_state(epoch, trained), frozen=state.frozen)
