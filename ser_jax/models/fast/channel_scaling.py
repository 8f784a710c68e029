"""ELU, and a gain and a shift per channel: what follows a norm, with quick gradients on GPU."""

from typing import Any

import jax
import jax.numpy as jnp

MOST_ROWS = 512
"""What a block of threads of a GPU adds up."""


@jax.custom_jvp
def elu(x: jax.Array) -> jax.Array:
    """`nn.elu`, whose derivative needs `x` alone and so no further array to be kept."""
    return jnp.where(x > 0, x, jnp.expm1(jnp.minimum(x, 0)))


elu.defjvps(lambda tangent, _, x: tangent * jnp.exp(jnp.minimum(x, 0)))


def along_last(c_C: jax.Array) -> jax.Array:
    """One number per channel, as [1, 1, 1, C]."""
    return c_C[None, None, None]


@jax.custom_vjp
def scale_channels(x_BTFC: jax.Array, gain_C: jax.Array, shift_C: jax.Array) -> jax.Array:
    """`gain * x + shift` for each channel, whose gradients of gain and shift are quick on GPU."""
    return x_BTFC * along_last(gain_C) + along_last(shift_C)


def _scale_backward(residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_BTFC, gain_C = residuals
    return g * along_last(gain_C), _add_up(g * x_BTFC), _add_up(g)


scale_channels.defvjp(
    lambda x_BTFC, gain_C, shift_C: (scale_channels(x_BTFC, gain_C, shift_C), (x_BTFC, gain_C)),
    _scale_backward,
)


def _add_up(x_BTFC: jax.Array) -> jax.Array:
    """The sum over all axes but the last."""
    return jax.lax.platform_dependent(
        x_BTFC, cpu=lambda x_BTFC: x_BTFC.sum(axis=(0, 1, 2)), default=add_up_in_parts
    )


def add_up_in_parts(x_BTFC: jax.Array) -> jax.Array:
    """The sum over all axes but the last in two steps, of which the first has work for all of a
    GPU: where there are few channels, XLA's one step is a few blocks of threads."""
    B, T, F, C = x_BTFC.shape
    rows, parts = T * F, B
    while rows % 2 == 0 and rows > MOST_ROWS:
        rows, parts = rows // 2, parts * 2
    parts_PC = x_BTFC.reshape(parts, rows, C).sum(axis=1)
    return jax.lax.optimization_barrier(parts_PC).sum(axis=0)
