"""Losses of classification on hard and soft labels: cross-entropy, smoothing, focal loss."""

import jax
import jax.numpy as jnp
import optax


def compute_losses(logits_BC: jax.Array, label_B: jax.Array) -> jax.Array:
    """Categorical cross-entropy of each row, float32 [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_BC, label_B)


def smooth_labels(target_BC: jax.Array, smoothing: jax.Array | float) -> jax.Array:
    """Labels [B, C] of which a share of `smoothing` is spread evenly over all classes.

    Source: Szegedy et al. 2016, 'Rethinking the Inception architecture', section 7.
    """
    return (1 - smoothing) * target_BC + smoothing / target_BC.shape[-1]


def compute_soft_losses(
    logits_BC: jax.Array, target_BC: jax.Array, focal_gamma: jax.Array | float | None = None
) -> jax.Array:
    """Cross-entropy of each row to a distribution over classes, float32 [B].

    Args:
      logits_BC: of the network.
      target_BC: shares of the classes; each row sums to 1.
      focal_gamma: each class's term times (1 - its probability) ** focal_gamma, so that what is
        recognised already counts for less (Lin et al. 2017, 'Focal loss'); `None` disables it.
    """
    log_p_BC = jax.nn.log_softmax(logits_BC)
    terms_BC = -target_BC * log_p_BC
    if focal_gamma is not None:
        # At 0 the power has no gradient; there the logarithm is 0 as well.
        left_BC = jnp.maximum(-jnp.expm1(log_p_BC), 1e-7)
        terms_BC = terms_BC * left_BC**focal_gamma
    return terms_BC.sum(axis=-1)
