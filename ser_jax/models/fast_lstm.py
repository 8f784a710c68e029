"""The LSTM's recurrence with its gradient by hand: the same numbers as the scan, sooner.

Automatic differentiation of a scan forms a weight gradient in every step and stacks what it must
remember. Here the steps hold nothing but the recurrent product; the gradients of all weights are
one product each over all steps, and one buffer holds in turn what enters the gates, the gates,
and their gradients.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def _take(x_T: jax.Array, t: jax.Array) -> jax.Array:
    return lax.dynamic_index_in_dim(x_T, t, keepdims=False)


def _put(x_T: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    return lax.dynamic_update_index_in_dim(x_T, x, t, 0)


def sum_products(a_TBI: jax.Array, b_TBJ: jax.Array) -> jax.Array:
    """The sum over frames and rows of all outer products: float32 [I, J]."""
    axes = (((0, 1), (0, 1)), ((), ()))
    return lax.dot_general(a_TBI, b_TBJ, axes, preferred_element_type=jnp.float32)


def append_ones(x_TBF: jax.Array) -> jax.Array:
    """A feature that is always one: its weights are the bias, which needs no pass of its own."""
    return jnp.concatenate([x_TBF, jnp.ones_like(x_TBF[..., :1])], axis=-1)


def _run(
    x_TBF: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    recurrent: jax.Array,
    mask_TB: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    """The last state [B, H]; gates i, f, g, o [T, B, 4H]; c and h [T, B, H] before each frame."""
    H, dtype = recurrent.shape[0], x_TBF.dtype
    # sigmoid(z) = tanh(z / 2) / 2 + 1 / 2: all four gates are then one vectorised tanh.
    scale = jnp.full((1, 4 * H), 0.5).at[:, 2 * H : 3 * H].set(1)
    shift = 1 - scale
    weights = jnp.concatenate([kernel, bias[None]])
    z_TB4H = jnp.matmul(append_ones(x_TBF), weights, preferred_element_type=jnp.float32)

    def step(t: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        c_BH, h_BH, gates_TB4H, c_TBH, h_TBH = carry
        z_B4H = jnp.matmul(h_BH, recurrent, preferred_element_type=jnp.float32)
        gates_B4H = jnp.tanh(scale * (_take(gates_TB4H, t) + z_B4H)) * scale + shift
        i, f, g, o = jnp.split(gates_B4H, 4, axis=-1)
        new_c_BH = f * c_BH + i * g
        new_h_BH = (o * jnp.tanh(new_c_BH)).astype(dtype)
        keep_B1 = _take(mask_TB, t)[:, None]
        return (
            jnp.where(keep_B1, new_c_BH, c_BH),
            jnp.where(keep_B1, new_h_BH, h_BH),
            _put(gates_TB4H, gates_B4H, t),
            _put(c_TBH, c_BH, t),
            _put(h_TBH, h_BH, t),
        )

    zeros_TBH = jnp.zeros_like(z_TB4H[..., :H])
    carry = (zeros_TBH[0], zeros_TBH[0].astype(dtype), z_TB4H, zeros_TBH, zeros_TBH.astype(dtype))
    _, h_BH, gates_TB4H, c_TBH, h_TBH = lax.fori_loop(0, x_TBF.shape[0], step, carry)
    return h_BH, (gates_TB4H, c_TBH, h_TBH)


@jax.custom_vjp
def run_lstm(
    x_TBF: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    recurrent: jax.Array,
    mask_TB: jax.Array,
) -> jax.Array:
    """The state [B, H] of an LSTM after the last real frame.

    Gates and cell are float32; products are taken in the type of `x_TBF` and added in float32.

    Args:
      x_TBF: features.
      kernel: [F, 4H], gates in Keras' order i, f, g, o.
      bias: [4H].
      recurrent: [H, 4H].
      mask_TB: True for real frames; the others leave the state alone.
    """
    return _run(x_TBF, kernel, bias, recurrent, mask_TB)[0]


def _forward(x_TBF, kernel, bias, recurrent, mask_TB):  # type: ignore[no-untyped-def]
    h_BH, saved = _run(x_TBF, kernel, bias, recurrent, mask_TB)
    return h_BH, (x_TBF, kernel, recurrent, mask_TB, *saved)


def _backward(residuals, dh_BH, dh_TBH=None):  # type: ignore[no-untyped-def]
    # dh_TBH: gradients of the states after all frames, where these were returned.
    x_TBF, kernel, recurrent, mask_TB, gates_TB4H, c_TBH, h_TBH = residuals
    T, dtype = x_TBF.shape[0], x_TBF.dtype
    transposed = recurrent.T  # once, not in every step

    def step(n: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        dc_BH, dh_BH, gates_B4H, dz_TB4H = carry
        t = T - 1 - n
        c_BH, keep_B1 = _take(c_TBH, t), _take(mask_TB, t)[:, None]
        i, f, g, o = jnp.split(gates_B4H, 4, axis=-1)
        tanh_c_BH = jnp.tanh(f * c_BH + i * g)
        if dh_TBH is not None:
            dh_BH = dh_BH + _take(dh_TBH, t).astype(jnp.float32)
        new_dc_BH = dc_BH + dh_BH * o * (1 - tanh_c_BH**2)
        dz_B4H = jnp.concatenate(
            [
                new_dc_BH * g * i * (1 - i),
                new_dc_BH * c_BH * f * (1 - f),
                new_dc_BH * i * (1 - g**2),
                dh_BH * tanh_c_BH * o * (1 - o),
            ],
            axis=-1,
        )
        dz_B4H = jnp.where(keep_B1, dz_B4H, 0)
        new_dh_BH = jnp.matmul(dz_B4H.astype(dtype), transposed, preferred_element_type=jnp.float32)
        dz_TB4H = _put(dz_TB4H, dz_B4H, t)
        return (
            jnp.where(keep_B1, new_dc_BH * f, dc_BH),
            jnp.where(keep_B1, new_dh_BH, dh_BH),
            # Read ahead out of the new buffer: a reader of the old one makes XLA copy it whole.
            _take(dz_TB4H, jnp.maximum(t - 1, 0)),
            dz_TB4H,
        )

    dh_BH = dh_BH.astype(jnp.float32)
    carry = (jnp.zeros_like(dh_BH), dh_BH, gates_TB4H[-1], gates_TB4H)
    dz_TB4H = lax.fori_loop(0, T, step, carry)[-1].astype(dtype)
    d_weights = sum_products(append_ones(x_TBF), dz_TB4H).astype(dtype)
    d_recurrent = sum_products(h_TBH, dz_TB4H).astype(dtype)
    return dz_TB4H @ kernel.T, d_weights[:-1], d_weights[-1], d_recurrent, None


run_lstm.defvjp(_forward, _backward)


@jax.custom_vjp
def run_lstm_sequence(
    x_TBF: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    recurrent: jax.Array,
    mask_TB: jax.Array,
) -> jax.Array:
    """The states [T, B, H] after every frame; see `run_lstm`. Padding repeats the state before."""
    return _forward_sequence(x_TBF, kernel, bias, recurrent, mask_TB)[0]


def _forward_sequence(x_TBF, kernel, bias, recurrent, mask_TB):  # type: ignore[no-untyped-def]
    h_BH, residuals = _forward(x_TBF, kernel, bias, recurrent, mask_TB)
    before_TBH = residuals[-1]
    return jnp.concatenate([before_TBH[1:], h_BH[None]]), residuals


def _backward_sequence(residuals, dh_TBH):  # type: ignore[no-untyped-def]
    return _backward(residuals, jnp.zeros_like(dh_TBH[0]), dh_TBH)


run_lstm_sequence.defvjp(_forward_sequence, _backward_sequence)
