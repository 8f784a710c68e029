"""Convolution blocks: the fast form equals the plain one; batch norm by hand; pooling by sign."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from ser_jax.models.conv import ConvStack, MaskedBatchNorm, convolve
from ser_jax.models.fast.cell_pooling import pool_by_sign, store
from ser_jax.models.fast.channel_scaling import add_up_in_parts, elu, scale_channels
from ser_jax.models.fast.first_convolution import (
    compute_convolution_moments,
    convolve_and_pool,
    correlate_by_products,
    correlate_by_sums,
    cut_pool_windows,
    multiply_rows_in_parts,
)
from ser_jax.models.fast.im2col import convolve_by_product, convolve_by_rows
from tests.tolerance import assert_near

KEY = jax.random.key(0)
CHANNELS = (4, 6)
SHAPES = {"even": (16, 8), "odd": (13, 11)}
LENGTHS = {"full": (99, 99, 99, 99), "ragged": (99, 9, 1, 0), "padding": (0, 0, 0, 0)}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_mask(lengths, n_frames):
    return jnp.arange(n_frames)[None, :] < jnp.asarray(lengths)[:, None]


def make_stack(form, **changes):
    return ConvStack(CHANNELS, nn.initializers.glorot_uniform(), form=form, **changes)


@functools.cache
def init_variables(form="plain"):
    """Initial values, then gains of both signs and statistics unlike those of any batch."""
    init = functools.partial(make_stack(form).init, train=False, dropout=0.0)
    return jax.jit(init)(KEY, jnp.zeros((1, 16, 8)), jnp.ones((1, 16), bool))


@functools.cache
def make_variables():
    rng = np.random.default_rng(1)
    flat: Any = traverse_util.flatten_dict(init_variables())
    for path, leaf in flat.items():
        if "norm" in path:
            low = {"scale": -1.5, "var": 0.5}.get(path[-1], -0.5)
            flat[path] = rng.uniform(low, 1.5, leaf.shape).astype(np.float32)
    return traverse_util.unflatten_dict(flat)


def run_stack(stack, params, statistics, x_BTF, mask_BT, *, rate=0.3, train=True) -> Any:
    variables = {"params": params, "batch_stats": statistics}
    return stack.apply(
        variables, x_BTF, mask_BT, train=train, dropout=rate, rngs={"dropout": KEY},
        mutable=["batch_stats"],
    )  # fmt: skip


def differentiate(stack, params, statistics, x_BTF, mask_BT, **options) -> Any:
    """Outputs, statistics and gradients by parameters and input of a weighted sum of outputs."""

    def compute(params, x_BTF):
        (h_BTH, mask), updated = run_stack(stack, params, statistics, x_BTF, mask_BT, **options)
        h_BTH = jnp.where(mask[..., None], h_BTH, 0)
        weight = jnp.sin(jnp.arange(h_BTH[0].size, dtype=jnp.float32)).reshape(h_BTH.shape[1:])
        return (h_BTH * weight[None]).astype(jnp.float32).sum(), (h_BTH, updated)

    gradients, kept = jax.grad(compute, argnums=(0, 1), has_aux=True)(params, x_BTF)
    return gradients, kept


def assert_close(found, expected, atol=1e-4):
    assert_near(found, expected, atol=atol, why="cudnn")


def make_inputs(shape="even", lengths="ragged", seed=0):
    T, F = SHAPES[shape]
    return jnp.asarray(draw(4, T, F, seed=seed)), make_mask(LENGTHS[lengths], T)


# The fast form against the plain one


@pytest.mark.device
@pytest.mark.parametrize("form", ["fast", "im2col", "rows"])
def test_all_forms_begin_with_the_same_parameters_and_statistics(form):
    assert_near(init_variables(form), init_variables("plain"), rtol=0)


@functools.cache
def differentiate_both():
    return {
        form: jax.jit(functools.partial(differentiate, make_stack(form)))
        for form in ("plain", "fast")
    }


@pytest.mark.device
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_fast_form_gives_the_plain_ones_outputs_statistics_and_gradients(shape, lengths):
    variables, inputs = make_variables(), make_inputs(shape, lengths)
    plain, fast = (
        compute(variables["params"], variables["batch_stats"], *inputs)
        for compute in differentiate_both().values()
    )
    assert_close(fast, plain)
    if lengths != "padding":
        kernel = plain[0][0]["block_0"]["conv"]["kernel"]
        assert np.abs(kernel).max() > 0.1  # or else equal gradients would say nothing


@pytest.mark.device
def test_fast_form_evaluates_like_the_plain_one():
    variables, inputs = make_variables(), make_inputs("odd")
    run: Any = functools.partial(run_stack, train=False)
    plain, fast = (
        jax.jit(functools.partial(run, make_stack(form)))(
            variables["params"], variables["batch_stats"], *inputs
        )
        for form in ("plain", "fast")
    )
    assert_close(fast, plain, atol=1e-5)


@pytest.mark.device
def test_fast_form_at_bfloat16_is_near_the_plain_one():
    variables, inputs = make_variables(), make_inputs("even", "full")
    outputs = []
    for form in ("plain", "fast"):
        stack = make_stack(form, dtype=jnp.bfloat16)
        compute = jax.jit(functools.partial(differentiate, stack))
        outputs.append(compute(variables["params"], variables["batch_stats"], *inputs))
    (_, (plain, _)), (gradients, (fast, _)) = outputs
    assert fast.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(fast), np.float32(plain), atol=0.15)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients[0])} == {jnp.dtype("float32")}
    _, exact = differentiate_both()["plain"](variables["params"], variables["batch_stats"], *inputs)
    assert np.abs(np.float32(fast) - exact[0]).mean() < 0.02


@pytest.mark.device
@pytest.mark.parametrize("shape", [(2, 41, 10, 5), (3, 64, 40, 2), (1, 1, 1, 4)])
def test_gradients_of_gain_and_shift_are_those_of_the_plain_product(shape):
    rng = np.random.default_rng(0)
    x_BTFC, g, (gain_C, shift_C) = (rng.normal(size=n) for n in (shape, shape, (2, shape[-1])))
    arguments = [jnp.asarray(x, jnp.float32) for x in (x_BTFC, gain_C, shift_C)]
    found = jax.vjp(scale_channels, *arguments)[1](jnp.asarray(g, jnp.float32))
    expected = g * gain_C, (g * x_BTFC).sum((0, 1, 2)), g.sum((0, 1, 2))
    assert_near(found, expected, atol=1e-4)
    assert_near(add_up_in_parts(jnp.asarray(g, jnp.float32)), expected[2], atol=1e-4)


@pytest.mark.device
@pytest.mark.parametrize("form", ["fast", "im2col", "rows"])
def test_fast_forms_under_vmap_over_runs_equal_each_run_alone(form):
    variables, (x_BTF, mask_BT) = make_variables(), make_inputs("odd")
    runs = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.7 * leaf]), variables)
    x_RBTF = jnp.stack([x_BTF, x_BTF[::-1]])
    run_one = functools.partial(differentiate, make_stack(form))
    mapped = jax.jit(jax.vmap(run_one, in_axes=(0, 0, 0, None)))
    found = mapped(runs["params"], runs["batch_stats"], x_RBTF, mask_BT)
    for run in range(2):
        alone = jax.tree.map(lambda leaf, run=run: leaf[run], runs)
        expected = differentiate_both()["fast"](
            alone["params"], alone["batch_stats"], x_RBTF[run], mask_BT
        )
        assert_close(jax.tree.map(lambda leaf, run=run: leaf[run], found), expected)


@functools.cache
def differentiate_whole_and_sharded():
    whole: Any = functools.partial(differentiate, make_stack("fast"), rate=0.0)
    shard: Any = functools.partial(differentiate, make_stack("fast", axis_name="data"), rate=0.0)
    mapped = jax.vmap(shard, in_axes=(None, None, 0, 0), axis_name="data")
    return jax.jit(whole), jax.jit(mapped)


@pytest.mark.parametrize("lengths", ["ragged", "padding"])
def test_shards_of_a_batch_add_up_to_the_whole(lengths):
    """Rows on two devices, the second one's padding: sums forth and back run over both."""
    variables, (x_BTF, mask_BT) = make_variables(), make_inputs("odd", lengths)
    params, statistics = variables["params"], variables["batch_stats"]
    whole, sharded = differentiate_whole_and_sharded()
    expected = whole(params, statistics, x_BTF, mask_BT)
    (by_params, by_x), (h, updated) = sharded(
        params, statistics, x_BTF.reshape(2, 2, *x_BTF.shape[1:]), mask_BT.reshape(2, 2, -1)
    )
    by_params = jax.tree.map(lambda leaf: leaf.sum(axis=0), by_params)
    assert_close((by_params, by_x.reshape(x_BTF.shape)), expected[0])
    assert_close(h.reshape(4, *h.shape[2:]), expected[1][0])
    assert_close(jax.tree.map(lambda leaf: leaf[1], updated), expected[1][1])


@pytest.mark.device
def test_fast_form_inside_a_scan_equals_it_outside():
    variables, (x_BTF, mask_BT) = make_variables(), make_inputs("even")
    params, statistics = variables["params"], variables["batch_stats"]
    compute = functools.partial(differentiate, make_stack("fast"), params, statistics)
    _, found = jax.lax.scan(lambda carry, x: (carry, compute(x, mask_BT)), 0, x_BTF[None])
    expected = differentiate_both()["fast"](params, statistics, x_BTF, mask_BT)
    assert_close(jax.tree.map(lambda leaf: leaf[0], found), expected, atol=1e-5)


# Its parts


@pytest.mark.device
@pytest.mark.parametrize("n", [1, 512, 1300])
def test_a_product_of_long_rows_is_the_same_in_parts(n):
    a, b = draw(2, 9, n), draw(2, 9, n, seed=1)  # of two runs side by side
    found = jax.vmap(multiply_rows_in_parts)(jnp.asarray(a), jnp.asarray(b))
    assert_near(found, np.einsum("rin,rjn->rij", a, b), rtol=1e-5, atol=1e-4)


@pytest.mark.device
@pytest.mark.parametrize(("mean", "std"), [(0, 1), (-400, 80)])
def test_moments_of_a_convolution_are_those_of_its_output(mean, std):
    """Raw features lie far from zero, where square sums of float32 alone would not do."""
    lengths, kernel = (40, 31, 0), draw(3, 3, 5, seed=1)
    mask_BT = np.asarray(make_mask(lengths, 40))
    x_BTF = (draw(3, 40, 20) * std + mean) * mask_BT[..., None]
    padded = np.pad(x_BTF, ((0, 0), (1, 1), (1, 1))).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    real = np.einsum("btfij,ijc->btfc", windows, kernel)[mask_BT].reshape(-1, 5)
    compute = jax.jit(functools.partial(compute_convolution_moments, axis_name=None))
    mean_C, var_C = compute(x_BTF, kernel, mask_BT)
    assert_near(mean_C, real.mean(0), rtol=1e-5, atol=1e-5 * std, why="cudnn")
    assert_near(var_C, real.var(0), rtol=1e-4, why="cudnn")


@pytest.mark.parametrize("shape", [(2, 6, 8), (1, 7, 5)])
def test_convolution_with_pooling_equals_the_two_apart(shape):
    x_BTF, kernel_33C = jnp.asarray(draw(*shape)), jnp.asarray(draw(3, 3, 4, seed=1))
    sign_C = jnp.asarray([1.0, -1.0, -1.0, 1.0])

    def apart(x_BTF, kernel_33C):
        return pool_by_sign(convolve(x_BTF[..., None], kernel_33C[:, :, None]), sign_C)

    found, pull_back = jax.vjp(lambda x, k: convolve_and_pool(x, k, sign_C), x_BTF, kernel_33C)
    expected, pull_back_apart = jax.vjp(apart, x_BTF, kernel_33C)
    assert_near(found, expected, atol=1e-5, why="cudnn")
    g = jnp.asarray(draw(*found.shape, seed=2))
    assert_close(pull_back(g), pull_back_apart(g), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 6, 8), (1, 7, 5)])
def test_kernels_gradient_is_the_same_as_sums_and_as_products(shape):
    """Sums are the form of accelerators, products that of CPU; here runs lie side by side too."""
    B, T, F = shape
    x_RBTF, rng = jnp.asarray(draw(2, *shape)), np.random.default_rng(1)
    index = jnp.asarray(rng.integers(0, 4, (2, B, T // 2, F // 2, 3)), jnp.int8)
    g = jnp.asarray(draw(*index.shape, seed=2))
    by_sums, by_products = (
        jax.jit(jax.vmap(lambda x, index, g, form=form: form(cut_pool_windows(x), index, g)))
        for form in (correlate_by_sums, correlate_by_products)
    )
    found, expected = by_sums(x_RBTF, index, g), by_products(x_RBTF, index, g)
    assert found.shape == (2, 3, 3, 3)
    assert_near(found, expected, atol=1e-5, why="cudnn")


@pytest.mark.parametrize("shape", [(2, 6, 8, 2), (1, 7, 5, 2)])
def test_pooling_by_sign_takes_maximum_or_minimum_and_sends_the_gradient_there(shape):
    y_BTFC, sign_C = jnp.asarray(draw(*shape)), jnp.asarray([1.0, -1.0])

    def pool(y_BTFC):
        y = y_BTFC * sign_C[None, None, None]
        return nn.max_pool(y, (2, 2), (2, 2)) * sign_C[None, None, None]

    found, pull_back = jax.vjp(lambda y: pool_by_sign(y, sign_C), y_BTFC)
    expected, pull_back_plain = jax.vjp(pool, y_BTFC)
    np.testing.assert_array_equal(found, expected)
    g = jnp.asarray(draw(*found.shape, seed=2))
    assert_close(pull_back(g), pull_back_plain(g), atol=0)


def test_gradient_of_equal_members_goes_to_the_first():
    _, pull_back = jax.vjp(lambda y: pool_by_sign(y, jnp.ones(1)), jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(pull_back(jnp.ones((1, 1, 1, 1)))[0].ravel(), [1, 0, 0, 0])


def test_elu_and_its_gradient_are_flaxs():
    x = jnp.concatenate([jnp.linspace(-20, 5, 101), jnp.asarray([0.0, 1e-6, -1e-6, 100, -100])])
    value, gradient = jax.vmap(jax.value_and_grad(elu))(x)
    expected, expected_gradient = jax.vmap(jax.value_and_grad(nn.elu))(x)
    assert_near(value, expected, rtol=1e-6)
    assert_near(gradient, expected_gradient, atol=1e-6)


def test_what_is_stored_is_the_same_whatever_the_number_and_so_is_its_gradient():
    x, numbers = jnp.asarray(draw(4, 5)), jnp.asarray([0.0, -2.0, jnp.inf, jnp.nan])
    for stored in (jax.vmap(store)(x, numbers), store(x, numbers[3])):
        np.testing.assert_array_equal(stored, x)
    gradient = jax.grad(lambda x: (store(x, numbers[2]) * x).sum())(x)
    np.testing.assert_array_equal(gradient, 2 * x)


@pytest.mark.device
@pytest.mark.parametrize("form", [convolve_by_product, convolve_by_rows])
def test_convolution_by_a_product_equals_xlas(form):
    x_BTFC, kernel = jnp.asarray(draw(2, 7, 6, 3)), jnp.asarray(draw(3, 3, 3, 5, seed=1))
    found, pull_back = jax.vjp(form, x_BTFC, kernel)
    expected, pull_back_plain = jax.vjp(convolve, x_BTFC, kernel)
    assert_near(found, expected, atol=1e-5, why="cudnn")
    g = jnp.asarray(draw(*found.shape, seed=2))
    assert_close(pull_back(g), pull_back_plain(g))


# Batch norm


def apply_norm(variables, x, mask_BT, **options) -> Any:
    return MaskedBatchNorm().apply(variables, jnp.asarray(x), mask_BT, **options)


@pytest.mark.parametrize("lengths", [(5, 5, 5), (5, 2, 0)])
def test_batch_norm_normalises_by_the_moments_of_real_frames(lengths):
    x, mask_BT = 3 * draw(3, 5, 4, 2) + 1, make_mask(lengths, 5)
    scale, bias, mean, var = np.array([[1.5, 0.5], [0.25, -1], [2, 3], [4, 5]], np.float32)
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }
    y, updated = apply_norm(variables, x, mask_BT, train=True, mutable=["batch_stats"])
    real = x[np.asarray(mask_BT)].reshape(-1, 2)
    expected = (x - real.mean(0)) / np.sqrt(real.var(0) + 1e-3) * scale + bias
    assert_near(y, expected, atol=1e-5, why="cudnn")
    new = updated["batch_stats"]
    assert_near(new["mean"], 0.99 * mean + 0.01 * real.mean(0), atol=1e-6, why="cudnn")
    assert_near(new["var"], 0.99 * var + 0.01 * real.var(0), atol=1e-5, why="cudnn")

    expected = (x - mean) / np.sqrt(var + 1e-3) * scale + bias
    assert_near(apply_norm(variables, x, mask_BT, train=False), expected, atol=1e-5, why="cudnn")


def test_batch_norm_of_nothing_but_padding_is_finite():
    x, mask_BT = jnp.asarray(draw(2, 3, 4, 2)), make_mask((0, 0), 3)
    variables = MaskedBatchNorm().init(KEY, x, mask_BT, train=False)
    found = apply_norm(variables, x, mask_BT, train=True, mutable=["batch_stats"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
