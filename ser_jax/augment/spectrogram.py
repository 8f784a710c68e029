"""Augmentation of training features inside the step: SpecAugment's masks, shifts and warps.

All work on normalised features, so that zero is the training mean.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ser_jax.augment.keys import make_threefry
from ser_jax.features.batching import Batch


def perturb(batch: Batch, numbers: Mapping[str, jax.Array], key: jax.Array) -> Batch:
    """Warp, shift and mask a batch, as far as `numbers` enables it.

    Args:
      batch: training rows.
      numbers: enabled settings of `config.AugmentConfig` by name, as by `state.list_numbers`.
      key: of this batch; a row's draws follow from it and the row's number.
    """
    draw = functools.partial(jax.random.fold_in, key)
    if "band_warp" in numbers:
        batch = warp_bands(batch, draw(0), numbers["band_warp"])
    if numbers.keys() & {"time_warp", "feature_shift_frames"}:
        shift, warp = (numbers.get(name) for name in ("feature_shift_frames", "time_warp"))
        batch = move_time(batch, draw(1), shift_frames=shift, warp=warp)
    if "time_mask_frames" in numbers:
        batch = mask_time(batch, draw(2), numbers["time_mask_frames"])
    if "band_mask_bands" in numbers:
        batch = mask_bands(batch, draw(3), numbers["band_mask_bands"])
    return batch


def mask_time(batch: Batch, key: jax.Array, frames_n: jax.Array) -> Batch:
    """Set n stretches of each row's real frames to 0, which is the training mean.

    Args:
      batch: features after normalisation.
      key: of this batch; a row's draws follow from it and the row's number.
      frames_n: maximum width of each mask, in frames; widths are uniform from 0 to it.

    Source: Park et al. 2019, 'SpecAugment'; time warping is `move_time`'s.
    """
    first_B1 = batch.mask_BT.argmax(axis=1)[:, None]
    length_B1 = batch.mask_BT.sum(axis=1)[:, None]
    masked_BT = draw_masks(key, first_B1, length_B1, frames_n, batch.mask_BT.shape[1])
    return batch.replace(x_BTF=jnp.where(masked_BT[:, :, None], 0, batch.x_BTF))  # pyright: ignore


def mask_bands(batch: Batch, key: jax.Array, bands_n: jax.Array) -> Batch:
    """Set n stretches of each row's features to 0; otherwise as `mask_time`."""
    B, _, F = batch.x_BTF.shape
    first_B1 = jnp.zeros((B, 1), jnp.int32)
    masked_BF = draw_masks(key, first_B1, first_B1 + F, bands_n, F)
    return batch.replace(x_BTF=jnp.where(masked_BF[:, None, :], 0, batch.x_BTF))  # pyright: ignore


def draw_masks(
    key: jax.Array, first_B1: jax.Array, length_B1: jax.Array, most_n: jax.Array, size: int
) -> jax.Array:
    """The union of n masks, bool [B, size].

    Each has a width drawn from 0 to `most_n`, limited to `length_B1`, and a position drawn within
    the `length_B1` places from `first_B1` on.
    """
    u_2Bn = jax.random.uniform(make_threefry(key), (2, len(first_B1), len(most_n)))
    # A rounded product may reach the next integer.
    width_Bn = jnp.minimum(jnp.floor(u_2Bn[0] * (most_n[None] + 1)), most_n[None])
    width_Bn = jnp.minimum(jnp.floor(width_Bn), length_B1)
    room_Bn = length_B1 - width_Bn
    start_Bn = first_B1 + jnp.minimum(jnp.floor(u_2Bn[1] * (room_Bn + 1)), room_Bn)
    place_S = jnp.arange(size, dtype=jnp.float32)[None, None, :]
    start_Bn1, end_Bn1 = start_Bn[..., None], (start_Bn + width_Bn)[..., None]
    return ((place_S >= start_Bn1) & (place_S < end_Bn1)).any(axis=1)


def move_time(
    batch: Batch,
    key: jax.Array,
    *,
    shift_frames: jax.Array | None = None,
    warp: jax.Array | None = None,
) -> Batch:
    """Play each row faster or slower and start it earlier or later, by draws of its own.

    What enters at an end repeats the frame there, a clip's silence or padding. Frames that enter
    before a clip count as real, so that masks always start at the first frame.

    Args:
      batch: features after normalisation.
      key: of this batch; a row's draws follow from it and the row's number.
      shift_frames: maximum shift to either side; shifts are uniform integers. None disables them.
      warp: rates are uniform from 1 - warp to 1 + warp. None disables them.
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
    # A row keeps at least one real frame; a padding row keeps none.
    length_B1 = batch.mask_BT.sum(axis=1, keepdims=True)
    moved_B1 = jnp.clip(jnp.round(length_B1 / rate_B1) + shift_B1, 1, T)
    mask_BT = frame_T < jnp.where(length_B1 > 0, moved_B1, 0)
    return batch.replace(x_BTF=x_BTF, mask_BT=mask_BT)  # pyright: ignore


def warp_bands(batch: Batch, key: jax.Array, warp: jax.Array) -> Batch:
    """Rescale the bands of each row from the lowest on, by a factor of its own.

    Band f becomes the content at f times the factor, so that formants move as they do with the
    length of the vocal tract. What enters at the top repeats the highest band.

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
    # A product with a matrix of two entries per column: on CPU a gather of numbers is slower.
    weight_BFF = jnp.maximum(1 - jnp.abs(band_F[None, :, None] - source_BF[:, None, :]), 0)
    x_BTF = jnp.matmul(batch.x_BTF, weight_BFF, precision=jax.lax.Precision.HIGHEST)
    return batch.replace(x_BTF=x_BTF)  # pyright: ignore


def _choose_whole(u: jax.Array, most: jax.Array) -> jax.Array:
    """Integers from -most to most, from `u` uniform in [0, 1)."""
    most = jnp.floor(most)
    return jnp.minimum(jnp.floor(u * (2 * most + 1)), 2 * most) - most


def _choose_rate(u: jax.Array, warp: jax.Array) -> jax.Array:
    return 1 + warp * (2 * u - 1)
