"""Layer norm with float32 statistics and a custom gradient."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def match_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """`vector` [H], reshaped and cast to broadcast against `x` [..., H]."""
    return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def norm_last(x: jax.Array, scale_H: jax.Array, bias_H: jax.Array, epsilon: float) -> jax.Array:
    """Layer norm over the last axis of `x` [..., H], float32.

    The gradient stores `x` in its own type and two numbers per row. From these XLA sums the
    gradients of scale and bias directly; otherwise it would first store their float32 summands.
    """
    return _norm_forward(x, scale_H, bias_H, epsilon)[0]


def _norm_forward(
    x: jax.Array, scale_H: jax.Array, bias_H: jax.Array, epsilon: float
) -> tuple[jax.Array, Any]:
    exact = x.astype(jnp.float32)
    mean = exact.mean(axis=-1, keepdims=True)
    variance = jnp.square(exact - mean).mean(axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = (exact - mean) * (inverse * match_last(scale_H, exact)) + match_last(bias_H, exact)
    return y, (x, mean, inverse, scale_H)


def _norm_backward(
    epsilon: float, saved: Any, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon
    x, mean, inverse, scale_H = jax.lax.optimization_barrier(saved)
    normed = (x.astype(jnp.float32) - mean) * inverse
    rows = tuple(range(x.ndim - 1))
    g_normed = g * match_last(scale_H, g)
    along = (g_normed * normed).mean(axis=-1, keepdims=True)
    g_x = inverse * (g_normed - g_normed.mean(axis=-1, keepdims=True) - normed * along)
    return g_x.astype(x.dtype), (g * normed).sum(axis=rows), g.sum(axis=rows)


norm_last.defvjp(_norm_forward, _norm_backward)


class LayerNorm(nn.Module):
    """Layer norm with the two-pass variance, in float32.

    Flax's subtracts the squared mean from the mean square, which loses precision if the mean is
    large; PyTorch's does not.
    """

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        normed: Any = norm_last(x, scale, bias, self.epsilon)
        return normed.astype(self.dtype)
