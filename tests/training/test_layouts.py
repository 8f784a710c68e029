"""The compiled programs do what their steps do, batch by batch."""

import dataclasses
import functools
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.config import ModelConfig, TrainConfig
from ser_jax.features.batching import Dataset, cut_batches, take
from ser_jax.features.normaliser import Normaliser
from ser_jax.metrics import Sums, compute_accuracy, compute_confusion
from ser_jax.systems.networks import make_model
from ser_jax.training.optimizer import make_optimizer
from ser_jax.training.programs import make_programs
from ser_jax.training.state import init_state
from ser_jax.training.step import train_step
from tests.new_process import ROOT, simulate_devices
from tests.tolerance import assert_near

N_CLASSES, T, F = 3, 5, 4
MODEL = make_model(ModelConfig(name="lstm", hidden=4, dense=(), mask_padding=True), N_CLASSES)
TX = make_optimizer(TrainConfig(learning_rate=0.05))
INDEX = np.array([6, 1, 4, 0, 3, 5, 2])


@pytest.fixture(scope="module")
def programs():
    return make_programs(MODEL, TX, n_classes=N_CLASSES)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    x_BTF = rng.standard_normal((8, T, F)).astype(np.float32)
    frames_B = rng.integers(1, T + 1, 8)
    label_B = rng.integers(0, N_CLASSES, 8).astype(np.int32)
    normaliser: Any = Normaliser(np.zeros(F, np.float32), np.ones(F, np.float32))  # pyright: ignore[reportArgumentType]
    return jax.device_put(
        Dataset(x_BTF, frames_B, label_B, normaliser, np.ones((), np.int32))  # pyright: ignore[reportArgumentType]
    )


@functools.cache
def init_once():
    return init_state(MODEL, TX, seed=0, n_frames=T, n_features=F, dropout=0.0)


copy: Any = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


def init():
    """A copy, since an epoch uses its memory up."""
    return copy(init_once())


@pytest.mark.device
def test_epoch_is_its_steps_one_after_another(programs, dataset):
    index_SB, told = cut_batches(INDEX, 3), []
    expected, expected_sums = init(), Sums.zeros(N_CLASSES)

    @jax.jit
    def step(state, total, index_B):
        state, sums = train_step(state, take(dataset, index_B), model=MODEL, tx=TX)
        return state, total + sums

    for index_B in index_SB:
        expected, expected_sums = step(expected, expected_sums, index_B)

    start = init()
    state, sums = programs.train_epoch(start, dataset, index_SB, told.append)
    assert state.step == 3
    assert sums.count == 7
    assert told == [0, 1, 2]
    assert_near((state.params, sums), (expected.params, expected_sums), rtol=1e-5, atol=1e-6)
    # Its memory went to the new state, so that a network is held once.
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start.params))


def test_what_is_frozen_is_never_used_up(programs, dataset):
    index_SB = cut_batches(INDEX, 3)
    whole = init()
    trained = {name: leaf for name, leaf in whole.params.items() if name != "lstm"}
    frozen = {"lstm": copy(whole.params["lstm"])}
    start = dataclasses.replace(
        whole, params=trained, frozen=frozen, opt_state=jax.jit(TX.init)(trained), step=whole.step
    )
    state, _ = programs.train_epoch(start, dataset, index_SB)
    state, _ = programs.train_epoch(state, dataset, index_SB)
    assert state.step == 6
    for leaf, kept in zip(
        jax.tree.leaves(frozen), jax.tree.leaves(init_once().params["lstm"]), strict=True
    ):
        np.testing.assert_array_equal(leaf, kept)
    assert state.frozen["lstm"] is not None
    assert programs.evaluate(state.variables, dataset, index_SB).count == 7


@pytest.mark.device
def test_same_epoch_twice_gives_the_same_bits(programs, dataset):
    index_SB = cut_batches(INDEX, 3)
    (one, _), (two, _) = (programs.train_epoch(init(), dataset, index_SB) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def test_training_learns_a_handful_of_clips_by_heart(programs, dataset):
    state = init()
    for _ in range(60):
        state, sums = programs.train_epoch(state, dataset, cut_batches(INDEX, 3))
    assert compute_accuracy(sums) == 1


@pytest.mark.device
def test_evaluation_and_prediction_agree_whatever_the_batch_size(programs, dataset):
    variables = init().variables
    mask_BT = np.arange(T)[None] < np.asarray(dataset.frames_B)[:, None]
    apply = jax.jit(functools.partial(MODEL.apply, train=False))
    expected_BC = apply(variables, dataset.x_BTF, mask_BT)
    expected_BC = np.asarray(expected_BC)[INDEX]
    label_B = np.asarray(dataset.label_B)[INDEX]
    confusion_CC = compute_confusion(N_CLASSES, label_B, expected_BC.argmax(1))
    log_sum_B = np.log(np.exp(expected_BC).sum(1))
    loss = (log_sum_B - expected_BC[np.arange(7), label_B]).sum()
    for batch_size in (3, 7):
        index_SB = cut_batches(INDEX, batch_size)
        logits_BC = programs.predict(variables, dataset, index_SB)
        assert isinstance(logits_BC, np.ndarray)
        assert logits_BC.shape == (index_SB.size, N_CLASSES)
        assert_near(logits_BC[:7], expected_BC, atol=1e-5)
        sums = programs.evaluate(variables, dataset, index_SB)
        assert_near(sums.loss, loss, rtol=1e-5)
        assert sums.count == 7
        np.testing.assert_array_equal(sums.confusion_CC, confusion_CC)


# Eight devices, in a process of their own.

NETWORKS = ["cnn plain", "lstm masked", "cnn_lstm masked"]


@pytest.fixture(scope="module")
def layouts() -> dict[str, Any]:
    """What tests/layouts.py finds of each network."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.layouts", *NETWORKS],
        env=simulate_devices(8), cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.cpu_only("simulates eight devices")
@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_layout_gives_the_parameters_statistics_and_sums_of_one_device(network, layouts):
    gaps = layouts[network]["gaps"]
    moved = [gap for name, gap in gaps.items() if name.startswith("moved")]
    assert min(moved) > 1e-3  # there was something to differ in
    others = {name: gap for name, gap in gaps.items() if not name.startswith("moved")}
    assert len(others) == 5 * 4
    assert max(others.values()) < 1e-5, others


@pytest.mark.cpu_only("simulates eight devices")
@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_training_step_lowers_for_tpu_and_cuda(network, layouts):
    lowered = layouts[network]["lowered"]
    assert len(lowered) == 6
    assert all(platforms == ["tpu", "cuda"] for platforms in lowered.values())


@pytest.mark.cpu_only("simulates eight devices")
@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_layout_compiles_each_of_its_programs_once(network, layouts):
    compiled = layouts[network]["compiled"]
    assert len(compiled) == 6
    assert set(compiled.values()) == {3}, compiled  # training, in parts as well, and evaluation
