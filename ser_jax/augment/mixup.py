"""mixup: each row of a batch mixed with another, features and labels alike."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ser_jax.augment.keys import make_threefry
from ser_jax.features.batching import Batch


class Mix(NamedTuple):
    """Which rows are mixed, and how.

    Attributes:
      partner_B: number of the other row, int32.
      share_B: weight of the row itself, from 0 to 1; the other row has the rest.
    """

    partner_B: jax.Array
    share_B: jax.Array


def draw_mix(key: jax.Array, alpha: jax.Array, weight_B: jax.Array) -> Mix:
    """Partners in random order, and shares from Beta(alpha, alpha); padding rows are not mixed.

    Source: Zhang et al. 2018, 'mixup: beyond empirical risk minimization'.
    """
    order_key, share_key = jax.random.split(make_threefry(key))
    B = len(weight_B)
    partner_B = jax.random.permutation(order_key, B)
    # Beta(a, a) as one gamma variate's share of two, drawn at once, which halves the program.
    log_2B = jax.random.loggamma(share_key, alpha, (2, B))
    share_B = jax.nn.sigmoid(log_2B[0] - log_2B[1])
    both_real_B = (weight_B > 0) & (weight_B[partner_B] > 0)
    return Mix(partner_B, jnp.where(both_real_B, share_B, 1.0))


def mix_batch(batch: Batch, mix: Mix) -> Batch:
    """Mixed features under the union of both masks; the label is that of the larger share."""
    (partner_B, share_B), mixed_B = mix, mix.share_B < 1
    share_B11 = share_B[:, None, None]
    # Ignore the content of padding rows, which may be NaN.
    other_BTF = jnp.where(mixed_B[:, None, None], batch.x_BTF[partner_B], 0)
    return batch.replace(  # pyright: ignore
        x_BTF=share_B11 * batch.x_BTF + (1 - share_B11) * other_BTF,
        mask_BT=batch.mask_BT | (batch.mask_BT[partner_B] & mixed_B[:, None]),
        label_B=jnp.where(share_B < 0.5, batch.label_B[partner_B], batch.label_B),
    )


def mix_labels(label_B: jax.Array, mix: Mix, n_classes: int) -> jax.Array:
    """Soft labels, float32 [B, C], from the labels before mixing."""
    own_BC, other_BC = (
        jax.nn.one_hot(labels, n_classes) for labels in (label_B, label_B[mix.partner_B])
    )
    return mix.share_B[:, None] * own_BC + (1 - mix.share_B[:, None]) * other_BC
