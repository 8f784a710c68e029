"""Cepstral mean and variance normalisation (CMVN) over a clip, a speaker or a corpus.

It needs no labels. Unlike the normaliser of the training clips, it also uses the test clips'
statistics: all available clips of a speaker or corpus count, whatever their part.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_CHUNK = 256  # clips at a time, in float64
_LEAST = 1e-5
"""A smaller deviation counts as zero, and is replaced by 1."""


class Statistics(NamedTuple):
    """Mean and standard deviation to normalise each clip's features by, float32 [B, F]."""

    mean_BF: np.ndarray
    std_BF: np.ndarray


def compute_statistics(
    x_BTF: np.ndarray,
    frames_B: np.ndarray,
    group_B: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    total: Callable[[np.ndarray], np.ndarray] = lambda part: part,
) -> Statistics:
    """Mean and standard deviation of each feature over the frames of each group, in float64.

    Args:
      x_BTF: features.
      frames_B: frames of each clip that count, from its start.
      group_B: number of the group of each clip; a group shares its statistics.
      rows: the clips of this process; None for all.
      total: adds up a sum over all processes.
    """
    rows = np.arange(len(x_BTF)) if rows is None else rows
    groups, at_B = np.unique(group_B, return_inverse=True)
    shape, T = (len(groups), x_BTF.shape[2]), x_BTF.shape[1]

    def add(centre_BF: np.ndarray, power: int) -> np.ndarray:
        sum_GF = np.zeros(shape)
        for start in range(0, len(rows), _CHUNK):
            row_B = rows[start : start + _CHUNK]
            real_BT = np.arange(T) < frames_B[row_B, None]
            x = (x_BTF[row_B].astype(np.float64) - centre_BF[row_B, None]) ** power
            np.add.at(sum_GF, at_B[row_B], np.where(real_BT[:, :, None], x, 0).sum(axis=1))
        return total(sum_GF)

    count_G1 = np.bincount(at_B, weights=frames_B)[:, None]
    mean_GF = add(np.zeros((len(x_BTF), shape[1])), 1) / count_G1
    std_GF = np.sqrt(add(mean_GF[at_B], 2) / count_G1)
    std_GF = np.where(std_GF > _LEAST, std_GF, 1)
    return Statistics(*(x_GF[at_B].astype(np.float32) for x_GF in (mean_GF, std_GF)))


def apply_statistics(x_BTF: np.ndarray, found: Statistics, rows: np.ndarray) -> None:
    """Normalise the clips `rows` in place."""
    for start in range(0, len(rows), _CHUNK):
        row_B = rows[start : start + _CHUNK]
        x_BTF[row_B] = (x_BTF[row_B] - found.mean_BF[row_B, None]) / found.std_BF[row_B, None]


def normalise_clips(x_BTF: Any, frames_B: Any) -> jax.Array:
    """Normalise each clip by its own first `frames_B` frames, on the device."""
    real_BT1 = (jnp.arange(x_BTF.shape[1])[None, :] < frames_B[:, None])[:, :, None]
    count_B11 = jnp.maximum(frames_B, 1)[:, None, None]
    mean_B1F = jnp.where(real_BT1, x_BTF, 0).sum(axis=1, keepdims=True) / count_B11
    centred_BTF = x_BTF - mean_B1F
    square_BTF = jnp.where(real_BT1, jnp.square(centred_BTF), 0)
    std_B1F = jnp.sqrt(square_BTF.sum(axis=1, keepdims=True) / count_B11)
    return centred_BTF / jnp.where(std_B1F > _LEAST, std_B1F, 1)
