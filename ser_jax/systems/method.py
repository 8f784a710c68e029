"""What a classifier that is fitted at once must be able to do."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ser_jax.config import ClassicalConfig
from ser_jax.systems.frames import Arrays


class Method(NamedTuple):
    """A way to fit and to score, on the frames of `frames.list_frames`.

    Attributes:
      fit: (config, dataset, split, labels, on_event) -> arrays. A choice that is left is made on
        validation; tells of each fit.
      score: (arrays, frames [T, F] of each clip, settings) -> how well each class fits, [B, C].
      check: raises a UserError where a package that it needs is not installed.
      list_shapes: (arrays, settings, classes, features of a frame) -> the shapes that the arrays
        must have, by name; raises a KeyError where one that tells a size is not there.
    """

    fit: Callable[..., Arrays]
    score: Callable[[Arrays, Sequence[np.ndarray], ClassicalConfig], np.ndarray]
    check: Callable[[], None]
    list_shapes: Callable[[Arrays, ClassicalConfig, int, int], dict[str, tuple[int, ...]]]


def read_shapes(names: str, sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes by names, whose last letters are axes: `mean_F` is as long as `sizes['F']`."""
    return {
        name: tuple(sizes[letter] for letter in name.partition("_")[2]) for name in names.split()
    }
