"""Runs in one program equal the same runs alone, and none disturbs another."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.batching import Dataset, cut_batches, shuffle
from ser_jax.config import ModelConfig, TrainConfig, override
from ser_jax.features import Normaliser
from ser_jax.grid import Layout, Progress, init_progress, make_grid_programs
from ser_jax.models import make_model
from ser_jax.parallel import make_programs
from ser_jax.state import init_state, make_optimizer

N_CLASSES, T, F, N_CLIPS = 3, 8, 4, 24
TX = make_optimizer(TrainConfig())
SIZES = {"channels": (3, 4), "hidden": 4, "dense": (4,), "mask_padding": True}
SEEDS, DROPOUTS, RATES = (3, 5, 2**31 + 1), (0.0, 0.3, 0.5), (1e-3, 3e-2, 1e-2)
EPOCHS = 2


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
    return Dataset(
        jnp.asarray(x_BTF), jnp.asarray(frames_B), jnp.asarray(label_B),
        Normaliser(jnp.full(F, np.nan), jnp.full(F, np.nan)), jnp.ones((), jnp.int32),
    )  # fmt: skip


NORMALISERS = [Normaliser(jnp.full(F, 0.1 * r), jnp.full(F, 1.0 + r)) for r in range(3)]
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


def run_together(name: str, layout: Layout, n_runs: int = 3) -> tuple[Progress, list[Any], Any]:
    model, runs = make_network(name), range(n_runs)
    programs = make_grid_programs(model, TX, n_classes=N_CLASSES, layout=layout)
    progress = layout.place(init_progress(
        model, TX, seed_R=SEEDS[:n_runs], n_frames=T, n_features=F, dropout_R=DROPOUTS[:n_runs],
        augment_p_R=np.zeros(n_runs), learning_rate_R=RATES[:n_runs],
    ))  # fmt: skip
    normaliser = jax.tree.map(lambda *x: jnp.stack(x), *NORMALISERS[:n_runs])
    normaliser, dataset = layout.place(normaliser), layout.share(make_dataset())
    found = []
    for epoch in range(1, EPOCHS + 1):
        indices = make_indices(epoch, runs)
        progress, train, val = programs.run_epoch(progress, normaliser, dataset, *indices)
        found.append(jax.device_get((train, val)))
    _, val_index = make_indices(1, runs)
    classes = programs.predict(progress.best.variables, normaliser, dataset, val_index)
    return progress, found, np.asarray(classes)


def pick(tree: Any, r: int) -> Any:
    return jax.tree.map(lambda x: np.asarray(x[r]), tree)


def assert_close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


@pytest.mark.parametrize(
    ("name", "how", "scan"),
    [("lstm", "vmap", False), ("lstm", "map", True), ("cnn", "vmap", True), ("cnn", "map", False)],
)
def test_runs_together_equal_each_alone(name, how, scan):
    progress, found, classes = run_together(name, Layout(how, scan))
    for r in range(3):
        state, best, sums = run_alone(name, r)
        assert_close(pick(progress.state.variables, r), state)
        assert_close(pick(progress.best.variables, r), best)
        assert_close([pick(epoch, r) for epoch in found], sums)
        hits = (classes[r].ravel()[:5] == np.asarray(make_dataset().label_B)[VAL[r]]).sum()
        best_sums = sums[int(progress.best_epoch[r]) - 1][1]
        assert hits == np.trace(best_sums.confusion_CC)
