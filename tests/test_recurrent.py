"""The LSTM's forms: one parameter tree, the same numbers, on every platform and under every map."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental import rnn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ser_jax.errors import UserError
from ser_jax.models import cudnn_lstm
from ser_jax.models.recurrent import LSTM

B, T, F, H = 4, 7, 3, 5
KEY = jax.random.key(0)
FORMS = ("plain", "fast", "cudnn")
# Whole rows; rows of several lengths, one of them nothing but padding; holes.
MASKS = {
    "whole": np.ones((B, T), bool),
    "ragged": np.arange(T)[None, :] < np.array([7, 4, 1, 0])[:, None],
    "holes": np.random.default_rng(1).random((B, T)) < 0.5,
}


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def cudnn_by_reference(monkeypatch):
    """cuDNN's LSTM as jax.experimental.rnn spells it out, from the same packed weights."""

    def run(x_BTF, h_0, c_0, weights, frames_B, n_in, hidden, layers, dropout, bidirectional):
        shape = (n_in, hidden, layers, bidirectional)
        unpacked = rnn.unpack_lstm_weights(weights, *shape)
        return rnn.lstm_ref(
            x_BTF, h_0, c_0, *unpacked, frames_B, n_in, hidden, layers, dropout, bidirectional
        )

    monkeypatch.setattr(cudnn_lstm.rnn, "lstm", run)
    monkeypatch.setattr(
        rnn.gpu_rnn, "compute_rnn_workspace_reserve_space_sizes", lambda *args: (1, 1), False
    )


def make_lstm(form, dtype="float32"):
    init = nn.initializers.glorot_uniform()
    return LSTM(H, init, nn.initializers.orthogonal(), 1.0, jnp.dtype(dtype), form)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@functools.cache
def make_params():
    shapes = jax.eval_shape(make_lstm("plain").init, KEY, draw(B, T, F), MASKS["whole"])
    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(tree, [draw(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


def make_compute(form, dtype="float32"):
    """(params, x, mask) -> last state [B, H], and the gradients of a weighted sum of it."""
    lstm, weight_BH = make_lstm(form, dtype), draw(B, H, seed=9)

    def compute(params, x_BTF, mask_BT):
        def compute_loss(params, x_BTF):
            h_BH = lstm.apply(params, x_BTF, mask_BT)
            assert h_BH.dtype == jnp.dtype(dtype)
            return (h_BH * weight_BH[: h_BH.shape[0]]).sum(), h_BH

        return jax.grad(compute_loss, argnums=(0, 1), has_aux=True)(params, x_BTF)

    return compute


@functools.cache
def jit_compute(form, dtype="float32"):
    return jax.jit(make_compute(form, dtype))


def assert_close(found, expected, atol=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=atol), found, expected)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_starts_from_the_same_parameters(form):
    init = jax.jit(make_lstm(form).init)
    expected = jax.jit(make_lstm("plain").init)(KEY, draw(B, T, F), MASKS["whole"])
    jax.tree.map(
        np.testing.assert_array_equal, init(KEY, draw(B, T, F), MASKS["whole"]), expected
    )


@pytest.mark.parametrize("mask", MASKS)
def test_fast_form_equals_the_scan_and_so_do_its_gradients(mask):
    arguments = make_params(), draw(B, T, F), MASKS[mask]
    assert_close(jit_compute("fast")(*arguments), jit_compute("plain")(*arguments))


@pytest.mark.parametrize("mask", MASKS)
def test_cudnn_form_equals_the_scan_and_so_do_its_gradients(mask, cudnn_by_reference):
    arguments = make_params(), draw(B, T, F), MASKS[mask]
    found = jax.jit(make_compute("cudnn"))(*arguments)
    assert_close(found, jit_compute("plain")(*arguments))
