"""What is switched on by numbers in the state: alone, in a grid, on shards and on a mesh."""

import functools
import json
import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax.config import AugmentConfig, TrainConfig, override
from ser_jax.features.batching import PADDING, Batch, Dataset, take
from ser_jax.features.normaliser import Normaliser
from ser_jax.training.layouts import Layout
from ser_jax.training.losses import compute_soft_losses
from ser_jax.training.optimizer import make_optimizer
from ser_jax.training.programs import make_programs
from ser_jax.training.state import init_state, list_numbers
from ser_jax.training.step import train_step
from tests.new_process import ROOT, simulate_devices
from tests.tolerance import assert_near

N_CLASSES, T, F, N_CLIPS = 3, 12, 6, 24
SGD = make_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.5))
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "label_smoothing": [{"train.label_smoothing": x} for x in (0.1, 0.3)],
    "mixup": [{"train.mixup": x} for x in (0.2, 2.0)],
    "focal_gamma": [{"train.focal_gamma": x} for x in (0.5, 3.0)],
    "average_decay": [{"train.average_decay": x} for x in (0.1, 0.9)],
    "time_masks": [{"augment.time_masks": 2, "augment.time_mask_frames": x} for x in (3, 8)],
    "band_masks": [{"augment.band_masks": 1, "augment.band_mask_bands": x} for x in (2, 5)],
    "feature_shift_frames": [{"augment.feature_shift_frames": x} for x in (2, 5)],
    "time_warp": [{"augment.time_warp": x} for x in (0.1, 0.3)],
    "band_warp": [{"augment.band_warp": x} for x in (0.1, 0.3)],
}
"""Each setting, at two values that one program trains."""
BOTH = [{k: v for runs in SETTINGS.values() for k, v in runs[row].items()} for row in (0, 1)]


class Tiny(nn.Module):
    """Logits of a hidden layer, averaged over real frames; with running statistics."""

    @nn.compact
    def __call__(self, x_BTF, mask_BT, *, train, dropout=0.0):
        del dropout
        mean = self.variable("batch_stats", "mean", jnp.zeros, ())
        if train and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * jnp.square(x_BTF).mean()
        h_BTF = jnp.tanh(nn.Dense(4)(x_BTF)) * mask_BT[..., None]
        return nn.Dense(N_CLASSES, name="logits")(h_BTF.sum(axis=1) / T)


TINY: Any = Tiny()


def make_dataset() -> Dataset:
    rng = np.random.default_rng(0)
    frames_B = rng.integers(T // 2, T + 1, N_CLIPS)
    label_B = rng.integers(0, N_CLASSES, N_CLIPS).astype(np.int32)
    x_BTF = rng.standard_normal((N_CLIPS, T, F)) + label_B[:, None, None] * np.linspace(-1, 1, F)
    normaliser: list[Any] = [np.zeros(F, np.float32), np.ones(F, np.float32)]
    arrays: list[Any] = [x_BTF.astype(np.float32), frames_B.astype(np.int32), label_B]
    draw: Any = np.ones((), np.int32)
    dataset = Dataset(*arrays, Normaliser(*normaliser), draw)  # pyright: ignore[reportCallIssue]
    return jax.device_put(dataset)


def take_rows(index_B: Any) -> Batch:
    return _take(make_dataset(), np.asarray(index_B, np.int32))


_take: Any = jax.jit(take)
INDEX_SB = np.array([[5, 1, 9, 3, 2, 7, 11, 4], [0, 6, 8, 10, 12, *[PADDING] * 3]])


def init(changes: dict[str, Any], seed: int = 0) -> Any:
    train, augment = (
        override(part, {k.partition(".")[2]: v for k, v in changes.items() if k.startswith(name)})
        for name, part in (("train", TrainConfig()), ("augment", AugmentConfig()))
    )
    return init_state(
        TINY, SGD, seed=seed, n_frames=T, n_features=F, dropout=0.0,
        numbers=list_numbers(train, augment),
    )  # fmt: skip


@functools.cache
def make_step(n_parts: int = 1) -> Any:
    return jax.jit(functools.partial(train_step, model=TINY, tx=SGD, accumulate=n_parts))


def run_epoch(state: Any) -> Any:
    """Parameters, statistics, and what is evaluated, after both steps; the sums of each."""

    def step(state: Any, index_B: jax.Array) -> Any:
        return train_step(state, take(make_dataset(), index_B), model=TINY, tx=SGD)

    state, sums = jax.lax.scan(step, state, jnp.asarray(INDEX_SB))
    return (state.params, state.batch_stats, state.variables), sums


run_alone: Any = jax.jit(run_epoch)


def assert_close(found: Any, expected: Any, atol: float = 1e-6) -> None:
    assert_near(found, expected, rtol=1e-5, atol=atol, why="cudnn")


def find_gap(a: Any, b: Any) -> float:
    """Greatest difference, of large numbers relative to them."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(x - y) / np.maximum(np.abs(y), 1))) for x, y in pairs)


@pytest.mark.device
def test_runs_of_other_values_share_a_program_and_equal_each_alone():
    states = [init(changes, seed) for seed, changes in enumerate(BOTH)]

    @jax.jit
    def run_both(*states: Any) -> Any:
        return jax.vmap(run_epoch)(jax.tree.map(lambda *x: jnp.stack(x), *states))

    found = jax.device_get(run_both(*states))
    for row, state in enumerate(states):
        assert_close(jax.tree.map(lambda x, r=row: x[r], found), run_alone(state))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_value_of_each_setting_counts(name):
    (_, _, one), _ = run_alone(init(BOTH[0] | SETTINGS[name][0]))
    n_programs = run_alone._cache_size()
    (_, _, other), _ = run_alone(init(BOTH[0] | SETTINGS[name][1]))
    assert find_gap(one, other) > 1e-4
    assert run_alone._cache_size() == n_programs


def test_loss_of_a_step_is_that_of_smoothed_labels():
    batch = take_rows(INDEX_SB[1])
    state = init({"train.label_smoothing": 0.3})
    _, sums = make_step()(state, batch)

    @jax.jit
    def compute_expected(variables: Any, batch: Batch) -> jax.Array:
        logits_BC = TINY.apply(variables, batch.x_BTF, batch.mask_BT, train=False)
        target_BC = 0.7 * jax.nn.one_hot(batch.label_B, N_CLASSES) + 0.1
        return compute_soft_losses(logits_BC, target_BC)[:5].sum()

    expected = compute_expected(state.variables, batch)
    assert_near(sums.loss, expected, rtol=1e-5, why="cudnn")
    assert sums.count == 5


def test_evaluation_takes_the_averages_and_training_leaves_them_alone():
    (params, _, variables), sums = run_alone(init({"train.average_decay": 0.99}))
    (plain, plain_stats, _), plain_sums = run_alone(init({}))
    assert_close((params, sums), (plain, plain_sums))
    # By hand: after the first step 9 of 11 parts new, after the second 9 of 12.
    start, one = init({}), init({})
    batch = take_rows(INDEX_SB[0])
    one, _ = make_step()(one, batch)
    expected = jax.tree.map(
        lambda a, b, c: 3 / 12 * (2 / 11 * a + 9 / 11 * b) + 9 / 12 * c,
        *jax.device_get((
            start.variables, one.variables, {"params": plain, "batch_stats": plain_stats}
        )),
    )  # fmt: skip
    assert_close(variables, expected)


def test_averages_without_warm_up_are_optaxs():
    state: Any = init({"train.average_decay": 0.1})  # from the first step on
    expected = state.params
    for index_B in INDEX_SB:
        state, _ = make_step()(state, take_rows(index_B))
        params, expected = jax.device_get((state.params, expected))
        expected = optax.incremental_update(params, expected, 0.9)
    assert_close(state.average["params"], expected)


# Shards and devices.


def test_rows_are_mixed_within_their_shard_alone():
    """Equal rows do not change by mixing; those of the two shards would change each other."""
    shards = [jax.device_get(take_rows([clip] * 8)) for clip in (0, 1)]
    batches = jax.tree.map(lambda *x: np.stack(x), *shards)
    step = functools.partial(train_step, model=TINY, tx=SGD, axis_name="data")
    mapped = jax.jit(jax.vmap(step, in_axes=(None, 0), axis_name="data"))
    states_and_sums: Any = (
        mapped(init(changes), batches) for changes in ({"train.mixup": 5.0}, {})
    )
    found, expected = (
        jax.tree.map(lambda x: np.asarray(x)[0], (states.params, sums))
        for states, sums in states_and_sums
    )
    assert_close(found, expected)


def test_rows_are_mixed_within_their_part_alone():
    batch = take_rows([0, 1] * 4)  # every other row: one clip
    step = make_step(2)
    (found, found_sums), (expected, expected_sums) = (
        step(init(changes), batch) for changes in ({"train.mixup": 5.0}, {})
    )
    assert_close((found.params, found_sums), (expected.params, expected_sums))


@pytest.mark.cpu_only("simulates four devices")
def test_a_mesh_of_four_devices_gives_the_step_of_one():
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.test_step_settings"], env=simulate_devices(4),
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["moved"] > 1e-2
    assert found["gap"] < 1e-6


def compare_devices() -> dict[str, float]:
    """How far a mesh is from one device with everything on; a program of its own, see above."""
    jax.config.update("jax_numpy_rank_promotion", "raise")
    found: dict[str, Any] = {}
    for mode in ("jit", "mesh"):
        layout = Layout(mode, False, tuple(jax.devices()) if mode == "mesh" else ())
        programs = make_programs(TINY, SGD, n_classes=N_CLASSES, layout=layout)
        state, sums = programs.train_epoch(init(BOTH[0]), make_dataset(), INDEX_SB)
        scores = programs.evaluate(state.variables, make_dataset(), INDEX_SB)
        learned = state.params, state.batch_stats, state.average
        found[mode] = jax.device_get((learned, sums, scores))
    moved = find_gap(found["jit"][0][0], init({}).params)
    return {"moved": moved, "gap": find_gap(found["mesh"], found["jit"])}


if __name__ == "__main__":
    json.dump(compare_devices(), sys.stdout)
