"""Layers that all networks share: masks, dropout, initial values, the head.

`mask_BT` is True for real frames everywhere. A row without a real frame only fills up the batch;
no statistic includes it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig

Initializer = Callable[..., jax.Array]

KERNEL_INITS: dict[str, Initializer] = {
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "he_uniform": nn.initializers.he_uniform(),
    "lecun_normal": nn.initializers.lecun_normal(),
    "orthogonal": nn.initializers.orthogonal(),
}
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "elu": nn.elu,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}


def broadcast_mask(mask: jax.Array, x: jax.Array) -> jax.Array:
    """`mask` [B, T] with axes of size one appended, up to the rank of `x` [B, T, ...]."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


def zero_padding(x: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """`x` [B, T, ...] with padding set to zero: a convolution reads beyond the end of a clip."""
    return jnp.where(broadcast_mask(mask_BT, x), x, 0)


def halve_mask(mask_BT: jax.Array) -> jax.Array:
    """Mask after pooling by two: a pooled frame is real if both of its frames are.

    The first frame of a row with any real frame stays real, so that even the shortest clip counts.
    """
    T = mask_BT.shape[1] // 2
    halved_BT = mask_BT[:, : 2 * T].reshape(mask_BT.shape[0], T, 2).all(axis=-1)
    return halved_BT.at[:, 0].set(mask_BT.any(axis=1))


def keep_rows(mask_BT: jax.Array) -> jax.Array:
    """Whole rows: every frame of a row that has a real frame counts as real."""
    return jnp.broadcast_to(mask_BT.any(axis=1, keepdims=True), mask_BT.shape)


def average_frames(h_BTH: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """[B, T, H] to the mean [B, H] over real frames, float32; a row without any gives zeros."""
    h_BTH = jnp.where(broadcast_mask(mask_BT, h_BTH), h_BTH.astype(jnp.float32), 0)
    return h_BTH.sum(axis=1) / jnp.maximum(mask_BT.sum(axis=1, keepdims=True), 1)


def draw_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Independent random bits for each element, uint32, from the element's number and two seeds.

    An integer hash mixes a counter with the seeds, twice ('lowbias32' of C. Wellons' hash
    prospector). XLA fuses it into whatever uses the bits, so they are never stored, as
    Threefry's 20 rounds would be. It works element by element, so sharding changes nothing.
    """

    def mix(x: jax.Array) -> jax.Array:
        x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
        x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
        return x ^ (x >> 16)

    seeds = jax.random.bits(key, (2,), jnp.uint32)
    number = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        place = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        number = number * jnp.uint32(shape[axis]) + place
    return mix(mix(number ^ seeds[0]) + seeds[1])


def drop(x: jax.Array, rate: jax.Array | float, key: jax.Array) -> jax.Array:
    """Inverted dropout whose `rate` may be traced, so that a grid can sweep it in one program.

    The upper 24 random bits of each element decide, so the rate is exact to 2 ** -24.
    """
    rate = jnp.asarray(rate, jnp.float32)
    keep = (draw_bits(key, x.shape) >> 8) >= jnp.round(rate * 2**24).astype(jnp.uint32)
    return jnp.where(keep, x * (1 / (1 - rate)).astype(x.dtype), jnp.zeros((), x.dtype))


class Head(nn.Module):
    """Fully connected layers, then one logit per class, in float32."""

    dense: Sequence[int]
    n_classes: int
    activation: str
    kernel_init: Initializer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BH: jax.Array) -> jax.Array:
        """[B, H] to logits [B, C]."""
        for index, units in enumerate(self.dense):
            layer = nn.Dense(
                units, kernel_init=self.kernel_init, dtype=self.dtype, name=f"dense_{index}"
            )
            x_BH = ACTIVATIONS[self.activation](layer(x_BH))
        logits = nn.Dense(
            self.n_classes, kernel_init=self.kernel_init, dtype=self.dtype, name="logits"
        )
        return logits(x_BH).astype(jnp.float32)


def make_head(config: ModelConfig, n_classes: int, dtype: jnp.dtype) -> Head:
    """The head that the network's settings describe."""
    kernel_init = KERNEL_INITS[config.kernel_init]
    return Head(config.dense, n_classes, config.activation, kernel_init, dtype)
