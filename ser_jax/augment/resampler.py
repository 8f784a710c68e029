"""Interpolation between the samples of a clip by a windowed sinc, in pure JAX."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TAPS = 16
"""Samples that contribute to an interpolated one."""
PHASES = 4096
"""Positions between two samples at which the kernel is tabulated; a pitch ratio is rounded to a
multiple of 1 / PHASES, so by at most 0.2 cents."""


@jax.custom_batching.custom_vmap
def take_at(index_M: jax.Array, value_N: jax.Array) -> jax.Array:
    """`value_N[index_M]`, for indices within bounds.

    Under vmap it stays a gather from one flat array with one index per element; otherwise XLA on
    GPU would store a list of clip, row and column for every element.
    """
    return value_N.at[index_M].get(mode="promise_in_bounds")


@take_at.def_vmap
def _take_at_of_many(size: int, is_mapped: Any, index: jax.Array, value: jax.Array) -> Any:
    index = index if is_mapped[0] else jnp.broadcast_to(index, (size, *index.shape))
    if not is_mapped[1]:
        return take_at(index.ravel(), value).reshape(index.shape), True
    first = jnp.arange(size, dtype=jnp.int32)[:, None] * value.shape[1]
    return take_at((first + index).ravel(), value.ravel()).reshape(index.shape), True


@functools.lru_cache(maxsize=1)
def _make_kernel() -> np.ndarray:
    """Windowed sinc, float32 [TAPS, PHASES]: weight of each sample around a position."""
    away = np.arange(PHASES)[None, :] / PHASES + TAPS // 2 - 1 - np.arange(TAPS)[:, None]
    window = np.i0(5 * np.sqrt(np.maximum(0, 1 - (2 * away / TAPS) ** 2))) / np.i0(5)
    kernel = np.sinc(away) * window
    return (kernel / kernel.sum(axis=0)).astype(np.float32)


def resample(
    y_M: jax.Array, step: jax.Array, n_samples: int, offset: int, sequential: bool
) -> jax.Array:
    """y at the positions offset + n * step / PHASES, n from 0 to n_samples - 1."""
    n = np.arange(n_samples, dtype=np.int32)
    fine_N = (n % PHASES) * step
    whole_N = (n // PHASES) * step + fine_N // PHASES + (offset - TAPS // 2 + 1)
    phase_N, kernel = fine_N % PHASES, jnp.asarray(_make_kernel())
    whole_N = jnp.minimum(whole_N, y_M.shape[0] - TAPS)
    # A GPU reads whole cache lines, so there the weights of a position are adjacent.
    place_major = kernel.T.ravel()
    y_N = jnp.zeros(n_samples, jnp.float32)
    for tap in range(TAPS):
        if sequential:
            weight_N = take_at(phase_N, kernel[tap])
        else:
            weight_N = take_at(phase_N * TAPS + tap, place_major)
        y_N += weight_N * take_at(whole_N + tap, y_M)
    return y_N
