"""Programs that must train alike: an epoch scanned or step by step, runs side by side or alone."""

from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.ours import make_dataset
from benchmarks.sections.right.checks import Check, Places
from benchmarks.sections.right.networks import N_CLASSES, make_config
from ser_jax.config import ModelConfig, TrainConfig
from ser_jax.grid.grid_programs import make_grid_programs
from ser_jax.grid.run_progress import init_progress
from ser_jax.systems.build import choose_forms
from ser_jax.systems.networks import make_model
from ser_jax.training.layouts import Layout
from ser_jax.training.optimizer import make_optimizer
from ser_jax.training.programs import make_programs
from ser_jax.training.state import init_state

N_RUNS, N_STEPS = 4, 3
# Adam would make a large step of a small error.
TX = make_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.01))


def _make_config(places: Places) -> ModelConfig:
    # XLA on CPU takes long over a convolution inside a loop.
    return make_config("lstm" if places.dry else "cnn_lstm", places.dry)


def _draw(places: Places) -> tuple[Any, np.ndarray]:
    n, T, F, B = (12, 32, 16, 4) if places.dry else (96, 83, 20, 32)
    rng = np.random.default_rng(0)
    x_BTF, label_B = rng.standard_normal((n, T, F), np.float32), rng.integers(0, N_CLASSES, n)
    index_RSB = np.stack([rng.permutation(n).reshape(N_STEPS, B) for _ in range(N_RUNS)])
    return make_dataset(x_BTF, label_B), index_RSB.astype(np.int32)


def _train_alone(places: Places, seed: int, layout: Layout) -> tuple[Any, Any]:
    """How far an epoch moves the parameters, and its sums."""
    dataset, index_RSB = _draw(places)
    model = make_model(_make_config(places), N_CLASSES, forms=choose_forms())
    T, F = dataset.x_BTF.shape[1:]
    state = init_state(model, TX, seed=seed, n_frames=T, n_features=F, dropout=0.2)
    before = jax.device_get(state.params)
    programs = make_programs(model, TX, n_classes=N_CLASSES, layout=layout)
    state, sums = programs.train_epoch(state, dataset, index_RSB[seed])
    moved = jax.tree.map(np.subtract, jax.device_get(state.params), before)
    return moved, jax.device_get(sums.loss)


def _train_together(places: Places) -> tuple[Any, Any]:
    """The same of runs side by side, in the form that a grid takes."""
    dataset, index_RSB = _draw(places)
    forms = choose_forms()._replace(conv="im2col")
    model = make_model(_make_config(places), N_CLASSES, forms=forms)
    T, F = dataset.x_BTF.shape[1:]
    progress = init_progress(
        model, TX, seed_R=np.arange(N_RUNS), n_frames=T, n_features=F,
        dropout_R=np.full(N_RUNS, 0.2), augment_p_R=np.zeros(N_RUNS),
        learning_rate_R=np.full(N_RUNS, 0.01),
    )  # fmt: skip
    before = jax.device_get(progress.state.params)
    programs = make_grid_programs(
        model, TX, n_classes=N_CLASSES, layout=Layout(scan=not places.dry)
    )
    normaliser = jax.tree.map(lambda x: np.stack([x] * N_RUNS), dataset.normaliser)
    progress, sums, _ = programs.run_epoch(
        progress, normaliser, dataset, index_RSB, index_RSB[:, :1]
    )
    moved = jax.tree.map(np.subtract, jax.device_get(progress.state.params), before)
    return moved, jax.device_get(sums.loss)


def _compare_scanned(places: Places) -> tuple[Any, Any]:
    with jax.default_device(places.device), jax.default_matmul_precision("highest"):
        found = _train_alone(places, 0, Layout(scan=True))
        return found, _train_alone(places, 0, Layout())


def _compare_grid(places: Places) -> tuple[Any, Any]:
    with jax.default_device(places.device), jax.default_matmul_precision("highest"):
        alone = [_train_alone(places, seed, Layout(scan=not places.dry)) for seed in range(N_RUNS)]
        expected = jax.tree.map(lambda *x: np.stack(x), *alone)
        return _train_together(places), expected


def list_checks(places: Places) -> list[list[Check]]:
    """Errors are relative to how far an epoch moves the parameters."""
    return [
        [Check("programs: a scanned epoch is a stepped one", 1e-3,
               partial(_compare_scanned, places))],
        [Check(f"programs: {N_RUNS} runs side by side are each alone", 1e-3,
               partial(_compare_grid, places))],
    ]  # fmt: skip
