"""What training features undergo inside the step, after they are normalised."""

import functools
from collections.abc import Mapping

import jax

from ser_jax.augment.masking import mask_bands, mask_time
from ser_jax.augment.warping import move_time, warp_bands
from ser_jax.batching import Batch


def perturb(batch: Batch, numbers: Mapping[str, jax.Array], key: jax.Array) -> Batch:
    """A batch warped, shifted and masked, by what of `state.list_numbers` is switched on.

    Args:
      batch: training rows.
      numbers: settings of `config.AugmentConfig` by name; those that are not there are off.
      key: of this batch; all draws of a row follow from it and the row's number.
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
