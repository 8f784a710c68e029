"""SpecAugment: bands and stretches of time of normalised features are set to the training mean."""

import jax
import jax.numpy as jnp

from ser_jax.augment.keys import make_threefry
from ser_jax.batching import Batch


def mask_time(batch: Batch, key: jax.Array, frames_n: jax.Array) -> Batch:
    """A batch with n stretches of each row's real frames set to 0, which is the training mean.

    Args:
      batch: features after normalisation.
      key: of this batch; a row's draws follow from it and the row's number.
      frames_n: greatest width of each mask in frames; widths are uniform from 0 to it.

    Source: Park et al. 2019, 'SpecAugment'; time warping is `warping`'s.
    """
    first_B1 = batch.mask_BT.argmax(axis=1)[:, None]
    length_B1 = batch.mask_BT.sum(axis=1)[:, None]
    masked_BT = draw_masks(key, first_B1, length_B1, frames_n, batch.mask_BT.shape[1])
    return batch.replace(x_BTF=jnp.where(masked_BT[:, :, None], 0, batch.x_BTF))  # pyright: ignore


def mask_bands(batch: Batch, key: jax.Array, bands_n: jax.Array) -> Batch:
    """A batch with n stretches of each row's features set to 0; otherwise as `mask_time`."""
    B, _, F = batch.x_BTF.shape
    first_B1 = jnp.zeros((B, 1), jnp.int32)
    masked_BF = draw_masks(key, first_B1, first_B1 + F, bands_n, F)
    return batch.replace(x_BTF=jnp.where(masked_BF[:, None, :], 0, batch.x_BTF))  # pyright: ignore


def draw_masks(
    key: jax.Array, first_B1: jax.Array, length_B1: jax.Array, most_n: jax.Array, size: int
) -> jax.Array:
    """Where any of n masks lies, bool [B, size].

    Each is as wide as drawn from 0 to `most_n` or as there is room, and lies anywhere within the
    `length_B1` places from `first_B1` on.
    """
    u_2Bn = jax.random.uniform(make_threefry(key), (2, len(first_B1), len(most_n)))
    # A rounded product may reach the next whole number.
    width_Bn = jnp.minimum(jnp.floor(u_2Bn[0] * (most_n[None] + 1)), most_n[None])
    width_Bn = jnp.minimum(jnp.floor(width_Bn), length_B1)
    room_Bn = length_B1 - width_Bn
    start_Bn = first_B1 + jnp.minimum(jnp.floor(u_2Bn[1] * (room_Bn + 1)), room_Bn)
    place_S = jnp.arange(size, dtype=jnp.float32)[None, None, :]
    start_Bn1, end_Bn1 = start_Bn[..., None], (start_Bn + width_Bn)[..., None]
    return ((place_S >= start_Bn1) & (place_S < end_Bn1)).any(axis=1)
