"""The LSTM for GPUs: a scan whose turns are written out in blocks, and its gradient by hand.

What a turn computes is little; what a GPU spends on it is starting kernels. Here a turn is two
kernels forward, the recurrent product and everything else, and three backward: nothing is written
into one long buffer turn by turn, and no counter is kept between the turns of a block.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ser_jax.models.fast.lstm_gradient import differentiate_turn, project, pull_back

_WHOLE, _BLOCKS = 16, range(5, 12)
"""Turns up to which there is no loop at all, and how many a block may have: each of them costs
compile time."""


def choose_block(n_turns: int) -> int:
    """Turns of a block: those that leave the fewest over, which are compiled besides."""
    return n_turns if n_turns <= _WHOLE else max(_BLOCKS, key=lambda n: (-(n_turns % n), n))


def _scan(turn: Any, carry: Any, inputs: Any, *, reverse: bool = False) -> Any:
    n_turns = len(jax.tree.leaves(inputs)[0])
    return lax.scan(turn, carry, inputs, reverse=reverse, unroll=choose_block(n_turns))


def _run(
    x_TBF: jax.Array, kernel: jax.Array, bias: jax.Array, recurrent: jax.Array, mask_TB: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The last state [B, H]; gates i, f, g, o, and c and h before each frame: [T, B, H] each."""
    (B, H), dtype = (x_TBF.shape[1], recurrent.shape[0]), x_TBF.dtype

    def turn(carry: Any, inputs: Any) -> Any:
        (c_BH, h_BH), (z_B4H, mask_B) = carry, inputs
        z_B4H += jnp.matmul(h_BH, recurrent, preferred_element_type=jnp.float32)
        i, f, g, o = jnp.split(z_B4H, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        new_c_BH = f * c_BH + i * g
        new_h_BH = (o * jnp.tanh(new_c_BH)).astype(dtype)
        keep_B1 = mask_B[:, None]
        carry = (jnp.where(keep_B1, new_c_BH, c_BH), jnp.where(keep_B1, new_h_BH, h_BH))
        return carry, (i, f, g, o, c_BH, h_BH)

    zeros_BH, inputs = jnp.zeros((B, H)), (project(x_TBF, kernel, bias), mask_TB)
    (_, h_BH), saved = _scan(turn, (zeros_BH, zeros_BH.astype(dtype)), inputs)
    return h_BH, saved


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def run_unrolled_lstm(
    x_TBF: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    recurrent: jax.Array,
    mask_TB: jax.Array,
    return_sequence: bool = False,
) -> jax.Array:
    """The state [B, H] of an LSTM after the last real frame, or the states [T, B, H] after each.

    Arguments, types and rounding are those of `lstm_gradient.run_lstm`.
    """
    return _forward(x_TBF, kernel, bias, recurrent, mask_TB, return_sequence)[0]


def _forward(x_TBF, kernel, bias, recurrent, mask_TB, return_sequence):  # type: ignore[no-untyped-def]
    h_BH, saved = _run(x_TBF, kernel, bias, recurrent, mask_TB)
    found = jnp.concatenate([saved[-1][1:], h_BH[None]]) if return_sequence else h_BH
    return found, (x_TBF, kernel, recurrent, mask_TB, saved)


def _backward(return_sequence, residuals, dh):  # type: ignore[no-untyped-def]
    x_TBF, kernel, recurrent, mask_TB, (*gates_TBH, c_TBH, h_TBH) = residuals
    dtype, transposed = x_TBF.dtype, recurrent.T

    def turn(carry: Any, inputs: Any) -> Any:
        (dc_BH, dh_BH), (gates, c_BH, mask_B, *more) = carry, inputs
        dh_BH = dh_BH + more[0].astype(jnp.float32) if more else dh_BH
        new_dc_BH, dz_B4H = differentiate_turn(gates, c_BH, dc_BH, dh_BH)
        keep_B1 = mask_B[:, None]
        dz_B4H = jnp.where(keep_B1, dz_B4H, 0).astype(dtype)
        new_dh_BH = jnp.matmul(dz_B4H, transposed, preferred_element_type=jnp.float32)
        carry = (
            jnp.where(keep_B1, new_dc_BH, dc_BH),
            jnp.where(keep_B1, new_dh_BH, dh_BH),
        )
        return carry, dz_B4H

    dh_BH = jnp.zeros(c_TBH.shape[1:]) if return_sequence else dh.astype(jnp.float32)
    inputs = (gates_TBH, c_TBH, mask_TB, *((dh,) if return_sequence else ()))
    _, dz_TB4H = _scan(turn, (jnp.zeros_like(dh_BH), dh_BH), inputs, reverse=True)
    return *pull_back(dz_TB4H, x_TBF, kernel, h_TBH), None


run_unrolled_lstm.defvjp(_forward, _backward)
