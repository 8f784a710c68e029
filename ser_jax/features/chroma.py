"""Chroma: the energy of each pitch class, from a power spectrogram, with librosa's conventions."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_LOWEST_HZ = 27.5
"""A0, from which octaves are counted."""
_CENTRE, _SPREAD = 5.0, 2.0
"""Centre and deviation of the Gaussian weight of frequencies, in octaves above A0."""
_PEAKS_HZ = (150.0, 4000.0)
"""Range of the spectral peaks that vote on the tuning."""
_PEAK_SHARE = 0.1
"""Lowest power of such a peak, as a share of its frame's loudest bin."""
_VOTES = 100
"""Intervals of the histogram of votes: the tuning is known to 1/100 of a pitch class."""


class _Bins(NamedTuple):
    """Where the bins of an FFT lie among pitch classes.

    Attributes:
      position_K: in pitch classes above A0; that of 0 Hz is made up.
      width_K: distance to the next bin, at least one pitch class.
    """

    position_K: np.ndarray
    width_K: np.ndarray


@functools.lru_cache(maxsize=32)
def _place_bins(rate_hz: int, n_fft: int, n_chroma: int) -> _Bins:
    bin_hz = np.arange(1, n_fft // 2 + 2) * (rate_hz / n_fft)
    position_K = n_chroma * np.log2(bin_hz / _LOWEST_HZ)
    # 0 Hz lies an octave and a half below the first bin: wide, and of the opposite pitch class.
    position_K = np.concatenate([position_K[:1] - 1.5 * n_chroma, position_K])
    return _Bins(position_K[:-1], np.maximum(np.diff(position_K), 1.0))


def make_chroma_filter(
    tuning_B: jax.Array, *, rate_hz: int, n_fft: int, n_chroma: int
) -> jax.Array:
    """Weights from the bins of a power spectrogram to pitch classes, clip by clip.

    Source: `librosa.filters.chroma`, after D. Ellis' `fft2chromamx`: Gaussian bumps around each
    pitch class, of unit length for each bin, weighted by a Gaussian over octaves around 880 Hz.

    Args:
      tuning_B: deviation of each clip from A = 440 Hz, in pitch classes.
      rate_hz: sample rate.
      n_fft: window and FFT length in samples, even.
      n_chroma: number of pitch classes in an octave, C.

    Returns:
      float32 [B, n_fft // 2 + 1, C], beginning with the pitch class C.
    """
    position_K, width_K = _place_bins(rate_hz, n_fft, n_chroma)
    half = np.round(n_chroma / 2)
    # Reduced to one octave in float64, for float32 cannot hold ten octaves as precisely.
    away_KC = np.mod(position_K[:, None] - np.arange(n_chroma)[None, :] + half, n_chroma)
    away_BKC = away_KC.astype(np.float32)[None] - tuning_B[:, None, None]
    away_BKC = jnp.mod(away_BKC, n_chroma) - half.astype(np.float32)
    bump_BKC = jnp.exp(-0.5 * jnp.square(2 * away_BKC / width_K.astype(np.float32)[None, :, None]))
    bump_BKC = bump_BKC / jnp.sqrt(jnp.square(bump_BKC).sum(axis=2, keepdims=True))
    octave_K = (position_K / n_chroma - _CENTRE).astype(np.float32)
    octave_BK = octave_K[None] - tuning_B[:, None] / n_chroma
    filter_BKC = bump_BKC * jnp.exp(-0.5 * jnp.square(octave_BK / _SPREAD))[:, :, None]
    return jnp.roll(filter_BKC, -3 * (n_chroma // 12), axis=2)  # from A to C


def estimate_tuning(
    power_BTK: jax.Array, real_BT: jax.Array, *, rate_hz: int, n_chroma: int
) -> jax.Array:
    """Deviation of each clip from A = 440 Hz, in pitch classes: the commonest among its peaks.

    Source: `librosa.estimate_tuning` and `librosa.piptrack`: peaks of the spectrum, interpolated
    by a parabola; those at least as loud as the median vote. Rounding may decide between tunings
    with almost as many votes.

    Args:
      power_BTK: power spectrogram.
      real_BT: True for frames whose peaks count.
      rate_hz: sample rate.
      n_chroma: number of pitch classes in an octave.

    Returns:
      float32 [B] from -0.5 to 0.49; 0 without a peak.
    """
    B, _, K = power_BTK.shape
    bin_hz = np.arange(K) * (rate_hz / (2 * (K - 1)))
    low, high = np.searchsorted(bin_hz, (_PEAKS_HZ[0], min(_PEAKS_HZ[1], rate_hz / 2)))
    if low == high:
        return jnp.zeros(B)
    loud_BTK = power_BTK > _PEAK_SHARE * power_BTK.max(axis=2, keepdims=True)
    below, here, above = (power_BTK[:, :, low + step : high + step] for step in (-1, 0, 1))
    is_peak = loud_BTK[:, :, low:high] & (here > below) & (here >= above) & real_BT[:, :, None]
    slope, curvature = (above - below) / 2, above + below - 2 * here
    is_parabola = jnp.abs(slope) < jnp.abs(curvature)
    shift = jnp.where(is_parabola, -slope / jnp.where(is_parabola, curvature, 1), 0)
    peak_hz = (np.arange(low, high, dtype=np.float32)[None, None] + shift) * (bin_hz[1].item())
    height, is_peak = (here + slope * shift / 2).reshape(B, -1), is_peak.reshape(B, -1)
    votes = is_peak & (height >= _find_median(height, is_peak)[:, None])
    position = n_chroma * jnp.log2(peak_hz.reshape(B, -1) / _LOWEST_HZ)
    interval = jnp.floor(_VOTES * jnp.mod(position + 0.5, 1)).astype(jnp.int32)
    rows = jnp.arange(B)[:, None]
    count_BV = jnp.zeros((B, _VOTES), jnp.int32).at[rows, interval].add(votes, mode="clip")
    tuning_B = count_BV.argmax(axis=1) / _VOTES - 0.5
    return jnp.where(is_peak.any(axis=1), tuning_B, 0)


def _find_median(x_BN: jax.Array, counts_BN: jax.Array) -> jax.Array:
    """Median of the elements that count, [B]; infinite in a row without any."""
    sorted_BN = jnp.sort(jnp.where(counts_BN, x_BN, jnp.inf), axis=1)
    n_B1 = counts_BN.sum(axis=1, keepdims=True)
    middle_B2 = jnp.concatenate([jnp.maximum(n_B1 - 1, 0) // 2, n_B1 // 2], axis=1)
    return jnp.take_along_axis(sorted_BN, middle_B2, axis=1, mode="clip").mean(axis=1)


def compute_chroma(
    power_BTK: jax.Array, tuning_B: jax.Array, *, rate_hz: int, n_chroma: int
) -> jax.Array:
    """Energy of each pitch class, relative to that of the strongest in its frame.

    Source: `librosa.feature.chroma_stft` with its defaults.

    Args:
      power_BTK: power spectrogram.
      tuning_B: deviation of each clip from A = 440 Hz, in pitch classes.
      rate_hz: sample rate.
      n_chroma: number of pitch classes in an octave, C.

    Returns:
      float32 [B, T, C] from 0 to 1, beginning with the pitch class C; zeros in a silent frame.
    """
    n_fft = 2 * (power_BTK.shape[2] - 1)
    filter_BKC = make_chroma_filter(tuning_B, rate_hz=rate_hz, n_fft=n_fft, n_chroma=n_chroma)
    chroma_BTC = jnp.einsum(
        "btk,bkc->btc", power_BTK, filter_BKC, precision=jax.lax.Precision.HIGHEST
    )
    top_BT1 = chroma_BTC.max(axis=2, keepdims=True)
    return chroma_BTC / jnp.where(top_BT1 < jnp.finfo(jnp.float32).tiny, 1, top_BT1)
