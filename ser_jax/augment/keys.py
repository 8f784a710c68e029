"""Random keys for augmentation inside programs."""

import jax

_STREAM = 0x5E2
"""Separates the augmentation's random numbers from others drawn from the same key."""


def make_threefry(key: jax.Array) -> jax.Array:
    """A threefry key from any typed key: under vmap `rbg` draws only from the first key."""
    words = jax.random.key_data(key)[..., :2]
    return jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), _STREAM)
