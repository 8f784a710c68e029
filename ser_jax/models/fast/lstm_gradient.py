"""The LSTM's recurrence with its gradient by hand: the same numbers as the scan, sooner.

Automatic differentiation of a scan forms a weight gradient in every step and stacks what it must
remember. Here the steps hold nothing but the recurrent product; the gradients of all weights are
one product each over all steps, and one buffer holds in turn what enters the gates, the gates,
and their gradients.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def _take(x_T: jax.Array, t: jax.Array) -> jax.Array:
    return lax.dynamic_index_in_dim(x_T, t, keepdims=False)


def _put(x_T: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    return lax.dynamic_update_index_in_dim(x_T, x, t, 0)


def _append_ones(x_TBF: jax.Array) -> jax.Array:
    """A feature that is always one: its weights are the bias, which needs no pass of its own."""
    return jnp.concatenate([x_TBF, jnp.ones_like(x_TBF[..., :1])], axis=-1)


def project(x_TBF: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """What the input gives to the gates in all frames, float32 [T, B, 4H]: one product."""
    weights = jnp.concatenate([kernel, bias[None]])
    return jnp.matmul(_append_ones(x_TBF), weights, preferred_element_type=jnp.float32)


def differentiate_turn(
    gates: Sequence[jax.Array], c_BH: jax.Array, dc_BH: jax.Array, dh_BH: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradient of c before a turn [B, H], and that of what entered its gates [B, 4H].

    Args:
      gates: i, f, g, o [B, H].
      c_BH: the cell before the turn.
      dc_BH, dh_BH: gradients that come from later turns.
    """
    i, f, g, o = gates
    tanh_c_BH = jnp.tanh(f * c_BH + i * g)
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
    return new_dc_BH * f, dz_B4H


def pull_back(
    dz_TB4H: jax.Array, x_TBF: jax.Array, kernel: jax.Array, h_TBH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Gradients of input, kernel, bias and recurrent kernel: one product each over all frames.

    Args:
      dz_TB4H: the gradient of what entered the gates, in the type of the products.
      x_TBF, kernel: of `project`.
      h_TBH: the state before each frame.
    """

    def sum_products(a_TBI: jax.Array) -> jax.Array:
        axes = (((0, 1), (0, 1)), ((), ()))
        total = lax.dot_general(a_TBI, dz_TB4H, axes, preferred_element_type=jnp.float32)
        return total.astype(dz_TB4H.dtype)

    d_weights = sum_products(_append_ones(x_TBF))
    return dz_TB4H @ kernel.T, d_weights[:-1], d_weights[-1], sum_products(h_TBH)


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
    z_TB4H = project(x_TBF, kernel, bias)

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def run_lstm(
    x_TBF: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    recurrent: jax.Array,
    mask_TB: jax.Array,
    return_sequence: bool = False,
) -> jax.Array:
    """The state [B, H] of an LSTM after the last real frame, or the states [T, B, H] after each.

    Gates and cell are float32; products are taken in the type of `x_TBF` and added in float32.

    Args:
      x_TBF: features.
      kernel: [F, 4H], gates in Keras' order i, f, g, o.
      bias: [4H].
      recurrent: [H, 4H].
      mask_TB: True for real frames; the others leave the state alone, and repeat it.
      return_sequence: which of the two.
    """
    return _forward(x_TBF, kernel, bias, recurrent, mask_TB, return_sequence)[0]


def _forward(x_TBF, kernel, bias, recurrent, mask_TB, return_sequence):  # type: ignore[no-untyped-def]
    h_BH, saved = _run(x_TBF, kernel, bias, recurrent, mask_TB)
    found = jnp.concatenate([saved[-1][1:], h_BH[None]]) if return_sequence else h_BH
    return found, (x_TBF, kernel, recurrent, mask_TB, *saved)


def _backward(return_sequence, residuals, dh):  # type: ignore[no-untyped-def]
    x_TBF, kernel, recurrent, mask_TB, gates_TB4H, c_TBH, h_TBH = residuals
    T, dtype = x_TBF.shape[0], x_TBF.dtype
    transposed = recurrent.T  # once, not in every step

    def step(n: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        dc_BH, dh_BH, gates_B4H, dz_TB4H = carry
        t = T - 1 - n
        c_BH, keep_B1 = _take(c_TBH, t), _take(mask_TB, t)[:, None]
        gates = jnp.split(gates_B4H, 4, axis=-1)
        if return_sequence:
            dh_BH = dh_BH + _take(dh, t).astype(jnp.float32)
        new_dc_BH, dz_B4H = differentiate_turn(gates, c_BH, dc_BH, dh_BH)
        dz_B4H = jnp.where(keep_B1, dz_B4H, 0)
        new_dh_BH = jnp.matmul(dz_B4H.astype(dtype), transposed, preferred_element_type=jnp.float32)
        dz_TB4H = _put(dz_TB4H, dz_B4H, t)
        return (
            jnp.where(keep_B1, new_dc_BH, dc_BH),
            jnp.where(keep_B1, new_dh_BH, dh_BH),
            # Read ahead out of the new buffer: a reader of the old one makes XLA copy it whole.
            _take(dz_TB4H, jnp.maximum(t - 1, 0)),
            dz_TB4H,
        )

    dh_BH = jnp.zeros(c_TBH.shape[1:]) if return_sequence else dh.astype(jnp.float32)
    carry = (jnp.zeros_like(dh_BH), dh_BH, gates_TB4H[-1], gates_TB4H)
    dz_TB4H = lax.fori_loop(0, T, step, carry)[-1].astype(dtype)
    return *pull_back(dz_TB4H, x_TBF, kernel, h_TBH), None


run_lstm.defvjp(_forward, _backward)
