"""Features shifted and rescaled along time and along their bands, by linear interpolation."""

import jax
import jax.numpy as jnp

from ser_jax.augment.keys import make_threefry
from ser_jax.batching import Batch


def move_time(
    batch: Batch,
    key: jax.Array,
    *,
    shift_frames: jax.Array | None = None,
    warp: jax.Array | None = None,
) -> Batch:
    """A batch whose rows are played faster or slower and begin earlier or later, each its own way.

    What comes in at an end repeats the frame there, a clip's silence or padding. Frames that come
    in before a clip count as real, so that masks stay those of the first so many frames.

    Args:
      batch: features after normalisation.
      key: of this batch; a row's draws follow from it and the row's number.
      shift_frames: rows are shifted by a whole number of frames, uniform to either side; None: 0.
      warp: rates are uniform from 1 - warp to 1 + warp; None: 1.
    """
    B, T, _ = batch.x_BTF.shape
    u_2B1 = jax.random.uniform(make_threefry(key), (2, B, 1))
    shift_B1 = _choose_whole(u_2B1[0], shift_frames) if shift_frames is not None else 0.0
    rate_B1 = _choose_rate(u_2B1[1], warp) if warp is not None else 1.0
    frame_T = jnp.arange(T, dtype=jnp.float32)[None]
    source_BT = jnp.clip((frame_T - shift_B1) * rate_B1, 0, T - 1)
    whole_BT = jnp.floor(source_BT).astype(jnp.int32)
    take = jax.vmap(lambda x_TF, index_T: x_TF[index_T])  # whole frames, which is one gather
    x_BTF = take(batch.x_BTF, whole_BT)
    if warp is not None:
        part_BT1 = (source_BT - whole_BT)[:, :, None]
        next_BTF = take(batch.x_BTF, jnp.minimum(whole_BT + 1, T - 1))
        x_BTF = (1 - part_BT1) * x_BTF + part_BT1 * next_BTF
    # A row keeps a real frame, and one that only fills up stays without.
    length_B1 = batch.mask_BT.sum(axis=1, keepdims=True)
    moved_B1 = jnp.clip(jnp.round(length_B1 / rate_B1) + shift_B1, 1, T)
    mask_BT = frame_T < jnp.where(length_B1 > 0, moved_B1, 0)
    return batch.replace(x_BTF=x_BTF, mask_BT=mask_BT)  # pyright: ignore


def warp_bands(batch: Batch, key: jax.Array, warp: jax.Array) -> Batch:
    """A batch whose rows have their bands rescaled from the lowest on, each by a factor of its own.

    Band f becomes what stands at f times the factor, so that formants move as they do with the
    length of the vocal tract. What comes in above repeats the highest band.

    Args:
      batch: features after normalisation.
      key: of this batch; a row's draw follows from it and the row's number.
      warp: factors are uniform from 1 - warp to 1 + warp.

    Source: Jaitly and Hinton 2013, 'Vocal tract length perturbation', there on the frequencies of
    the filters; here on the bands themselves.
    """
    B, _, F = batch.x_BTF.shape
    factor_B1 = _choose_rate(jax.random.uniform(make_threefry(key), (B, 1)), warp)
    band_F = jnp.arange(F, dtype=jnp.float32)
    source_BF = jnp.clip(band_F[None] * factor_B1, 0, F - 1)
    # A product with what has two entries in a column: on CPU a gather of single numbers is slower.
    weight_BFF = jnp.maximum(1 - jnp.abs(band_F[None, :, None] - source_BF[:, None, :]), 0)
    x_BTF = jnp.matmul(batch.x_BTF, weight_BFF, precision=jax.lax.Precision.HIGHEST)
    return batch.replace(x_BTF=x_BTF)  # pyright: ignore


def _choose_whole(u: jax.Array, most: jax.Array) -> jax.Array:
    """Whole numbers from -most to most, of `u` uniform in [0, 1)."""
    most = jnp.floor(most)
    return jnp.minimum(jnp.floor(u * (2 * most + 1)), 2 * most) - most


def _choose_rate(u: jax.Array, warp: jax.Array) -> jax.Array:
    return 1 + warp * (2 * u - 1)
