"""Runs in one program equal the same runs alone, and none disturbs another."""

import dataclasses
import functools
import json
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from ser_jax.config import ModelConfig, TrainConfig, override
from ser_jax.features.batching import Dataset, cut_batches, shuffle
from ser_jax.features.normaliser import Normaliser
from ser_jax.grid.grid_programs import GridPrograms, make_grid_programs
from ser_jax.grid.run_progress import Progress, init_progress, keep_best
from ser_jax.metrics import Sums
from ser_jax.systems.networks import make_model
from ser_jax.training.layouts import RUN_AXIS, Layout, place, place_runs
from ser_jax.training.loop import compute_score
from ser_jax.training.optimizer import make_optimizer
from ser_jax.training.programs import make_programs
from ser_jax.training.state import init_state
from tests.counted_work import count_work
from tests.new_process import ROOT, simulate_devices
from tests.tolerance import assert_near

N_CLASSES, T, F, N_CLIPS = 3, 8, 4, 24
TX = make_optimizer(TrainConfig())
SIZES = {"channels": (3,), "hidden": 4, "dense": (4,), "mask_padding": True}
SEEDS, DROPOUTS, RATES = (3, 5, 2**31 + 1), (0.0, 0.3, 0.5), (1e-3, 3e-2, 1e-2)
EPOCHS = 2


@functools.cache
def make_network(name: str) -> Any:
    return make_model(override(ModelConfig(), SIZES | {"name": name}), N_CLASSES)


@functools.cache
def make_alone(name: str) -> Any:
    return make_programs(make_network(name), TX, n_classes=N_CLASSES)


@functools.cache
def make_dataset() -> Dataset:
    rng = np.random.default_rng(0)
    frames_B = rng.integers(4, T + 1, N_CLIPS).astype(np.int32)
    x_BTF = rng.standard_normal((N_CLIPS, T, F)).astype(np.float32)
    label_B = rng.integers(0, N_CLASSES, N_CLIPS).astype(np.int32)
    arrays: list[Any] = [x_BTF, frames_B, label_B, make_normaliser(np.nan, np.nan)]
    return jax.device_put(Dataset(*arrays, np.ones((), np.int32)))  # pyright: ignore


def make_normaliser(mean: float, std: float) -> Any:
    arrays: list[Any] = [np.full(F, x, np.float32) for x in (mean, std)]
    return Normaliser(*arrays)


NORMALISERS = [make_normaliser(0.1 * r, 1.0 + r) for r in range(3)]
# Each run has other training clips, as folds do.
TRAIN = [np.arange(r, r + 14) for r in range(3)]
VAL = [np.array([20, 21, 22, 23, r]) for r in range(3)]


def make_indices(epoch: int, runs: range = range(3)) -> tuple[np.ndarray, np.ndarray]:
    train = [cut_batches(shuffle(TRAIN[r], SEEDS[r], epoch), 4) for r in runs]
    return np.stack(train), np.stack([cut_batches(VAL[r], 4) for r in runs])


@functools.cache
def run_alone(name: str, r: int) -> tuple[Any, Any, list[Any]]:
    """Variables after the last epoch and after the best, and all sums."""
    model = make_network(name)
    programs = make_alone(name)
    state = init_state(
        model, TX, seed=SEEDS[r], n_frames=T, n_features=F, dropout=DROPOUTS[r],
        learning_rate=RATES[r],
    )  # fmt: skip
    dataset = dataclasses.replace(make_dataset(), normaliser=NORMALISERS[r])
    found = []
    best: tuple[list[float], Any] = ([-1.0], None)
    for epoch in range(1, EPOCHS + 1):
        train_index, val_index = make_indices(epoch)
        state, train = programs.train_epoch(state, dataset, train_index[r])
        val = programs.evaluate(state.variables, dataset, val_index[r])
        found.append(jax.device_get((train, val)))
        score = [float(np.trace(val.confusion_CC)), -float(val.loss)]
        if score > best[0]:
            best = score, jax.device_get(state.variables)
    return jax.device_get(state.variables), best[1], found


@functools.cache
def make_together(name: str, how: str, layout: Layout) -> GridPrograms:
    return make_grid_programs(make_network(name), TX, n_classes=N_CLASSES, layout=layout, how=how)


def make_arguments(name: str, layout: Layout, n_runs: int, rates: Any = RATES) -> list[Any]:
    """What `run_epoch` takes for the first epoch."""
    progress = init_progress(
        make_network(name), TX, seed_R=SEEDS[:n_runs], n_frames=T, n_features=F,
        dropout_R=DROPOUTS[:n_runs], augment_p_R=np.zeros(n_runs), learning_rate_R=rates[:n_runs],
    )  # fmt: skip
    normaliser = jax.tree.map(lambda *x: np.stack(x), *NORMALISERS[:n_runs])
    placed = [place_runs(progress, layout), place_runs(normaliser, layout)]
    return [*placed, place(make_dataset(), layout), *make_indices(1, range(n_runs))]


def run_together(
    name: str, how: str, layout: Layout, n_runs: int = 3, rates: Any = RATES
) -> tuple[Progress, list[Any], Any]:
    """Progress after all epochs, sums of each, classes of the validation clips."""
    programs = make_together(name, how, layout)
    progress, normaliser, dataset, *_ = make_arguments(name, layout, n_runs, rates)
    found = []
    for epoch in range(1, EPOCHS + 1):
        indices = make_indices(epoch, range(n_runs))
        progress, train, val = programs.run_epoch(progress, normaliser, dataset, *indices)
        found.append(jax.device_get((train, val)))
    classes = programs.predict(progress.best.variables, normaliser, dataset, indices[1])
    return progress, found, np.asarray(classes)


def pick(tree: Any, r: int) -> Any:
    return jax.tree.map(lambda x: np.asarray(x)[r], tree)


def assert_close(a: Any, b: Any) -> None:
    assert_near(a, b, rtol=1e-4, atol=1e-5, why="cudnn")


@pytest.mark.device
@pytest.mark.parametrize(
    ("name", "how", "scan"),
    [("lstm", "vmap", False), ("lstm", "map", True), ("cnn", "vmap", True), ("cnn", "map", False)],
)
def test_runs_together_equal_each_alone(name, how, scan):
    progress, found, classes = run_together(name, how, Layout(scan=scan))
    for r in range(3):
        state, best, sums = run_alone(name, r)
        assert_close(pick(progress.state.variables, r), state)
        assert_close(pick(progress.best.variables, r), best)
        assert_close([pick(epoch, r) for epoch in found], sums)
        hits = (classes[r].ravel()[:5] == np.asarray(make_dataset().label_B)[VAL[r]]).sum()
        best_sums = sums[int(progress.best_epoch[r]) - 1][1]
        assert hits == np.trace(best_sums.confusion_CC)


@pytest.mark.device
def test_a_run_that_diverges_leaves_the_others_alone():
    _, expected, _ = run_together("lstm", "vmap", Layout())
    _, found, _ = run_together("lstm", "vmap", Layout(), rates=(*RATES[:2], 1e30))
    assert np.isnan(found[1][0].loss[2])
    for epoch, others in zip(found, expected, strict=True):
        for r in range(2):
            assert_close(pick(epoch, r), pick(others, r))


keep: Any = jax.jit(keep_best, static_argnums=3)


def make_sums(loss: float, hits: int) -> Sums:
    confusion_CC = np.diag(np.array([hits, 0, 0], np.float32))
    numbers: list[Any] = [np.float32(loss), np.float32(10), confusion_CC]
    return Sums(*numbers)


@pytest.mark.parametrize(
    ("best_by", "epochs", "best"),
    [
        ("accuracy", [(5.0, 3), (9.0, 4), (8.0, 4), (7.0, 3), (8.0, 4)], 3),
        ("loss", [(5.0, 3), (5.0, 4), (6.0, 9), (5.0, 2)], 2),
        ("accuracy", [(5.0, 0), (np.nan, 0)], 1),
        ("last", [(5.0, 4), (9.0, 2), (8.0, 3)], 3),
    ],
)
def test_the_best_epoch_is_the_one_that_fit_keeps(best_by, epochs, best):
    state = init_state(make_network("lstm"), TX, seed=0, n_frames=T, n_features=F, dropout=0.0)
    zero, least = (jax.device_put(x) for x in (np.int32(0), np.full(2, -np.inf, np.float32)))
    progress = Progress(state, state, least, zero, zero)
    for number, (loss, hits) in enumerate(epochs, 1):
        step = jax.device_put(np.int32(number))
        progress = keep(
            progress, dataclasses.replace(state, step=step), make_sums(loss, hits), best_by
        )
    assert progress.epoch == len(epochs)
    assert progress.best_epoch == progress.best.step == best
    fitted, kept = 0, [-np.inf]
    for number, (loss, hits) in enumerate(epochs, 1):
        figures = {"val_loss": loss / 10, "val_accuracy": hits / 10}
        score = compute_score(best_by, figures, number)
        if score > kept:
            fitted, kept = number, score
    assert fitted == best


def test_memory_is_measured_and_what_was_compiled_for_it_is_used():
    layout = Layout(scan=True)
    programs = make_together("lstm", "vmap", layout)
    costs = []
    for n_runs in (1, 3):
        arguments = make_arguments("lstm", layout, n_runs)
        costs.append(programs.measure(*arguments))
        with count_work() as work:
            programs.run_epoch(*arguments)
        assert work.compilations == 0
    # States, their best and what a step keeps are there three times; the clips once.
    assert costs[0].n_bytes < costs[1].n_bytes < 3 * costs[0].n_bytes


def test_a_program_that_is_compiled_already_tells_what_compiling_it_took():
    """By it a grid judges whether to try a second way, also where the first costs nothing any
    more."""
    layout = Layout(scan=True)
    programs = make_together("lstm", "vmap", layout)
    cost = programs.measure(*make_arguments("lstm", layout, 3))
    assert cost.compile_s > 0.05
    assert programs.measure(*make_arguments("lstm", layout, 3)) == cost


@pytest.mark.parametrize("how", ["vmap", "map"])
@pytest.mark.parametrize("name", ["lstm", "cnn"])
def test_a_grid_lowers_for_tpu_and_cuda(name, how):
    layout = Layout(scan=True)
    programs = make_together(name, how, layout)
    export = jax.export.export(jax.jit(programs.run_epoch), platforms=["tpu", "cuda"])
    assert export(*make_arguments(name, layout, 2)).platforms == ("tpu", "cuda")


@pytest.mark.cpu_only("simulates two devices")
def test_runs_shared_out_over_devices_equal_those_of_one_device():
    done = subprocess.run(
        [sys.executable, "-m", "tests.grid.test_vmapped"], env=simulate_devices(2), cwd=ROOT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["devices"] == 2
    assert found["shares"] == [1, 1]
    assert found["moved"] > 1e-3
    assert max(found["gaps"].values()) < 1e-5


def compare_devices() -> dict[str, Any]:
    """Greatest gap between two devices and one, by way; a program of its own, see above."""
    devices, gaps, shares = tuple(jax.devices()), {}, []
    layout = Layout("mesh", True, devices, RUN_AXIS)
    one, expected, _ = run_together("lstm", "vmap", Layout(scan=True), 2)
    for how in ("vmap", "map"):
        progress, found, classes = run_together("lstm", how, layout, 2)
        leaf = jax.tree.leaves(progress.state.params)[0]
        shares = [shard.data.shape[0] for shard in leaf.addressable_shards]
        pairs = jax.tree.map(
            lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
            (progress.best.params, found), (one.best.params, expected),
        )  # fmt: skip
        gaps[how] = max(jax.tree.leaves(pairs))
        assert classes.shape == (2, 2, 4)
    start = make_arguments("lstm", Layout(), 2)[0]
    moved = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
        start.state.params, one.state.params,
    )  # fmt: skip
    moved = max(jax.tree.leaves(moved))
    return {"devices": len(devices), "shares": shares, "gaps": gaps, "moved": moved}


if __name__ == "__main__":
    json.dump(compare_devices(), sys.stdout)
