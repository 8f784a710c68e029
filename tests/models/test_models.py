"""Keras' initial values, batch norm and dropout by hand, and padding that changes nothing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.config import ModelConfig, override
from ser_jax.models.layers import drop, halve_mask, keep_rows
from ser_jax.systems.networks import NETWORKS, make_model
from tests.tolerance import assert_near

N_CLASSES, N_FEATURES = 4, 8
KEY = jax.random.key(0)
SMALL = {
    "channels": (4, 6), "hidden": 8, "dense": (5,), "dropout": 0.0, "head_width": 2,
    "scales": (4, 8), "layers": 1,
}  # fmt: skip


def make_config(**changes: Any) -> ModelConfig:
    return override(ModelConfig(), changes)


def make_random(config, n_frames=12):
    """A network with random weights and statistics, quicker than its own initial values."""
    model = make_model(config, N_CLASSES)
    x_BTF, mask_BT = jnp.zeros((1, n_frames, N_FEATURES)), jnp.ones((1, n_frames), bool)
    shapes = jax.eval_shape(lambda: model.init(KEY, x_BTF, mask_BT, train=False))
    rng = np.random.default_rng(0)

    def draw_leaf(path, leaf):
        centre = path[-1] in ("scale", "var")
        return np.float32(rng.uniform(-0.5, 0.5, leaf.shape) + centre)

    leaves = {path: draw_leaf(path, leaf) for path, leaf in list_leaves(shapes).items()}
    return model, traverse_util.unflatten_dict(leaves)


def list_leaves(tree: Any) -> dict[tuple[str, ...], Any]:
    return dict(traverse_util.flatten_dict(tree))


def make_mask(lengths, n_frames):
    return jnp.arange(n_frames)[None, :] < jnp.asarray(lengths)[:, None]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Initial values


@functools.cache
def init_leaves(name, **changes):
    sizes = {
        "channels": (32, 48), "hidden": 64, "dense": (96,), "scales": (6, 12), "head_width": 16,
        "layers": 1,
    }  # fmt: skip
    config = make_config(name=name, **sizes, **changes)
    model = make_model(config, N_CLASSES)
    init = jax.jit(functools.partial(model.init, train=False))
    return list_leaves(init(KEY, jnp.zeros((1, 12, 40)), jnp.ones((1, 12), bool)))


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_are_glorot_uniform_as_kerass(name):
    for path, kernel in init_leaves(name).items():
        if path[-1] != "kernel" or "recurrent" in path:
            continue
        *window, n_in, n_out = kernel.shape
        limit = np.sqrt(6 / (np.prod(window) * (n_in + n_out)))
        assert np.abs(kernel).max() <= limit, path
        assert np.abs(kernel).max() > 0.97 * limit, path
        assert np.std(kernel) == pytest.approx(limit / np.sqrt(3), rel=0.1), path
        assert abs(np.mean(kernel)) < 0.1 * limit, path


@pytest.mark.parametrize("name", ["lstm", "cnn_lstm"])
def test_recurrent_kernel_is_orthogonal(name):
    kernel = init_leaves(name)["params", "lstm", "cell", "recurrent", "kernel"]
    assert kernel.shape == (64, 256)
    assert_near(kernel @ kernel.T, np.eye(64), atol=1e-5, why="cudnn")


@pytest.mark.parametrize("name", NETWORKS)
def test_biases_are_zero_but_the_forget_gates_which_is_one(name):
    biases = {path: leaf for path, leaf in init_leaves(name).items() if path[-1] == "bias"}
    assert biases
    for path, bias in biases.items():
        expected = np.zeros(bias.shape)
        if path[-2] == "input":  # of an LSTM
            n = len(bias) // 4
            expected[n : 2 * n] = 1.0  # Keras orders the gates input, forget, cell, output
        np.testing.assert_array_equal(bias, expected)


def test_batch_norm_starts_as_the_identity_and_the_convolutions_have_no_bias():
    leaves = init_leaves("cnn")
    for index in (0, 1):
        norm = ("stack", f"block_{index}", "norm")
        np.testing.assert_array_equal(leaves["params", *norm, "scale"], 1)
        np.testing.assert_array_equal(leaves["batch_stats", *norm, "mean"], 0)
        np.testing.assert_array_equal(leaves["batch_stats", *norm, "var"], 1)
        assert ("params", "stack", f"block_{index}", "conv", "bias") not in leaves


def test_initial_values_follow_their_settings():
    leaves = init_leaves(
        "lstm", kernel_init="he_uniform", recurrent_init="glorot_uniform", forget_bias=0.5
    )
    kernel = leaves["params", "lstm", "input", "kernel"]
    assert np.abs(kernel).max() == pytest.approx(np.sqrt(6 / 40), rel=0.02)
    recurrent = leaves["params", "lstm", "cell", "recurrent", "kernel"]
    assert np.abs(recurrent).max() == pytest.approx(np.sqrt(6 / (64 + 256)), rel=0.02)
    np.testing.assert_array_equal(leaves["params", "lstm", "input", "bias"][64:128], 0.5)


# Batch norm


def test_momentum_and_epsilon_of_batch_norm_are_settings():
    x, mask_BT = draw(2, 8, N_FEATURES), make_mask((8, 8), 8)
    kept = {}
    small = SMALL | {"channels": (4,)}
    for momentum, epsilon in [(0.99, 1e-3), (0.5, 1e-3), (0.99, 10.0)]:
        norm = {"norm_momentum": momentum, "norm_epsilon": epsilon}
        config = make_config(name="cnn", **small, **norm)
        model, variables = make_random(config, n_frames=8)
        apply: Any = functools.partial(model.apply, train=True, mutable=["batch_stats"])
        logits_BC, updated = jax.jit(apply)(variables, x, mask_BT, rngs={"dropout": KEY})
        mean = updated["batch_stats"]["stack"]["block_0"]["norm"]["mean"]
        kept[momentum, epsilon] = np.asarray(logits_BC), np.asarray(mean)
    (logits_BC, mean), (_, mean_half), (logits_smooth_BC, _) = kept.values()
    old = np.asarray(variables["batch_stats"]["stack"]["block_0"]["norm"]["mean"])
    assert_near(mean_half - 0.5 * old, 50 * (mean - 0.99 * old), rtol=1e-3, why="cudnn")
    assert np.abs(logits_BC - logits_smooth_BC).max() > 1e-3


# Dropout


def test_dropout_drops_its_share_and_scales_the_rest():
    x = np.abs(draw(500, 401)) + 1
    y = np.asarray(drop(jnp.asarray(x), 0.2, KEY))
    kept = y != 0
    n = x.size
    assert abs(kept.mean() - 0.8) < 5 * np.sqrt(0.2 * 0.8 / n)
    assert_near(y[kept], x[kept] / 0.8, rtol=1e-6)
    first, second = kept.ravel()[: n // 2], kept.ravel()[n // 2 :][: n // 2]
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(n // 2)
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 5 / np.sqrt(n // 2)


def test_dropout_at_rate_zero_is_the_identity():
    x = jnp.asarray(draw(7, 33))
    np.testing.assert_array_equal(drop(x, 0.0, KEY), x)
    np.testing.assert_array_equal(jax.jit(drop)(x, 0.0, KEY), x)


@pytest.mark.device
def test_dropout_at_a_traced_rate_equals_dropout_at_that_number():
    x = jnp.asarray(draw(31, 9))
    rates, keys = jnp.float32([0.0, 0.2, 0.7]), jax.random.split(KEY, 3)
    mapped = jax.jit(jax.vmap(drop, in_axes=(None, 0, 0)))(x, rates, keys)
    for y, rate, key in zip(mapped, (0.0, 0.2, 0.7), keys, strict=True):
        assert_near(y, drop(x, rate, key), rtol=1e-6)
        assert (np.asarray(y) == 0).mean() == pytest.approx(rate, abs=0.1)


def test_dropout_follows_its_key_and_keeps_the_type():
    x = jnp.ones((64,), jnp.bfloat16)
    y = drop(x, 0.5, KEY)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, drop(x, 0.5, KEY))
    assert np.any(np.asarray(y != drop(x, 0.5, jax.random.key(1))))


@pytest.mark.parametrize(("name", "has_dropout"), [("cnn", True), ("lstm", False)])
def test_dropout_acts_in_training_alone(name, has_dropout):
    model, variables = make_random(make_config(name=name, **SMALL), n_frames=8)
    x_BTF, mask_BT = draw(2, 8, N_FEATURES), make_mask((8, 8), 8)

    @functools.partial(jax.jit, static_argnames="train")
    def apply(rate, key, train):
        return model.apply(
            variables, x_BTF, mask_BT, train=train, dropout=rate, rngs={"dropout": key},
            mutable=["batch_stats"],
        )[0]  # fmt: skip

    other = jax.random.key(1)
    changed = np.any(np.asarray(apply(0.5, KEY, True) != apply(0.5, other, True)))
    assert changed == has_dropout
    np.testing.assert_array_equal(apply(0.0, KEY, True), apply(0.0, other, True))
    np.testing.assert_array_equal(apply(0.5, KEY, False), apply(0.0, other, False))


# Masks


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_pooled_mask_keeps_whole_pairs_and_every_row(lengths):
    halved_BT = np.asarray(halve_mask(make_mask(lengths, 9)))
    expected = [max(n // 2, min(n, 1)) for n in lengths]
    np.testing.assert_array_equal(halved_BT, make_mask(expected, 4))


def test_whole_rows_are_kept_where_padding_is_not_masked():
    kept_BT = keep_rows(make_mask((3, 0, 1), 3))
    np.testing.assert_array_equal(kept_BT, [[True] * 3, [False] * 3, [True] * 3])


# Padding

MASKED = [("cnn", "mean"), ("lstm", "flatten"), ("cnn_lstm", "flatten")]
LENGTHS = (12, 9, 3, 1)  # one that is odd, and two that are shorter than two poolings need


@functools.cache
def make_logits_fn(name, pool, masked):
    """Evaluation and training logits, and batch statistics, of a padded batch."""
    config = make_config(name=name, cnn_pool=pool, mask_padding=masked, **SMALL)
    model, variables = make_random(config)

    @jax.jit
    def compute(x_BTF, mask_BT):
        logits_BC = model.apply(variables, x_BTF, mask_BT, train=False)
        trained = model.apply(
            variables, x_BTF, mask_BT, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )
        return logits_BC, trained

    return compute


@pytest.mark.device
@pytest.mark.parametrize(("name", "pool"), MASKED)
def test_padding_does_not_change_logits_of_masked_networks(name, pool):
    compute = make_logits_fn(name, pool, True)
    x_BTF = draw(4, 12, N_FEATURES) * make_mask(LENGTHS, 12)[..., None]
    expected = compute(x_BTF, make_mask(LENGTHS, 12))
    padded_BTF = jnp.pad(x_BTF, ((0, 0), (0, 5), (0, 0)))
    found = compute(padded_BTF, make_mask(LENGTHS, 12 + 5))
    assert_near(found, expected, atol=1e-5, why="cudnn")


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("name", "pool"), [*MASKED, ("cnn", "flatten")])
def test_what_lies_under_the_mask_matters_only_where_it_is_not_masked(name, pool, masked):
    compute = make_logits_fn(name, pool, masked)
    mask_BT = make_mask(LENGTHS, 12)
    x_BTF, other_BTF = draw(4, 12, N_FEATURES), 5 * draw(4, 12, N_FEATURES, seed=1)
    logits_BC, trained = compute(x_BTF, mask_BT)
    found_BC, found = compute(jnp.where(mask_BT[..., None], x_BTF, other_BTF), mask_BT)
    if masked:
        assert_near(found_BC, logits_BC, atol=1e-5, why="cudnn")
        assert_near(found, trained, atol=1e-5, why="cudnn")
    else:
        assert_near(found_BC[0], logits_BC[0], atol=1e-5, why="cudnn")
        assert np.all(np.abs(found_BC - logits_BC)[1:].max(axis=1) > 1e-3)


# Types


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_logits_stay_float32_at_bfloat16(name):
    model = make_model(make_config(name=name, **SMALL), N_CLASSES, dtype="bfloat16")
    x_BTF, mask_BT = jnp.zeros((3, 12, N_FEATURES)), make_mask((12, 8, 4), 12)
    init = functools.partial(model.init_with_output, train=False)
    shapes = jax.eval_shape(init, KEY, x_BTF, mask_BT)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@pytest.mark.device
def test_logits_at_bfloat16_are_near_those_at_float32_and_not_equal():
    config = make_config(name="cnn_lstm", **SMALL)
    model, variables = make_random(config)
    half = make_model(config, N_CLASSES, dtype="bfloat16")
    x_BTF, mask_BT = draw(3, 12, N_FEATURES), make_mask((12, 8, 4), 12)
    logits_BC = jax.jit(functools.partial(model.apply, train=False))(variables, x_BTF, mask_BT)
    half_BC = jax.jit(functools.partial(half.apply, train=False))(variables, x_BTF, mask_BT)
    np.testing.assert_allclose(half_BC, logits_BC, atol=0.05)
    assert np.any(np.asarray(half_BC != logits_BC))
