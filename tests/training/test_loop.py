"""fit() keeps the best epoch, stops early, goes on where it stopped, and says what happens."""

import math
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ser_jax.errors import UserError
from ser_jax.features.batching import PADDING, Dataset
from ser_jax.features.normaliser import Normaliser
from ser_jax.metrics import Sums
from ser_jax.training.layouts import Layout
from ser_jax.training.loop import Diverged, FitSettings, fit

TRAIN, VAL = np.arange(5), np.arange(5, 8)


class Played:
    """Programs that play given (train loss, validation loss, hits of ten) per epoch.

    The state counts steps and adds up what it saw, so that another order is another state.
    """

    layout, multiple = Layout(), 1

    def __init__(self, played, resumed_after):
        self.played, self.resumed_after = played, resumed_after
        self.orders, self.datasets, self.val_index = [], [], []

    def train_epoch(self, state, dataset, index_SB, on_step):
        self.orders.append(index_SB[index_SB != PADDING].tolist())
        self.datasets.append(dataset)
        step, trace = state.step, state.variables
        for number, index_B in enumerate(index_SB):
            step += 1
            trace = 31 * trace % 1_000_003 + int(index_B[0])
            on_step(number)
        loss, _, hits = self.played[step // len(index_SB) - 1]
        return make_state(step, trace), make_sums(loss, hits)

    def evaluate(self, variables, dataset, index_SB):
        assert dataset == self.datasets[-1]
        self.val_index.append(index_SB.tolist())
        _, loss, hits = self.played[self.resumed_after + len(self.orders) - 1]
        return make_sums(loss, hits)


class Memory:
    """Checkpoints in memory; like the real ones they keep the latest and the best."""

    def __init__(self, full_at=0, full_at_last=False):
        self.kept: dict[int, Any] = {}
        self.full_at, self.full_at_last = full_at, full_at_last

    def save(self, epoch, state, facts, *, best_epoch):
        if epoch == self.full_at:
            raise UserError("no space")
        self.kept[epoch] = state, dict(facts)
        self.kept = {e: v for e, v in self.kept.items() if e in (epoch, best_epoch)}

    def wait(self):
        if self.full_at_last:
            raise UserError("no space at last")

    def latest_epoch(self):
        return max(self.kept, default=None)

    def load_facts(self, epoch):
        return self.kept[epoch][1]

    def load_state(self, epoch, like):
        assert like is not None
        return self.kept[epoch][0]


@struct.dataclass
class State:
    step: int
    variables: Any
    opt_state: Any
    frozen: Any


def make_state(step: int, trace: int) -> Any:
    return State(step, trace, {"learning_rate": jnp.float32(0.5)}, {"kept": 1})


def make_sums(loss, hits):
    confusion_CC = jnp.float32([[hits, 10 - hits], [0, 0]])
    return Sums(jnp.float32(10 * loss), jnp.float32(10), confusion_CC)


def run(played, checkpoints=None, **settings) -> Any:
    """fit() over `played`; returns what came of it."""
    checkpoints = Memory() if checkpoints is None else checkpoints
    programs, events, epochs = Played(played, checkpoints.latest_epoch() or 0), [], []

    def load_epoch(epoch) -> Any:
        epochs.append(epoch)
        return f"clips of epoch {epoch}"

    options: Any = {"seed": 0, "epochs": len(played), "batch_size": 2} | settings
    arguments: Any = {"programs": programs, "checkpoints": checkpoints}
    try:
        result = fit(
            make_state(0, 1), load_epoch=load_epoch, train_index=TRAIN, val_index=VAL,
            settings=FitSettings(**options), on_event=events.append, facts={"model": "played"},
            **arguments,
        )  # fmt: skip
    except UserError as error:
        result = error
    return SimpleNamespace(
        result=result, programs=programs, events=events, epochs=epochs, checkpoints=checkpoints
    )


def play(hits_and_losses):
    return [(1.0, loss, hits) for hits, loss in hits_and_losses]


@pytest.mark.parametrize(
    ("best_by", "epochs", "best"),
    [
        ("accuracy", [(3, 0.9), (7, 0.8), (5, 0.1)], 2),
        ("loss", [(3, 0.9), (7, 0.8), (5, 0.1)], 3),
        ("accuracy", [(7, 0.8), (7, 0.5), (7, 0.6)], 2),  # equal accuracies: the lesser loss
        ("loss", [(5, 0.5), (6, 0.5), (4, 0.5)], 2),  # equal losses: the greater accuracy
        ("accuracy", [(7, 0.5), (7, 0.5)], 1),  # equal in both: the earlier
        ("loss", [(7, 0.5), (7, 0.5)], 1),
        ("last", [(7, 0.5), (3, 0.9)], 2),
        ("accuracy", [(0, 5.0)], 1),  # nothing recognised is a result too
    ],
)
def test_best_epoch_on_validation_is_kept(best_by, epochs, best):
    done = run(play(epochs), best_by=best_by)
    assert done.result.best_epoch == best
    assert done.result.epochs == len(epochs)
    assert done.result.step == 3 * len(epochs)
    assert done.result.state.step == 3 * best  # the state of that epoch, not of the last
    assert set(done.checkpoints.kept) == {best, len(epochs)}


@pytest.mark.parametrize(("patience", "epochs"), [(0, 6), (1, 3), (2, 4), (5, 6)])
def test_early_stop_counts_epochs_without_a_better_one(patience, epochs):
    played = play([(3, 0.9), (7, 0.8), (5, 0.9), (6, 0.9), (7, 0.8), (4, 0.9)])
    done = run(played, early_stop_epochs=patience)
    assert done.result.epochs == epochs
    assert done.result.best_epoch == 2
    assert done.epochs == list(range(1, epochs + 1))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["train", "validation"])
def test_loss_that_is_no_number_ends_training_with_a_remedy(loss, where):
    bad = (loss, 1.0, 5) if where == "train" else (1.0, loss, 5)
    done = run([(1.0, 1.0, 5), bad, (1.0, 1.0, 9)])
    assert isinstance(done.result, Diverged)
    assert str(done.result).startswith("train.learning_rate=0.5: ")
    assert "epoch 2" in str(done.result)
    assert "\n" not in str(done.result)
    assert list(done.checkpoints.kept) == [1]  # what is damaged is not saved


def test_every_epoch_sees_every_clip_in_an_order_of_its_own():
    programs = run(play([(5, 1.0)] * 3)).programs
    assert [sorted(order) for order in programs.orders] == [TRAIN.tolist()] * 3
    assert len({tuple(order) for order in programs.orders}) == 3
    assert programs.datasets == [f"clips of epoch {epoch}" for epoch in (1, 2, 3)]
    assert programs.val_index == [[[5, 6], [7, PADDING]]] * 3
    again = run(play([(5, 1.0)] * 3)).programs
    other = run(play([(5, 1.0)] * 3), seed=1).programs
    assert programs.orders == again.orders
    assert programs.orders != other.orders


def test_events_tell_every_step_and_epoch():
    events = run([(2.0, 1.5, 4), (1.0, 2.5, 3)]).events
    steps = [e for e in events if e["event"] == "step"]
    assert [(e["epoch"], e["number"], e["of"]) for e in steps] == [
        (epoch, number, 3) for epoch in (1, 2) for number in (1, 2, 3)
    ]
    epochs = [e for e in events if e["event"] == "epoch"]
    assert [events.index(e) for e in epochs] == [3, 7]
    assert all(e.pop("seconds") >= 0 for e in epochs)
    accuracies = [pytest.approx(0.4), pytest.approx(0.3)]
    assert epochs == [
        {
            "event": "epoch", "epoch": epoch, "step": 3 * epoch, "best_epoch": 1,
            "train_loss": pytest.approx(train_loss), "val_loss": pytest.approx(val_loss),
            "train_accuracy": accuracy, "val_accuracy": accuracy,
        }
        for epoch, train_loss, val_loss, accuracy in zip(
            (1, 2), (2.0, 1.0), (1.5, 2.5), accuracies, strict=True
        )
    ]  # fmt: skip


@pytest.mark.device
@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_run_that_was_interrupted_ends_like_one_that_was_not(stop_after):
    played = play([(3, 0.9), (7, 0.8), (5, 0.9), (7, 0.7), (6, 0.9)])
    whole = run(played)
    first = run(played[:stop_after])
    second = run(played, checkpoints=first.checkpoints)
    assert second.events[0] == {"event": "restored", "epoch": stop_after, "step": 3 * stop_after}
    assert second.epochs == list(range(stop_after + 1, 6))
    for fact in ("best_epoch", "epochs", "step"):
        assert getattr(second.result, fact) == getattr(whole.result, fact)
    assert second.result.state.variables == whole.result.state.variables
    assert second.checkpoints.load_facts(5) == whole.checkpoints.load_facts(5)


def test_run_that_had_stopped_early_stays_stopped():
    played = play([(7, 0.5), (3, 0.9), (3, 0.9), (9, 0.1)])
    first = run(played, early_stop_epochs=2)
    second = run(played, checkpoints=first.checkpoints, early_stop_epochs=2)
    assert second.epochs == []
    assert (second.result.best_epoch, second.result.epochs) == (1, 3)
    assert second.result.state.step == 3


def test_what_is_frozen_is_not_saved_and_is_there_after_a_restart():
    played = play([(3, 0.9), (7, 0.8), (5, 0.9)])
    first = run(played[:2])
    assert all(state.frozen == {} for state, _ in first.checkpoints.kept.values())
    second = run(played, checkpoints=first.checkpoints)  # the best epoch comes from a checkpoint
    assert second.result.best_epoch == 2
    assert second.result.state.frozen == {"kept": 1}


class Lengths:
    """Programs that note the clips and the length of every batch."""

    layout, multiple = Layout(), 1

    def __init__(self):
        self.trained, self.evaluated = [], []

    def train_epoch(self, state, dataset, index_SB, on_step):
        assert len(index_SB) == 1
        on_step(0)
        self.trained.append((dataset.n_frames, index_SB[index_SB != PADDING].tolist()))
        return make_state(state.step + 1, 1), make_sums(1.0, 5)

    def evaluate(self, variables, dataset, index_SB):
        self.evaluated.append((dataset.n_frames, index_SB[index_SB != PADDING].tolist()))
        return make_sums(1.0, 5)


def fit_in_buckets(seed=0, checkpoints=None, epochs=4):
    frames_B = np.array([9, 2, 8, 3, 7, 1, 6, 4, 5, 3])
    dataset: Any = Dataset(
        jnp.zeros((10, 9, 1)), jnp.asarray(frames_B), jnp.zeros(10, jnp.int32),
        Normaliser(jnp.zeros(1), jnp.ones(1)), jnp.ones((), jnp.int32),
    )  # fmt: skip
    programs, events = Lengths(), []
    arguments: Any = {"programs": programs, "checkpoints": checkpoints or Memory()}
    fit(
        make_state(0, 1), load_epoch=lambda epoch: dataset, train_index=np.arange(8),
        val_index=np.array([8, 9]), settings=FitSettings(seed, epochs, 2, buckets=2),
        on_event=events.append, facts={}, **arguments,
    )  # fmt: skip
    return programs, events, frames_B


def test_buckets_are_trained_in_mixed_order_each_clip_once_an_epoch():
    programs, events, frames_B = fit_in_buckets()
    epochs = [programs.trained[start : start + 4] for start in range(0, 16, 4)]
    for batches in epochs:
        assert sorted(clip for _, clips in batches for clip in clips) == list(range(8))
        assert sorted(n for n, _ in batches) == [4, 4, 9, 9]
        assert all(frames_B[clips].max() <= n for n, clips in batches)
    assert len({str(batches) for batches in epochs}) == 4
    assert len({tuple(n for n, _ in batches) for batches in epochs}) > 1  # long ones not last
    assert programs.evaluated == [(3, [9]), (5, [8])] * 4
    steps = [(e["epoch"], e["number"], e["of"]) for e in events if e["event"] == "step"]
    assert steps == [(epoch, number, 4) for epoch in range(1, 5) for number in range(1, 5)]


def test_order_in_buckets_follows_from_seed_and_epoch():
    whole, other = fit_in_buckets()[0].trained, fit_in_buckets(seed=1)[0].trained
    assert whole != other
    checkpoints = Memory()
    parts = [fit_in_buckets(checkpoints=checkpoints, epochs=n)[0].trained for n in (2, 4)]
    assert parts[0] + parts[1] == whole


def test_facts_of_the_caller_are_saved_with_every_checkpoint():
    facts = run(play([(3, 0.9), (2, 0.9)])).checkpoints.load_facts(2)
    assert facts["model"] == "played"
    assert facts["best_epoch"] == 1


def test_epoch_is_told_before_it_is_saved_so_that_no_kill_loses_its_event():
    done = run(play([(3, 0.9), (2, 0.9)]), checkpoints=Memory(full_at=2))
    assert str(done.result) == "no space"
    assert done.events[-1]["epoch"] == 2
    again = run(play([(3, 0.9), (2, 0.9)]), checkpoints=done.checkpoints)
    assert [e["epoch"] for e in again.events if e["event"] == "epoch"] == [2]


def test_run_is_not_at_its_end_before_its_last_epoch_is_saved():
    done = run(play([(3, 0.9), (7, 0.9)]), checkpoints=Memory(full_at_last=True))
    assert str(done.result) == "no space at last"
