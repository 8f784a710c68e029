"""Pooling of 2 x 2 cells, by the sign of the gain that comes after it.

Batch norm is affine per channel and its gain has a sign. So pooling may come before it: a maximum
where the gain is positive, a minimum where it is negative. Everything after it works on a quarter
of the numbers, and automatic differentiation of it too.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.models.fast.channel_scaling import along_last

Cells = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
"""The four members of each 2 x 2 cell, row by row."""


def choose(cells: Cells) -> jax.Array:
    """Number of the largest member of each cell, int8; the first one of equals."""
    best, index = cells[0], jnp.zeros(cells[0].shape, jnp.int8)
    for number, member in enumerate(cells[1:], start=1):
        index = jnp.where(member > best, jnp.int8(number), index)
        best = jnp.maximum(best, member)
    return index


def maximise(cells: Cells) -> jax.Array:
    """The largest member of each cell."""
    return jnp.maximum(jnp.maximum(cells[0], cells[1]), jnp.maximum(cells[2], cells[3]))


@jax.custom_vjp
def store(x: jax.Array, number: jax.Array) -> jax.Array:
    """`x` itself, as an array that XLA on CPU stores before anything uses it.

    Else it would be computed anew for each use, and element by element where the use is a
    transposition: ten times the work. XLA on CPU drops optimisation barriers, but keeps a
    conditional whose outcome it cannot know. Elsewhere this is nothing.

    Args:
      x: any array.
      number: any scalar that is not constant; a parameter is the same on all devices.
    """

    def pass_through(x: jax.Array, number: jax.Array) -> jax.Array:
        never = number * number < -1
        return jax.lax.cond(never, jnp.zeros_like, lambda x: x, x)

    return jax.lax.platform_dependent(x, number, cpu=pass_through, default=lambda x, _: x)


def _store_backward(number: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    # XLA on GPU would merge what made the gradient into the sums over it, which then take ten times
    # as long: their kernel is cut for adding up.
    stored = jax.lax.platform_dependent(
        g, cpu=lambda g: g, default=lambda g: jax.lax.optimization_barrier(g)
    )
    return stored, jnp.zeros_like(number)


store.defvjp(lambda x, number: (store(x, number), number), _store_backward)


def cut_cells(y_BTFC: jax.Array, sign_C: jax.Array) -> Cells:
    """Cells of `sign * y`; an odd last row or column is dropped."""
    B, T, F, C = y_BTFC.shape
    y = y_BTFC[:, : T // 2 * 2, : F // 2 * 2].reshape(B, T // 2, 2, F // 2, 2, C)
    a, b, c, d = (y[:, :, i, :, j] * along_last(sign_C) for i in range(2) for j in range(2))
    return a, b, c, d


@jax.custom_vjp
def pool_by_sign(y_BTFC: jax.Array, sign_C: jax.Array) -> jax.Array:
    """Over 2 x 2 cells the maximum where `sign` is 1, the minimum where it is -1.

    Args:
      y_BTFC: [B, T, F, C].
      sign_C: 1 or -1, of the type of `y_BTFC`; its gradient is 0.

    Returns:
      [B, T // 2, F // 2, C].
    """
    return maximise(cut_cells(y_BTFC, sign_C)) * along_last(sign_C)


def _pool_forward(y_BTFC: jax.Array, sign_C: jax.Array) -> tuple[jax.Array, Any]:
    return pool_by_sign(y_BTFC, sign_C), (y_BTFC, sign_C)


def _pool_backward(residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    y_BTFC, sign_C = residuals
    B, T, F, C = y_BTFC.shape
    index = store(choose(cut_cells(y_BTFC, sign_C)), sign_C[0])
    number = jnp.arange(4, dtype=jnp.int8).reshape(1, 1, 2, 1, 2, 1)
    spread = jnp.where(index[:, :, None, :, None] == number, g[:, :, None, :, None], 0)
    spread = spread.reshape(B, T // 2 * 2, F // 2 * 2, C)
    return jnp.pad(spread, ((0, 0), (0, T % 2), (0, F % 2), (0, 0))), jnp.zeros_like(sign_C)


pool_by_sign.defvjp(_pool_forward, _pool_backward)
