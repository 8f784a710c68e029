"""Time stretch and pitch shift in one pass: a phase-locked vocoder, then `resampler`, pure JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.augment.resampler import PHASES, TAPS, resample, take_at

_OVERLAP = 4
"""Frames over each sample: the minimum at which squared Hann windows add up to a constant."""
_SIZES = 4
"""Numbers of frames for which `sequential` is compiled: more run faster and compile longer."""


def choose_n_fft(rate_hz: int) -> int:
    """Window in samples, a power of two of 65 to 130 ms, close to audiomentations's."""
    return 2 ** int(np.log2(rate_hz * 0.13))


def warp(
    x_N: jax.Array,
    length: jax.Array | int,
    rate: jax.Array | float,
    ratio: jax.Array | float,
    *,
    n_fft: int,
    max_ratio: float,
    sequential: bool = False,
) -> jax.Array:
    """A clip played `rate` times as fast, and independently at `ratio` times its pitch.

    The vocoder stretches by rate / ratio; the result is resampled at every `ratio`-th sample with a
    windowed sinc.

    Args:
      x_N: samples, float32; zeros from `length` on.
      length: samples of the clip, int32.
      rate: above 1 is faster.
      ratio: above 1 is higher, at most `max_ratio`.
      n_fft: window in samples, a multiple of 4.
      max_ratio: upper bound of `ratio`, which sets the shapes.
      sequential: compute frame after frame, and no more frames than are used; the result is the
        same.

    Returns:
      float32 [N]: the clip from its start, cut at `length` or followed by zeros.
    """
    x_N = jnp.asarray(x_N, jnp.float32)
    n_samples, hop = x_N.shape[0], n_fft // _OVERLAP
    step = jnp.round(jnp.asarray(ratio, jnp.float32) * PHASES).astype(jnp.int32)
    ratio = step.astype(jnp.float32) / PHASES
    end = jnp.minimum(jnp.round(length / rate), length).astype(jnp.int32)
    n_frames = int(np.ceil(n_samples * max_ratio + TAPS) / hop) + 2

    def play(n_frames):  # from the stretched clip's first frames
        place_T = jnp.round(jnp.arange(n_frames, dtype=jnp.float32) * (hop * rate / ratio))
        # Beyond the end all is silence.
        place_T = jnp.minimum(place_T, n_samples + n_fft).astype(jnp.int32)
        now_TK, before_TK = _analyse(x_N, place_T, n_fft)
        out_TK = now_TK * _lock_phases(now_TK, before_TK, sequential)
        y_M = _overlap_add(out_TK * _make_lowpass(ratio, out_TK.shape[1]), n_fft)
        return resample(y_M, step, n_samples, n_fft // 2, sequential)

    if sequential:  # no more frames than are used: a clip may be much shorter than its row
        sizes = [-(-n_frames * part // _SIZES) for part in range(1, _SIZES + 1)]
        wanted = (end * ratio + TAPS) / hop + 2
        which = (wanted > np.array(sizes[:-1], np.float32)).sum()
        y_N = jax.lax.switch(which, [functools.partial(play, size) for size in sizes])
    else:
        y_N = play(n_frames)
    return jnp.where(jnp.arange(n_samples) < end, y_N, 0)


@functools.lru_cache(maxsize=8)
def _make_window(n_fft: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def _analyse(x_N: jax.Array, place_T: jax.Array, n_fft: int) -> tuple[jax.Array, jax.Array]:
    """Spectra [T, K] of the windows centred at `place_T`, and of those one hop before each."""
    hop = n_fft // _OVERLAP
    padded = jnp.pad(x_N, (n_fft // 2 + hop, 2 * n_fft))

    def analyse(start_T):
        cut = jax.vmap(lambda start: jax.lax.dynamic_slice(padded, (start,), (n_fft,)))
        return jnp.fft.rfft(cut(start_T) * _make_window(n_fft)[None, :])

    return analyse(place_T + hop), analyse(place_T)


def _lock_phases(now_TK: jax.Array, before_TK: jax.Array, sequential: bool) -> jax.Array:
    """Unit complex numbers that rotate each frame's phases so that it continues the one before.

    Output frame m - 1 holds window m - 1. A hop later the output should continue it, but gets
    window m. So frame m is rotated by the phase of window m - 1 relative to the window one hop
    before m, on top of the rotation of frame m - 1. Each bin takes the rotation of the strongest
    bin within two of it (a window's main lobe), accumulated from that bin's position in the frame
    before, so that a partial stays coherent while it moves from bin to bin.

    Args:
      now_TK, before_TK: of `_analyse`.
      sequential: frame after frame; otherwise many blocks of frames in parallel.

    Source: after the identity phase locking of J. Laroche and M. Dolson, "Improved phase vocoder
    time-scale modification of audio", 1999.
    """
    difference_TK = now_TK[:-1] * before_TK[1:].conj()
    power_TK = _compute_power(difference_TK)
    loud_TK = power_TK > 1e-30
    away_TK = _find_peaks(_compute_power(now_TK[1:]))
    if sequential:
        unit_TK = difference_TK * jax.lax.rsqrt(jnp.maximum(power_TK, 1e-30))
        total_TK = _turn_frame_by_frame(jnp.where(loud_TK, unit_TK, 1), away_TK)
    else:
        angle_TK = jnp.where(loud_TK, jnp.angle(difference_TK), 0)
        angle_TK = _turn_in_stretches(angle_TK, away_TK)
        total_TK = jax.lax.complex(jnp.cos(angle_TK), jnp.sin(angle_TK))
    return jnp.concatenate([jnp.ones_like(total_TK[:1]), total_TK])


def _turn_frame_by_frame(turn_TK: jax.Array, away_TK: jax.Array) -> jax.Array:
    """The accumulated rotation of each frame, from that relative to the frame before, complex."""
    bin_K = jnp.arange(turn_TK.shape[1], dtype=jnp.int32)

    def step(total_K, frame):
        turn_K, away_K = frame
        total_K = (total_K * turn_K)[bin_K + away_K]
        return total_K, total_K

    return jax.lax.scan(step, jnp.ones_like(turn_TK[0]), (turn_TK, away_TK))[1]


def _turn_in_stretches(turn_TK: jax.Array, away_TK: jax.Array) -> jax.Array:
    """The same with angles, in 2 * sqrt(T) steps: all blocks of sqrt(T) frames in parallel, then
    block after block. Within a block each step traces a bin back to one of five."""
    T, K = turn_TK.shape
    length = int(np.ceil(np.sqrt(T)))
    n_parts = -(-T // length)

    def cut(x_TK):  # frame by frame of all parts
        fill = ((0, n_parts * length - T), (0, 0))
        return jnp.pad(x_TK, fill).reshape(n_parts, length, K).swapaxes(0, 1)

    def extend(part, frame):
        (turn_PK, bin_PK), (new_PK, away_PK) = part, frame
        part = _pick_near(turn_PK, away_PK) + new_PK, _pick_near(bin_PK, away_PK)
        return part, part

    def follow(total_K, part):
        turn_K, bin_K = part
        return take_at(bin_K, total_K) + turn_K, total_K

    bin_PK = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32), (n_parts, K))
    frames = cut(_pick_near(turn_TK, away_TK)), cut(away_TK)
    # Unrolled: the steps are too small for the overhead of a loop.
    parts, (turn_LPK, bin_LPK) = jax.lax.scan(
        extend, (jnp.zeros_like(frames[0][0]), bin_PK), frames, unroll=True
    )
    _, start_PK = jax.lax.scan(follow, jnp.zeros_like(turn_TK[0]), parts, unroll=True)
    place_LPK = bin_LPK + jnp.arange(n_parts, dtype=jnp.int32)[None, :, None] * K
    start_LPK = take_at(place_LPK.ravel(), start_PK.ravel()).reshape(place_LPK.shape)
    return (start_LPK + turn_LPK).swapaxes(0, 1).reshape(-1, K)[:T]


def _compute_power(x_TK: jax.Array) -> jax.Array:
    return jnp.square(x_TK.real) + jnp.square(x_TK.imag)


def _find_peaks(power_TK: jax.Array) -> jax.Array:
    """Offset from each bin to the strongest within two of it, int8 [T, K]."""
    n_bins = power_TK.shape[-1]
    padded_TK = jnp.pad(power_TK, ((0, 0), (2, 2)), constant_values=-1.0)
    best_TK, away_TK = power_TK, jnp.zeros(power_TK.shape, jnp.int8)
    for away in (-1, 1, -2, 2):  # a window's main lobe extends two bins to either side
        there_TK = padded_TK[:, 2 + away : 2 + away + n_bins]
        higher_TK = there_TK > best_TK
        best_TK = jnp.where(higher_TK, there_TK, best_TK)
        away_TK = jnp.where(higher_TK, jnp.int8(away), away_TK)
    return away_TK


def _pick_near(value_TK: jax.Array, away_TK: jax.Array) -> jax.Array:
    """For each bin the value at offset `away`, at most two."""
    n_bins = value_TK.shape[-1]
    padded_TK = jnp.pad(value_TK, ((0, 0), (2, 2)))
    for away in (-2, -1, 1, 2):
        there_TK = padded_TK[:, 2 + away : 2 + away + n_bins]
        value_TK = jnp.where(away_TK == away, there_TK, value_TK)
    return value_TK


def _make_lowpass(ratio: jax.Array, n_bins: int) -> jax.Array:
    """Gain of each bin, [1, K], which removes what would alias once sped up by `ratio`."""
    edge = (n_bins - 1) / jnp.maximum(ratio, 1)
    return jnp.where(ratio > 1, jnp.clip((edge - jnp.arange(n_bins)) / 4, 0, 1), 1)[None, :]


def _overlap_add(spectrum_TK: jax.Array, n_fft: int) -> jax.Array:
    """Frames a hop apart back to samples, [T, K] -> [(T + 3) * hop]; frame 0 is centred n_fft / 2
    after the first sample."""
    hop, window = n_fft // _OVERLAP, _make_window(n_fft)
    frame_TN = jnp.fft.irfft(spectrum_TK, n=n_fft) * window[None, :]
    weight_TN = np.broadcast_to(np.square(window), frame_TN.shape)

    def add(frame_TN, pad):  # part j of a frame belongs to the hop j places later
        part_TJH = frame_TN.reshape(-1, _OVERLAP, hop)
        return sum(pad(part_TJH[:, j], ((j, _OVERLAP - 1 - j), (0, 0))) for j in range(_OVERLAP))

    return jnp.reshape(add(frame_TN, jnp.pad) / np.maximum(add(weight_TN, np.pad), 1e-2), -1)
