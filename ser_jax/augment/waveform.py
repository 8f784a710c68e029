"""The study's four augmentations of training clips in JAX, inside the training step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ser_jax.audio.samples import to_float
from ser_jax.augment.keys import make_threefry
from ser_jax.augment.vocoder import choose_n_fft, warp
from ser_jax.config import AugmentConfig
from ser_jax.features.batching import Batch, Dataset, TakeTrain, make_batch
from ser_jax.features.cmvn import normalise_clips
from ser_jax.machine.accelerator import on_accelerator

_FADE_S = 0.005
"""Fade on either side of a time shift's seam, as in audiomentations's Shift."""

Augmenter = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


class Draw(NamedTuple):
    """Which of the four augmentations one clip undergoes, and by how much."""

    applied_4: jax.Array
    amplitude: jax.Array
    rate: jax.Array
    semitones: jax.Array
    shift_samples: jax.Array


def add_noise(key: jax.Array, x_N: jax.Array, amplitude: jax.Array | float) -> jax.Array:
    """Add white Gaussian noise of standard deviation `amplitude`; full scale is 1."""
    return x_N + amplitude * jax.random.normal(make_threefry(key), x_N.shape, x_N.dtype)


def stretch(
    x_N: jax.Array,
    length: jax.Array | int,
    rate: jax.Array | float,
    *,
    rate_hz: int,
    sequential: bool = False,
) -> jax.Array:
    """A clip played `rate` times as fast at the same pitch, cut or padded to the same length.

    Args:
      x_N: samples, float32; zeros from `length` on.
      length: samples of the clip.
      rate: above 1 is faster.
      rate_hz: sample rate, which sets the window.
      sequential: see `make_augmenter`.
    """
    n_fft = choose_n_fft(rate_hz)
    return warp(x_N, length, rate, 1.0, n_fft=n_fft, max_ratio=1.0, sequential=sequential)


def shift_pitch(
    x_N: jax.Array,
    length: jax.Array | int,
    semitones: jax.Array | float,
    *,
    rate_hz: int,
    max_semitones: float = 12.0,
    sequential: bool = False,
) -> jax.Array:
    """A clip raised by `semitones`, at most `max_semitones`, at the same speed; see `stretch`."""
    ratio = 2 ** (jnp.asarray(semitones, jnp.float32) / 12)
    n_fft, most = choose_n_fft(rate_hz), 2 ** (max(max_semitones, 0.0) / 12)
    return warp(x_N, length, 1.0, ratio, n_fft=n_fft, max_ratio=most, sequential=sequential)


def shift_time(
    x_N: jax.Array,
    length: jax.Array | int,
    shift_samples: jax.Array | int,
    rollover: bool,
    *,
    rate_hz: int,
) -> jax.Array:
    """A clip moved later by `shift_samples` within its own length, faded over 5 ms at the seam.

    Args:
      x_N: samples; zeros from `length` on.
      length: samples of the clip.
      shift_samples: negative is earlier; less than `length` in size.
      rollover: what leaves at one end enters at the other; otherwise zeros enter.
      rate_hz: sample rate, which sets the fade.

    Source: audiomentations's Shift; its fade: Signalsmith, "Cheap energy-preserving-ish crossfade".
    """
    length, n = jnp.maximum(length, 1), jnp.arange(x_N.shape[0])
    seam = jnp.mod(shift_samples, length)
    shifted_N = jnp.where(n < length, x_N[jnp.mod(n - seam, length)], 0)
    away = jnp.where(n >= seam, n - seam, seam - 1 - n)
    x = jnp.minimum(away / (int(rate_hz * _FADE_S) - 1), 1)
    bump = x * (1 - x)
    gain_N = jnp.square(bump * (1 + 1.4186 * bump) + x)
    if not rollover:  # one side of the seam is what entered
        gain_N = jnp.where((n >= seam) == (shift_samples > 0), gain_N, 0)
    return jnp.where(shift_samples == 0, x_N, shifted_N * gain_N)


def make_augmenter(
    augment: AugmentConfig, rate_hz: int, *, sequential: bool | None = None
) -> Augmenter:
    """A function that augments one clip: noise, stretch, pitch and time shift, in that order.

    Args:
      augment: ranges and modes; `p`, `method` and `workers` are ignored.
      rate_hz: sample rate of the clips.
      sequential: frames one after another, which is faster on CPU and the default there.

    Returns:
      (key, wave_N, length, p) -> wave_N: float32 samples, full scale 1, zero padded from `length`
      on; each augmentation has probability p. A clip's result depends only on these. Map it over a
      batch by `jax.vmap`, or by `jax.lax.map`, where what is not drawn costs nothing.
    """
    n_fft, max_ratio = choose_n_fft(rate_hz), max(1.0, 2 ** (augment.pitch_max / 12))
    sequential = not on_accelerator() if sequential is None else sequential

    def augment_clip(key, wave_N, length, p):
        if not augment.before_padding:
            length = jnp.int32(wave_N.shape[0])
        inside_N = jnp.arange(wave_N.shape[0]) < length
        x_N = jnp.where(inside_N, wave_N, 0)
        if augment.normalise == "peak":
            peak = jnp.abs(x_N).max(initial=0)
            x_N = x_N / jnp.where(peak > 0, peak, 1)
        noise_key, draw_key = jax.random.split(make_threefry(key))
        draw = _draw(draw_key, augment, rate_hz, length, p)
        noisy, stretched, pitched, shifted = draw.applied_4

        def make_noise(x_N):
            return jnp.where(inside_N, add_noise(noise_key, x_N, draw.amplitude), 0)

        def make_warp(x_N):
            rate = jnp.where(stretched, draw.rate, 1)
            ratio = jnp.where(pitched, 2 ** (draw.semitones / 12), 1)
            return warp(
                x_N, length, rate, ratio, n_fft=n_fft, max_ratio=max_ratio, sequential=sequential
            )

        def make_shift(x_N):
            return shift_time(x_N, length, draw.shift_samples, augment.rollover, rate_hz=rate_hz)

        x_N = jax.lax.cond(noisy, make_noise, _same, x_N)
        x_N = jax.lax.cond(stretched | pitched, make_warp, _same, x_N)
        return jax.lax.cond(shifted, make_shift, _same, x_N)

    return augment_clip


def make_take_augmented(
    augment: AugmentConfig,
    rate_hz: int,
    front_end: Callable[[jax.Array], jax.Array],
    *,
    own: str | None = None,
    masked: bool = False,
    sequential: bool | None = None,
) -> TakeTrain:
    """A function that takes training batches and augments them.

    Args:
      augment: the settings; with `augment.when=once` the number of the draw is ignored.
      rate_hz: sample rate of the clips.
      front_end: from waves [B, N] to features [B, T, F].
      own: 'clip' normalises each clip's features by themselves; 'speaker' or 'corpus' by
        `dataset.own`, statistics of clips without augmentation; None does neither.
      masked: leave padding out with own='clip'.
      sequential: clip by clip, which is faster on CPU and the default there.

    Returns:
      (dataset, index_B, key, draw, p) -> Batch. The dataset must have `wave_BN` and `length_B`. A
      clip's features depend on its samples, its number, key, draw and p, and not on its batch.
    """
    sequential = not on_accelerator() if sequential is None else sequential
    augment_clip = make_augmenter(augment, rate_hz, sequential=sequential)

    def take_augmented(
        dataset: Dataset, index_B: jax.Array, key: jax.Array, draw: jax.Array, p: jax.Array
    ) -> Batch:
        assert dataset.wave_BN is not None
        assert dataset.length_B is not None
        draw_key = jax.random.fold_in(make_threefry(key), 0 if augment.when == "once" else draw)
        row_B = jnp.maximum(index_B, 0)
        key_B = jax.vmap(jax.random.fold_in, (None, 0))(draw_key, row_B)
        wave_BN = to_float(dataset.wave_BN[row_B])
        p_B = jnp.where(index_B >= 0, p, 0.0)  # padding rows cost nothing
        clips = (key_B, wave_BN, dataset.length_B[row_B], p_B)
        if sequential:
            wave_BN = jax.lax.map(lambda clip: augment_clip(*clip), clips)
        else:
            wave_BN = jax.vmap(augment_clip)(*clips)
        x_BTF = front_end(wave_BN)
        if own == "clip":
            whole_B = jnp.full(row_B.shape, x_BTF.shape[1])
            x_BTF = normalise_clips(x_BTF, dataset.frames_B[row_B] if masked else whole_B)
        elif own is not None:
            mean_BF, std_BF = (x_BF[row_B] for x_BF in dataset.own)
            x_BTF = (x_BTF - mean_BF[:, None]) / std_BF[:, None]
        return make_batch(dataset, index_B, x_BTF)

    return take_augmented


def _same(x_N: jax.Array) -> jax.Array:
    return x_N


def _draw(
    key: jax.Array, augment: AugmentConfig, rate_hz: int, length: jax.Array, p: jax.Array | float
) -> Draw:
    """Draw each augmentation of a clip with probability p, each amount uniform in its range."""
    applied_key, amount_key = jax.random.split(key)
    # A shift by the whole clip would change nothing.
    longest_s = jnp.maximum(length - 1, 0) / rate_hz
    low_s, high_s = (
        jnp.clip(s, -longest_s, longest_s) for s in (augment.shift_min_s, augment.shift_max_s)
    )
    low_4 = jnp.stack([augment.noise_min, augment.stretch_min, augment.pitch_min, low_s])
    high_4 = jnp.stack([augment.noise_max, augment.stretch_max, augment.pitch_max, high_s])
    amplitude, rate, semitones, shift_s = low_4 + (high_4 - low_4) * jax.random.uniform(
        amount_key, (4,)
    )
    shift_samples = jnp.round(shift_s * rate_hz).astype(jnp.int32)
    applied_4 = jax.random.uniform(applied_key, (4,)) < p
    return Draw(applied_4, amplitude, rate, semitones, shift_samples)
