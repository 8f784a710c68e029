"""The study's four augmentations of training clips: `host` by audiomentations, `device` in JAX.

Worker processes import this package anew, so it may not import jax: ask `ser_jax.augment.device`
itself for what runs on the device.
"""

from ser_jax.augment.host import HostAugmenter, Pending

__all__ = ["HostAugmenter", "Pending"]
