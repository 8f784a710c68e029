"""The LSTM's forms: one parameter tree, the same numbers, on every platform and under every map."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import PartitionSpec

from ser_jax.models.fast.unrolled_lstm import choose_block
from ser_jax.models.recurrent import LSTM
from tests.tolerance import assert_near

B, T, F, H = 4, 7, 3, 5
KEY = jax.random.key(0)
FORMS = ("plain", "fast", "unrolled")
# Whole rows; rows of several lengths, one of them nothing but padding; holes.
MASKS = {
    "whole": np.ones((B, T), bool),
    "ragged": np.arange(T)[None, :] < np.array([7, 4, 1, 0])[:, None],
    "holes": np.random.default_rng(1).random((B, T)) < 0.5,
}


def make_lstm(form, dtype="float32"):
    init = nn.initializers.glorot_uniform()
    return LSTM(H, init, nn.initializers.orthogonal(), 1.0, jnp.dtype(dtype), form)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def make_params():
    shapes = jax.eval_shape(make_lstm("plain").init, KEY, draw(B, T, F), MASKS["whole"])
    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(tree, [draw(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


MADE = make_params()


def make_compute(form, dtype="float32", return_sequence=False):
    """(params, x, mask) -> last state [B, H], or all, and the gradients of a weighted sum of it."""
    lstm, weight = make_lstm(form, dtype), draw(B, *[T] * return_sequence, H, seed=9)

    def compute(params, x_BTF, mask_BT):
        def compute_loss(params, x_BTF):
            h: Any = lstm.apply(params, x_BTF, mask_BT, return_sequence=return_sequence)
            assert h.dtype == jnp.dtype(dtype)
            return (h * weight[: h.shape[0]]).sum(), h

        return jax.grad(compute_loss, argnums=(0, 1), has_aux=True)(params, x_BTF)

    return compute


@functools.cache
def jit_compute(form, dtype="float32"):
    return jax.jit(make_compute(form, dtype))


def assert_close(found, expected, atol=1e-5):
    assert_near(found, expected, atol=atol)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_starts_from_the_same_parameters(form):
    init = jax.jit(make_lstm(form).init)
    expected = jax.jit(make_lstm("plain").init)(KEY, draw(B, T, F), MASKS["whole"])
    assert_near(init(KEY, draw(B, T, F), MASKS["whole"]), expected, rtol=0)


@pytest.mark.device
@pytest.mark.parametrize("form", ["fast", "unrolled"])
@pytest.mark.parametrize("mask", MASKS)
def test_fast_forms_equal_the_scan_and_so_do_their_gradients(form, mask):
    arguments = MADE, draw(B, T, F), MASKS[mask]
    assert_close(jit_compute(form)(*arguments), jit_compute("plain")(*arguments))


def test_unrolled_form_has_no_loop_over_few_steps():
    shapes = MADE, draw(B, T, F), MASKS["whole"]
    assert "while" in jax.jit(make_compute("fast")).lower(*shapes).as_text()
    assert "while" not in jax.jit(make_compute("unrolled")).lower(*shapes).as_text()


@pytest.mark.device
@pytest.mark.parametrize("n_turns", [22, 23, 29])  # blocks of 11, and with one and two turns over
def test_unrolled_form_over_many_steps_is_a_loop_of_blocks_and_equals_the_scan(n_turns):
    mask_BT = np.arange(n_turns)[None, :] < np.array([n_turns, 13, 1, 0])[:, None]
    arguments = MADE, draw(B, n_turns, F), mask_BT
    assert "while" in jax.jit(make_compute("unrolled")).lower(*arguments).as_text()
    assert_close(jit_compute("unrolled")(*arguments), jit_compute("plain")(*arguments))


def test_blocks_leave_the_fewest_turns_over_and_are_the_largest_of_those():
    assert [choose_block(n) for n in (1, 16, 165, 83, 660)] == [1, 16, 11, 9, 11]


@pytest.mark.device
@pytest.mark.parametrize("form", ["fast", "unrolled"])
@pytest.mark.parametrize("mask", ["ragged", "holes"])
def test_all_states_and_their_gradients_equal_those_of_the_scan(form, mask):
    arguments = MADE, draw(B, T, F), MASKS[mask]
    found, expected = (
        jax.jit(make_compute(way, return_sequence=True))(*arguments) for way in (form, "plain")
    )
    assert_close(found, expected)
    last_BH = jit_compute("plain")(*arguments)[1]
    assert_near(expected[1][:, -1], last_BH, rtol=0)
    held_BT = ~MASKS[mask][:, 1:]
    np.testing.assert_array_equal(expected[1][:, 1:][held_BT], expected[1][:, :-1][held_BT])


@pytest.mark.device
def test_fast_form_at_bfloat16_keeps_its_types_and_is_as_near_float32_as_the_scan():
    arguments = MADE, draw(B, T, F), MASKS["ragged"]
    exact, plain, fast = (
        jit_compute(form, dtype)(*arguments)
        for form, dtype in (("plain", "float32"), ("plain", "bfloat16"), ("fast", "bfloat16"))
    )
    assert jax.tree.map(lambda leaf: leaf.dtype, fast) == jax.tree.map(
        lambda leaf: leaf.dtype, plain
    )

    def measure(found):
        errors = jax.tree.map(
            lambda a, b: np.abs(np.float32(a) - np.float32(b)).max(), found, exact
        )
        return np.asarray(jax.tree.leaves(errors))

    assert np.all(measure(fast) > 0)
    assert measure(fast).sum() < 1.2 * measure(plain).sum()


def stack_runs(n_runs):
    """Parameters, features and masks of several runs, on a leading axis."""
    params = jax.tree.map(lambda p: jnp.stack([p * (r + 1) / 2 for r in range(n_runs)]), MADE)
    x_RBTF = jnp.stack([draw(B, T, F, seed=r) for r in range(n_runs)])
    return params, x_RBTF, jnp.stack([MASKS["ragged"], MASKS["holes"]][:n_runs])


@pytest.mark.device
@pytest.mark.parametrize("over", ["vmap", "map"])
@pytest.mark.parametrize("form", ["plain", "fast"])
def test_runs_mapped_in_one_program_equal_runs_alone(form, over):
    compute, runs = make_compute(form), stack_runs(2)
    mapped = (
        jax.vmap(compute) if over == "vmap" else lambda *a: jax.lax.map(lambda r: compute(*r), a)
    )
    found = jax.jit(mapped)(*runs)
    for number in range(2):
        alone = jax.tree.map(lambda leaf, n=number: leaf[n], runs)
        expected = jit_compute("plain")(*alone)
        assert_close(jax.tree.map(lambda leaf, n=number: leaf[n], found), expected)


def shard(compute, layout):
    """`compute` with the batch laid on one device of a mesh, gradients added over devices."""

    def summed(params, x_BTF, mask_BT):
        (d_params, dx_BTF), h_BH = compute(params, x_BTF, mask_BT)
        return (jax.lax.psum(d_params, "data"), dx_BTF), h_BH

    P, mesh = PartitionSpec, jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,))
    if layout == "shard_map":
        rows = P("data")
        specs = {"in_specs": (P(), rows, rows), "out_specs": ((P(), rows), rows)}
        return jax.jit(jax.shard_map(summed, mesh=mesh, check_vma=False, **specs))
    if layout == "pmap":
        mapped = jax.pmap(summed, "data", in_axes=(None, 0, 0))
        return lambda params, *rows: jax.tree.map(
            lambda leaf: leaf[0], mapped(params, *(row[None] for row in rows))
        )
    shardings = [jax.NamedSharding(mesh, spec) for spec in (P(), P("data"), P("data"))]
    return jax.jit(compute, in_shardings=tuple(shardings))


@pytest.mark.parametrize("layout", ["mesh", "shard_map", "pmap"])
def test_fast_form_runs_under_every_layout_of_the_batch(layout):
    arguments = MADE, draw(B, T, F), jnp.asarray(MASKS["ragged"])
    found = shard(make_compute("fast"), layout)(*arguments)
    assert_close(found, jit_compute("plain")(*arguments))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("form", ["plain", "fast"])
def test_lstm_and_its_gradient_lower_for_accelerators(form, platform):
    lowered = export.export(jax.jit(make_compute(form)), platforms=[platform])
    assert lowered(MADE, draw(B, T, F), MASKS["whole"]).platforms == (platform,)
