"""fit(): epochs, validation, best epoch, early stop, resumption; says what happens by events."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ser_jax.errors import UserError
from ser_jax.features.batching import Dataset, cut_batches, cut_buckets, order_epoch
from ser_jax.metrics import Sums, compute_accuracy, compute_loss
from ser_jax.multihost.sharing import SharedCheckpoints
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.programs import Programs, Stream
from ser_jax.training.state import TrainState, get_learning_rate

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
    label_B: np.ndarray | None = None,
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
      label_B: classes of all clips, to draw every class equally often; None: every clip once.

    Raises:
      Diverged: the training or validation loss became NaN or infinite.
      UserError: a checkpoint cannot be written or read.
    """
    best_score, best_epoch, epoch = [-math.inf], 0, 0
    if (latest := checkpoints.latest_epoch()) is not None:
        saved = checkpoints.load_facts(latest)
        best_score, best_epoch, epoch = saved["best_score"], saved["best_epoch"], latest
        state = _load(checkpoints, latest, state)
        on_event({"event": "restored", "epoch": epoch, "step": int(state.step)})
    cut = functools.partial(cut_batches, batch_size=settings.batch_size, n_shards=programs.multiple)

    def stop_early() -> bool:
        return 0 < settings.early_stop_epochs <= epoch - best_epoch

    while epoch < settings.epochs and not stop_early():
        epoch += 1
        start_s = time.perf_counter()
        dataset = load_epoch(epoch)
        order = order_epoch(train_index, settings.seed, epoch, label_B)
        pieces = _cut_epoch(dataset, order, settings.buckets, cut)
        mixed = np.random.default_rng((settings.seed, epoch, 1)).permutation(len(pieces))
        tell = _StepTeller(on_event, epoch, sum(len(index_SB) for _, index_SB in pieces))
        train_sums = val_sums = None
        for part, index_SB in (pieces[number] for number in mixed):
            state, sums = programs.train_epoch(state, part, index_SB, tell)
            train_sums = sums if train_sums is None else train_sums + sums
            tell.done += len(index_SB)
        for part, index_SB in _cut_epoch(dataset, val_index, settings.buckets, cut):
            sums = programs.evaluate(state.variables, part, index_SB)
            val_sums = sums if val_sums is None else val_sums + sums
        assert train_sums is not None
        assert val_sums is not None
        figures = read_figures(
            train_sums, val_sums, epoch=epoch, learning_rate=get_learning_rate(state)
        )
        score = compute_score(settings.best_by, figures)
        if best_epoch == 0 or score > best_score:
            best_score, best_epoch = score, epoch
        # The event first: a kill before the checkpoint is whole drops an event that the epoch, run
        # again, brings back. The other way round it would be lost.
        seconds = time.perf_counter() - start_s
        on_event(make_epoch_event(epoch, int(state.step), figures, best_epoch, seconds))
        progress = {"best_score": best_score, "best_epoch": best_epoch}
        trained = dataclasses.replace(state, frozen={})
        checkpoints.save(epoch, trained, facts | progress, best_epoch=best_epoch)
    checkpoints.wait()  # before anybody calls the run complete
    best_state = state if best_epoch == epoch else _load(checkpoints, best_epoch, state)
    return FitResult(best_epoch, epoch, int(state.step), best_state)


class _StepTeller:
    """Tells of the steps of an epoch that is trained in several pieces."""

    def __init__(self, on_event: OnEvent, epoch: int, of: int):
        self.on_event, self.epoch, self.of, self.done = on_event, epoch, of, 0

    def __call__(self, number: int) -> None:
        number += self.done + 1
        self.on_event({"event": "step", "epoch": self.epoch, "number": number, "of": self.of})


def _cut_epoch(
    dataset: Dataset | Stream,
    index: np.ndarray,
    n_buckets: int,
    cut: Callable[[np.ndarray], np.ndarray],
) -> list[tuple[Dataset | Stream, np.ndarray]]:
    """Batches as programs take them: all at once, or one by one where they differ in length."""
    if n_buckets == 1:
        return [(dataset, cut(index))]
    assert isinstance(dataset, Dataset)
    batches = cut_buckets(index, np.asarray(dataset.frames_B), n_buckets, cut)
    return [(dataset.replace(n_frames=n), index_1B) for n, index_1B in batches]  # pyright: ignore


def _load(checkpoints: Checkpoints | SharedCheckpoints, epoch: int, state: Any) -> TrainState:
    """The state of an epoch; what is not trained is not in the checkpoint."""
    trained = dataclasses.replace(state, frozen={})
    return dataclasses.replace(checkpoints.load_state(epoch, trained), frozen=state.frozen)
