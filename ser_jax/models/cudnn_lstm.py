"""The LSTM by cuDNN, on NVIDIA GPUs: weights and masks in cuDNN's layout."""

from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.errors import check
from ser_jax.jax_private import find_rnn, has_cudnn_rnn


def pack_weights(kernel: jax.Array, bias: jax.Array, recurrent: jax.Array) -> jax.Array:
    """Kernels [F, 4H] and [H, 4H] and bias [4H] as the one vector that cuDNN takes.

    Both have the gates in the order i, f, g, o. cuDNN's second bias, on the state, is zero.
    """
    parts = (kernel.T, recurrent.T, bias, jnp.zeros_like(bias))
    return jnp.concatenate([part.ravel() for part in parts]).astype(jnp.float32)


def run_cudnn_lstm(
    x_BTF: jax.Array, kernel: jax.Array, bias: jax.Array, recurrent: jax.Array, mask_BT: jax.Array,
    return_sequence: bool = False,
) -> jax.Array:  # fmt: skip
    """The state [B, H] of an LSTM after the last real frame, in the type of `x_BTF`.

    cuDNN computes in float32 (in TF32, as XLA does, unless `jax_default_matmul_precision` forbids
    it). It has no rule for `vmap`, and under `jit` on a mesh it runs whole on every device: use
    `lax.map`, `pmap` or `shard_map` there, or the fast form.

    Args:
      x_BTF: features.
      kernel: [F, 4H], gates in the order i, f, g, o.
      bias: [4H].
      recurrent: [H, 4H].
      mask_BT: True for real frames; the others leave the state alone.
      return_sequence: return the states [B, T, H] after every frame instead.

    Raises:
      UserError: this JAX has no cuDNN.
    """
    check(
        has_cudnn_rnn(),
        "LSTM form 'cudnn': this JAX has no cuDNN; install jax[cuda12], or use the form 'fast'",
    )
    # cuDNN reads the first n frames of a row, at least one: real frames are moved to the front,
    # and a row without any is given zeros, its state before the first frame.
    order_BT = jnp.argsort(~mask_BT, axis=1, stable=True)
    front_BTF = jnp.take_along_axis(x_BTF, order_BT[..., None], axis=1)
    frames_B = mask_BT.sum(axis=1, dtype=jnp.int32)
    zeros_1BH = jnp.zeros((1, x_BTF.shape[0], recurrent.shape[0]), jnp.float32)
    rnn: Any = find_rnn()
    states: Any = rnn.lstm(
        front_BTF.astype(jnp.float32), zeros_1BH, zeros_1BH, pack_weights(kernel, bias, recurrent),
        jnp.maximum(frames_B, 1), x_BTF.shape[-1], recurrent.shape[0], 1, 0.0, False,
    )  # fmt: skip
    if return_sequence:
        # The state after a frame is the one that the last real frame up to it left.
        passed_BT1 = jnp.cumsum(mask_BT, axis=1, dtype=jnp.int32)[..., None]
        h_BTH = jnp.take_along_axis(states[0], jnp.maximum(passed_BT1 - 1, 0), axis=1)
        return jnp.where(passed_BT1 > 0, h_BTH, 0).astype(x_BTF.dtype)
    return jnp.where(frames_B[:, None] > 0, states[1][0], 0).astype(x_BTF.dtype)
