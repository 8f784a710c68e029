"""What ViT and CvT share: attention over real keys, and the Transformer block around it.

Tokens stay on their grid [B, T, F, H]: T time steps, F frequency bands, H features. A time step is
real or padding in all of its bands, so masks stay [B, T].
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.models.layers import Initializer, drop

_WIDEN = 4
"""Ratio of the feed-forward width to the number of features, in both papers."""


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Multi-head scaled dot-product attention over real keys only.

    Source: Vaswani et al. 2017, 'Attention is all you need'.

    Args:
      q: queries [B, heads, queries, width].
      k, v: keys and values [B, heads, keys, width].
      mask: True for real keys [B, keys].

    Returns:
      [B, heads, queries, width]; zero in rows without a real key.
    """
    scores = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
    # Finite, so that a row without a real key gives numbers rather than NaN; they are zeroed below.
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - top).astype(v.dtype)
    # An extra value of one makes the same product sum the weights, by which the result is divided.
    # Dividing the small result, not the weights, saves up to half of the time on a CPU.
    ones = jnp.ones_like(v[..., :1])
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, jnp.concatenate([v, ones], axis=-1))
    mixed = mixed[..., :-1] / mixed[..., -1:]
    return jnp.where(mask.any(axis=1)[:, None, None, None], mixed, 0)


def attend_on_grid(
    q: jax.Array, k: jax.Array, v: jax.Array, mask_BT: jax.Array, head_width: int
) -> jax.Array:
    """`attend` over all tokens of a grid, with the last axis split into heads.

    Args:
      q: [B, T, F, H].
      k, v: [B, T', F', H], of this grid or a coarser one.
      mask_BT: [B, T'], of the keys.
      head_width: width of each head, which divides H.

    Returns:
      [B, T, F, H].
    """
    n_heads = q.shape[-1] // head_width

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1, n_heads, head_width).transpose(0, 2, 1, 3)

    mixed = attend(split(q), split(k), split(v), jnp.repeat(mask_BT, k.shape[2], axis=1))
    return mixed.transpose(0, 2, 1, 3).reshape(q.shape)


def gelu(x: jax.Array) -> jax.Array:
    """x times the standard normal CDF at x (Hendrycks and Gimpel 2016).

    Uses erf; `nn.gelu` uses erfc, which takes twice as long on a CPU.
    """
    return x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5))


class Block(nn.Module):
    """Norm and attention, then norm and two dense layers with GELU, each with a skip connection.

    Source: Dosovitskiy et al. 2021: pre-norm, with dropout after every dense layer except those of
    queries, keys and values.

    Attributes:
      make_attention: makes the module from tokens [B, T, F, H] and mask [B, T] to tokens.
      kernel_init: initial values of the dense kernels.
      dtype: type of the computation.
    """

    make_attention: Callable[..., nn.Module]
    kernel_init: Initializer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BTFH: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float
    ) -> jax.Array:
        """[B, T, F, H] to the same shape."""

        def norm(name: str, x: jax.Array) -> jax.Array:
            return nn.LayerNorm(dtype=self.dtype, name=name)(x)

        def dense(name: str, units: int, x: jax.Array) -> jax.Array:
            layer = nn.Dense(units, kernel_init=self.kernel_init, dtype=self.dtype, name=name)
            return layer(x)

        def maybe_drop(x: jax.Array) -> jax.Array:
            return drop(x, dropout, self.make_rng("dropout")) if train else x

        H = x_BTFH.shape[-1]
        attention: Any = self.make_attention(name="attention")
        h = attention(norm("norm_attention", x_BTFH), mask_BT, train=train)
        x_BTFH = x_BTFH + maybe_drop(h)
        h = dense("widen", _WIDEN * H, norm("norm_dense", x_BTFH))
        h = dense("narrow", H, maybe_drop(gelu(h)))
        return x_BTFH + maybe_drop(h)
