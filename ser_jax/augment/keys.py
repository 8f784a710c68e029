"""Random keys for augmentation inside programs."""

import jax

_STREAM = 0x5E2
"""Parts the augmentation's random numbers from the others that come of the same key."""


def make_threefry(key: jax.Array) -> jax.Array:
    """A threefry key from any typed key: `rbg` draws from the first key alone when vmapped."""
    words = jax.random.key_data(key)[..., :2]
    return jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), _STREAM)
