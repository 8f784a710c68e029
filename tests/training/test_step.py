"""A step against one computed by hand; rows that fill up and shards change nothing."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax.config import ModelConfig, TrainConfig, override
from ser_jax.features.batching import PADDING, Batch, Dataset, take
from ser_jax.features.normaliser import Normaliser
from ser_jax.systems.networks import make_model
from ser_jax.training.optimizer import make_optimizer
from ser_jax.training.state import init_state
from ser_jax.training.step import compute_losses, eval_step, predict_step, train_step
from tests.tolerance import assert_near

N_CLASSES, T, F = 3, 8, 4
# Plain gradient descent: Adam would hide a gradient that is wrong by a factor.
SGD = make_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.5))


class Linear(nn.Module):
    """Logits linear in the mean over frames, so that a gradient can be written down."""

    @nn.compact
    def __call__(self, x_BTF, mask_BT, *, train, dropout=0.0):
        del mask_BT, train, dropout
        return nn.Dense(N_CLASSES, use_bias=False, name="logits")(x_BTF.mean(axis=1))


LINEAR: Any = Linear()


LABEL_B = np.array([0, 2, 1, 1, 0, 2], np.int32)


@functools.cache
def take_all():
    """A batch of all six clips, and a row of padding at its end."""
    rng = np.random.default_rng(0)
    frames_B = np.array([8, 5, 3, 8, 6, 7])
    mask_BT = np.arange(T)[None, :] < frames_B[:, None]
    x_BTF = (rng.standard_normal((6, T, F)) * mask_BT[..., None]).astype(np.float32)
    normaliser: Any = Normaliser(np.zeros(F, np.float32), np.ones(F, np.float32))  # pyright: ignore
    dataset: Any = Dataset(x_BTF, frames_B, LABEL_B, normaliser, np.ones((), np.int32))  # pyright: ignore
    return jax.device_get(jax.jit(take)(dataset, np.array([*range(6), PADDING])))


def make_batch(*index) -> Batch:
    """These clips, as NumPy's arrays; `PADDING` is the last row."""
    return jax.tree.map(lambda leaf: leaf[list(index)], take_all())


def stack(*trees) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def make_small(name, masked=False, axis_name=None):
    changes = {"name": name, "mask_padding": masked, "channels": (3,), "hidden": 4, "dense": ()}
    return make_model(override(ModelConfig(), changes), N_CLASSES, axis_name=axis_name)


@functools.cache
def init(model, dropout=0.0, tx=SGD, seed=0):
    sizes: Any = {"n_frames": T, "n_features": F}
    return init_state(model, tx, seed=seed, dropout=dropout, **sizes)


@functools.cache
def make_step(model, n_parts=1) -> Any:
    return jax.jit(functools.partial(train_step, model=model, tx=SGD, accumulate=n_parts))


def assert_close(found, expected, atol=1e-6):
    assert_near(found, expected, rtol=1e-5, atol=atol, why="cudnn")


def learned(state):
    return state.params, state.batch_stats


def compute_softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_losses_are_cross_entropies():
    logits_BC = np.random.default_rng(0).standard_normal((4, N_CLASSES)).astype(np.float32)
    label_B = np.array([0, 2, 1, 1])
    expected = -np.log(compute_softmax(logits_BC)[np.arange(4), label_B])
    found = jax.jit(compute_losses)(logits_BC, label_B)
    assert_near(found, expected, rtol=1e-5, why="cudnn")


# One whole batch, and one with two rows that must not be divided by.
@pytest.mark.device
@pytest.mark.parametrize("index", [(0, 1, 2, 3, 4), (0, 1, 2, PADDING, PADDING)])
def test_step_of_gradient_descent_equals_one_by_hand(index):
    state, batch = init(LINEAR), make_batch(*index)
    n = sum(i != PADDING for i in index)
    x_BF, label_B = np.asarray(batch.x_BTF).mean(1)[:n], np.asarray(batch.label_B)[:n]
    kernel = np.asarray(state.params["logits"]["kernel"])
    probability_BC = compute_softmax(x_BF @ kernel)
    gradient = x_BF.T @ (probability_BC - np.eye(N_CLASSES)[label_B]) / n
    confusion_CC = np.zeros((N_CLASSES, N_CLASSES))
    np.add.at(confusion_CC, (label_B, probability_BC.argmax(1)), 1)

    new, sums = make_step(LINEAR)(state, batch)
    assert_near(
        new.params["logits"]["kernel"], kernel - 0.5 * gradient, rtol=1e-5, atol=1e-6, why="cudnn"
    )
    assert_near(
        sums.loss, -np.log(probability_BC[np.arange(n), label_B]).sum(), rtol=1e-5, why="cudnn"
    )
    assert sums.count == n
    np.testing.assert_array_equal(sums.confusion_CC, confusion_CC)
    assert new.step == 1
    np.testing.assert_array_equal(jax.random.key_data(new.key), jax.random.key_data(state.key))


def test_learning_rate_in_the_state_is_honoured():
    state, batch = init(LINEAR), make_batch(0, 1, 2)
    slower = optax.tree_utils.tree_set(state.opt_state, learning_rate=np.float32(0.125))
    step = make_step(LINEAR)
    fast, _ = step(state, batch)
    slow, _ = step(dataclasses.replace(state, opt_state=slower), batch)
    moved = jax.tree.map(np.subtract, fast.params, state.params)
    moved_less = jax.tree.map(np.subtract, slow.params, state.params)
    assert np.abs(moved["logits"]["kernel"]).max() > 1e-3
    assert_close(moved_less, jax.tree.map(lambda m: m / 4, moved))


@pytest.mark.device
@pytest.mark.parametrize(("name", "masked"), [("cnn", False), ("lstm", True), ("cnn_lstm", True)])
def test_rows_that_fill_up_change_neither_loss_nor_gradients_nor_statistics(name, masked):
    model = make_small(name, masked)
    state, step = init(model), make_step(model)
    expected, expected_sums = step(state, make_batch(0, 1, 2))
    filled = make_batch(0, PADDING, 1, 2, PADDING)
    found, sums = step(state, filled)
    assert_close(learned(found), learned(expected))
    assert_close(sums, expected_sums)
    # What stands in those rows has no say: not their numbers, not their class.
    junk_B = filled.weight_B[:, None, None] == 0
    junk = dataclasses.replace(
        filled,
        x_BTF=np.where(junk_B, np.float32(7), filled.x_BTF),
        label_B=np.where(filled.weight_B == 0, np.int32(1), filled.label_B),
    )
    found, sums = step(state, junk)
    assert_close(learned(found), learned(expected))
    assert_close(sums, expected_sums)


@pytest.mark.device
@pytest.mark.parametrize(("name", "masked"), [("cnn", False), ("cnn_lstm", True)])
def test_a_batch_in_ragged_shards_gives_the_step_of_the_whole(name, masked):
    whole = make_small(name, masked)
    sharded = make_small(name, masked, axis_name="data")
    state = init(whole)
    expected, expected_sums = make_step(whole)(state, make_batch(0, 1, 2))

    # The last shard holds nothing but padding.
    shards = [make_batch(0, 1), make_batch(2, PADDING), make_batch(PADDING, PADDING)]
    step = functools.partial(train_step, model=sharded, tx=SGD, axis_name="data")
    mapped = jax.vmap(step, in_axes=(None, 0), axis_name="data")
    states, sums = jax.jit(mapped)(state, stack(*shards))
    found_all = jax.device_get((learned(states), sums))
    for shard in range(3):
        found = jax.tree.map(lambda leaf, shard=shard: leaf[shard], found_all)
        assert_close(found, (learned(expected), expected_sums))


def test_each_part_of_a_batch_hands_its_statistics_to_the_next():
    model = make_small("cnn")
    state = init(model)
    found, sums = make_step(model, 2)(state, make_batch(*range(6)))
    carried = state
    for part in [(0, 2, 4), (1, 3, 5)]:  # every other row
        after, _ = make_step(model)(carried, make_batch(*part))
        carried = dataclasses.replace(state, batch_stats=after.batch_stats)
    assert_close(found.batch_stats, carried.batch_stats)
    assert sums.count == 6


def test_parts_that_only_fill_up_change_neither_gradients_nor_statistics():
    model = make_small("cnn")
    state, batch = init(model), make_batch(0, 1, *[PADDING] * 4)
    # The last of three parts is padding alone.
    (two, two_sums), (three, three_sums) = (make_step(model, n)(state, batch) for n in (2, 3))
    assert_close(learned(three), learned(two))
    assert_close(three_sums, two_sums)


def test_parts_draw_dropout_of_their_own():
    model = make_small("cnn")
    state = init(model, dropout=0.5)
    same_rows = make_batch(0, 0, 1, 1, 2, 2)  # both parts hold clips 0, 1 and 2
    whole, _ = make_step(model)(state, make_batch(0, 1, 2))
    found, _ = make_step(model, 2)(state, same_rows)
    again, _ = make_step(model, 2)(state, same_rows)
    jax.tree.map(np.testing.assert_array_equal, learned(found), learned(again))
    kernels = [s.params["head"]["logits"]["kernel"] for s in (whole, found)]
    assert np.any(np.asarray(kernels[0] != kernels[1]))


def test_a_batch_in_parts_gives_the_same_step_on_shards():
    whole, sharded = make_small("cnn"), make_small("cnn", axis_name="data")
    state = init(whole)
    expected = make_step(whole, 2)(state, make_batch(0, 1, 2, *[PADDING] * 3))
    # The last shard holds nothing but padding.
    shards = [make_batch(0, 1), make_batch(2, PADDING), make_batch(PADDING, PADDING)]
    step = functools.partial(train_step, model=sharded, tx=SGD, axis_name="data", accumulate=2)
    mapped = jax.vmap(step, in_axes=(None, 0), axis_name="data")
    states, sums = jax.jit(mapped)(state, stack(*shards))
    found_all = jax.device_get((learned(states), sums))
    for shard in range(3):
        found = jax.tree.map(lambda leaf, shard=shard: leaf[shard], found_all)
        assert_close(found, (learned(expected[0]), expected[1]))


@pytest.mark.device
def test_evaluation_adds_up_real_rows_over_shards():
    model = make_small("cnn")
    state = init(model)
    predict = jax.jit(functools.partial(predict_step, model=model))
    logits_BC = predict(state.variables, make_batch(0, 1, 2))
    label_B = LABEL_B[:3]
    expected_loss = np.asarray(jax.jit(compute_losses)(logits_BC, label_B)).sum()
    confusion_CC = np.zeros((N_CLASSES, N_CLASSES))
    np.add.at(confusion_CC, (label_B, np.asarray(logits_BC).argmax(1)), 1)

    shards = [make_batch(0, 1), make_batch(2, PADDING)]
    evaluate = functools.partial(eval_step, model=model, axis_name="data")
    mapped = jax.vmap(evaluate, in_axes=(None, 0), axis_name="data")
    sums = jax.jit(mapped)(state.variables, stack(*shards))
    assert_near(sums.loss, [expected_loss] * 2, rtol=1e-5, why="cudnn")
    np.testing.assert_array_equal(sums.count, [3, 3])
    np.testing.assert_array_equal(sums.confusion_CC, [confusion_CC] * 2)


@pytest.mark.device
def test_dropout_follows_from_state_and_step_number_alone():
    model = make_small("cnn")
    step = make_step(model)
    state, batch = init(model, dropout=0.5), make_batch(0, 1, 2, 3, 4)
    first, _ = step(state, batch)
    again, _ = step(state, batch)
    jax.tree.map(np.testing.assert_array_equal, learned(first), learned(again))
    changes = {
        "step": dataclasses.replace(state, step=np.asarray(state.step) + 1),
        "key": dataclasses.replace(state, key=jax.random.key(9)),
        "rate": dataclasses.replace(state, hyper={"dropout": np.float32(0.1)}),
    }
    for what, changed in changes.items():
        other, _ = step(changed, batch)
        kernels = [s.params["head"]["logits"]["kernel"] for s in (first, other)]
        assert np.any(np.asarray(kernels[0] != kernels[1])), what


@pytest.mark.device
def test_runs_stacked_along_an_axis_train_as_they_would_alone():
    model = make_small("cnn")
    batch = make_batch(0, 1, 2, PADDING, PADDING)
    runs = []
    for seed, dropout, rate in [(0, 0.0, 0.5), (1, 0.4, 0.1)]:
        state = init(model, dropout=dropout, seed=seed)
        opt_state = optax.tree_utils.tree_set(state.opt_state, learning_rate=np.float32(rate))
        runs.append(dataclasses.replace(state, opt_state=opt_state))
    step = functools.partial(train_step, model=model, tx=SGD)

    @jax.jit
    def run_both(*runs):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
        states, sums = jax.vmap(step, in_axes=(0, None))(stacked, batch)
        return learned(states), sums

    alone = make_step(model)
    found_both = jax.device_get(run_both(*runs))
    for number, run in enumerate(runs):
        expected, expected_sums = alone(run, batch)
        found = jax.tree.map(lambda leaf, n=number: leaf[n], found_both)
        assert_close(found, (learned(expected), expected_sums), atol=1e-5)
