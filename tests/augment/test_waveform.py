"""Device augmentation: audiomentations' in distribution, each clip by its own key, padding kept."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from scipy import stats

from ser_jax.augment import waveform
from ser_jax.augment.vocoder import warp
from ser_jax.augment.waveform import add_noise, make_augmenter, make_take_augmented, shift_time
from ser_jax.config import AugmentConfig, FeaturesConfig
from ser_jax.features.batching import PADDING, Dataset, take
from ser_jax.features.frontend import make_front_end
from ser_jax.features.normaliser import Normaliser
from tests.tolerance import assert_near

RATE_HZ = 8000
N_SAMPLES = 6000
KEY = jax.random.key(7, impl="rbg")
STILL: dict[str, Any] = {
    "noise_min": 0.0, "noise_max": 0.0, "stretch_min": 1.0, "stretch_max": 1.0,
    "pitch_min": 0.0, "pitch_max": 0.0, "shift_min_s": 0.0, "shift_max_s": 0.0,
}  # fmt: skip
"""Ranges under which nothing moves."""


def make_still(**changes: Any) -> AugmentConfig:
    """Settings under which only what `changes` names happens."""
    return AugmentConfig(**(STILL | changes))


stretch = jax.jit(functools.partial(waveform.stretch, rate_hz=RATE_HZ))
shift_pitch = jax.jit(functools.partial(waveform.shift_pitch, rate_hz=RATE_HZ))


@functools.cache
def make_fast(augment: AugmentConfig, sequential: bool = True):
    return jax.jit(make_augmenter(augment, RATE_HZ, sequential=sequential))


def make_tone(hz: float, n: int = N_SAMPLES) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(n) / RATE_HZ)).astype(np.float32)


def find_pitch_hz(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 18))
    return float(np.argmax(spectrum) * RATE_HZ / (1 << 18))


def compute_cents(a_hz: float, b_hz: float) -> float:
    return abs(1200 * np.log2(a_hz / b_hz))


def test_amounts_and_choices_are_drawn_as_the_settings_say():
    config = AugmentConfig()
    keys = jax.random.split(jax.random.key(0), 2000)
    draw = jax.vmap(lambda key: waveform._draw(key, config, RATE_HZ, jnp.int32(N_SAMPLES), 0.3))(
        keys
    )
    for amount, low, high in (
        (draw.amplitude, 0.001, 0.015), (draw.rate, 0.8, 1.2), (draw.semitones, -4, 4),
        (draw.shift_samples / RATE_HZ, -0.5, 0.5),
    ):  # fmt: skip
        assert stats.kstest(amount, stats.uniform(low, high - low).cdf).pvalue > 0.01
    applied = np.asarray(draw.applied_4)
    np.testing.assert_allclose(applied.mean(axis=0), 0.3, atol=0.04)
    assert np.abs(np.corrcoef(applied.T) - np.eye(4)).max() < 0.08  # independent of each other


def test_noise_has_the_uniform_distribution_of_amplitudes():
    augmenter = make_augmenter(make_still(noise_max=0.015), RATE_HZ, sequential=False)
    keys, silence = jax.random.split(jax.random.key(1), 300), jnp.zeros(3000)
    noise_BN = jax.jit(jax.vmap(augmenter, (0, None, None, None)))(keys, silence, 3000, 1.0)
    assert stats.kstest(noise_BN.std(axis=1), stats.uniform(0, 0.015).cdf).pvalue > 0.01


def test_noise_is_gaussian_and_white():
    noise_N = np.asarray(add_noise(KEY, jnp.zeros(20000), 0.01)) / 0.01
    assert stats.kstest(noise_N, "norm").pvalue > 0.01
    assert abs(np.mean(noise_N[1:] * noise_N[:-1])) < 0.03


@pytest.mark.device
@pytest.mark.parametrize("sequential", [True, False])
def test_vocoder_at_rate_1_gives_the_clip_itself(sequential):
    wave = np.random.default_rng(0).standard_normal(N_SAMPLES).astype(np.float32)
    run = functools.partial(warp, n_fft=512, max_ratio=1.0, sequential=sequential)
    assert_near(jax.jit(run)(wave, N_SAMPLES, 1.0, 1.0), wave, atol=1e-4, why="fft")


@pytest.mark.device
@pytest.mark.parametrize("rate", [0.8, 1.2])
def test_stretch_keeps_the_pitch_and_moves_the_end(rate):
    wave = make_tone(440)
    wave[N_SAMPLES // 2 :] = 0
    out_N = np.asarray(stretch(wave, N_SAMPLES, rate))
    assert out_N.shape == wave.shape
    assert compute_cents(find_pitch_hz(out_N[500:2000]), 440) < 2
    power_N = np.cumsum(out_N**2)
    end = np.searchsorted(power_N, 0.98 * power_N[-1])
    assert abs(end - 0.98 * N_SAMPLES / 2 / rate) < 256


def test_stretch_is_followed_by_zeros_or_cut():
    wave = make_tone(300)
    fast_N = np.asarray(stretch(wave, 5000, 1.25))
    assert (fast_N[4000:] == 0).all()
    assert np.abs(fast_N[3900:4000]).max() > 0.05
    slow_N = np.asarray(stretch(wave, 5000, 0.8))
    assert (slow_N[5000:] == 0).all()
    assert np.abs(slow_N[4950:5000]).max() > 0.25


@pytest.mark.device
@pytest.mark.parametrize("semitones", [-4.0, 0.37, 4.0])
def test_pitch_shift_moves_a_tone_by_its_semitones_at_the_same_pace(semitones):
    wave = make_tone(440)
    wave[: N_SAMPLES // 2] = 0
    out_N = np.asarray(shift_pitch(wave, N_SAMPLES, semitones))
    assert compute_cents(find_pitch_hz(out_N[3500:-500]), 440 * 2 ** (semitones / 12)) < 2
    assert abs(out_N[3500:-500].std() / wave[3500:-500].std() - 1) < 0.02
    power_N = np.cumsum(out_N**2)
    assert abs(np.searchsorted(power_N, 0.02 * power_N[-1]) - 1.02 * N_SAMPLES / 2) < 256


def test_a_higher_pitch_does_not_alias():
    out_N = np.asarray(shift_pitch(make_tone(3700), N_SAMPLES, 4.0))
    assert np.abs(out_N[1000:-1000]).max() < 0.003  # of 0.3


@pytest.mark.parametrize("rollover", [True, False])
@pytest.mark.parametrize("shift_s", [0.3, -0.3, 0.002, -0.002, 0.0])
def test_time_shift_is_audiomentations(shift_s, rollover):
    from audiomentations import Shift

    wave = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    expected_N = Shift(shift_s, shift_s, "seconds", rollover, p=1.0)(wave, RATE_HZ)
    padded, places = np.pad(wave, (0, 1000)), round(shift_s * RATE_HZ)
    shift = jax.jit(functools.partial(shift_time, rollover=rollover, rate_hz=RATE_HZ))
    out_N = np.asarray(shift(padded, 5000, places))
    assert_near(out_N[:5000], expected_N, atol=1e-6)
    assert (out_N[5000:] == 0).all()


def test_probability_0_changes_nothing_and_1_always_does():
    wave, augmenter = make_tone(200), make_fast(AugmentConfig())
    for key in jax.random.split(KEY, 5):
        np.testing.assert_array_equal(augmenter(key, wave, N_SAMPLES, 0.0), wave)
        assert np.abs(augmenter(key, wave, N_SAMPLES, 1.0) - wave).max() > 1e-3
    applied = jax.vmap(lambda k: waveform._draw(k, AugmentConfig(), 8000, jnp.int32(9), 1.0))(
        jax.random.split(jax.random.key(0), 5000)
    ).applied_4
    assert np.asarray(applied).all()


def test_the_clip_alone_or_with_its_padding_is_augmented():
    wave = make_tone(200)
    dirty = wave.copy()
    wave[4000:] = 0
    alone, whole = (make_fast(AugmentConfig(before_padding=flag), False) for flag in (True, False))
    for key in jax.random.split(KEY, 4):
        out_N = np.asarray(alone(key, wave, 4000, 1.0))
        assert (out_N[4000:] == 0).all()
        np.testing.assert_array_equal(alone(key, dirty, 4000, 1.0), out_N)
        assert (np.asarray(whole(key, wave, 4000, 1.0))[4000:] != 0).mean() > 0.2


@pytest.mark.parametrize("rollover", [True, False])
@pytest.mark.parametrize("length", [0, 1, 2, 30, 900])
def test_silence_and_clips_shorter_than_a_window_or_a_shift_stay_finite(length, rollover):
    augmenter = make_fast(AugmentConfig(rollover=rollover, normalise="peak"), rollover)
    for loudness in (0.0, 1e-12, 0.5):
        wave = np.where(np.arange(1200) < length, loudness, 0).astype(np.float32)
        for key in jax.random.split(KEY, 3):
            out_N = np.asarray(augmenter(key, wave, length, 1.0))
            assert np.isfinite(out_N).all()
            assert (out_N[length:] == 0).all()


def test_peak_normalisation_comes_before_the_noise():
    config = make_still(noise_min=0.01, noise_max=0.01, normalise="peak")
    quiet = make_tone(200) / 100
    plain_N = np.asarray(make_fast(config)(KEY, quiet, N_SAMPLES, 0.0))
    assert_near(np.abs(plain_N).max(), 1.0, rtol=1e-6)
    noise_N = np.asarray(make_fast(config)(KEY, quiet, N_SAMPLES, 1.0)) - plain_N
    assert abs(noise_N.std() - 0.01) < 5e-4


@pytest.mark.device
@pytest.mark.parametrize("length", [500, 1800, 3000, 4200, 6000])
def test_forms_for_cpu_and_accelerators_agree(length):
    wave = np.random.default_rng(0).standard_normal(N_SAMPLES).astype(np.float32)
    for key in jax.random.split(KEY, 4):
        one, other = (
            make_fast(AugmentConfig(), flag)(key, wave, length, 1.0) for flag in (True, False)
        )
        assert_near(one, other, atol=1e-3, why="fft")


# Batches.

FRONT_END = make_front_end(FeaturesConfig(n_fft=256, hop_length=256, n_mels=12, n_mfcc=6), RATE_HZ)


@functools.cache
def make_dataset() -> Dataset:
    """Six clips of unequal pitch and length; the last one silent."""
    length_B = np.array([2000, 1400, 700, 1800, 1000, 1500], np.int32)
    wave_BN = np.stack([make_tone(150 * (i + 1), 2000) for i in range(6)])
    wave_BN *= np.arange(2000)[None, :] < length_B[:, None]
    wave_BN[-1] = 0
    wave_BN = np.round(wave_BN * 32767).astype(np.int16)
    x_BTF = FRONT_END(jnp.asarray(wave_BN, jnp.float32) / 32768)
    normaliser = Normaliser(jnp.arange(6.0), jnp.full(6, 2.0))
    return Dataset(
        x_BTF, jnp.asarray(1 + length_B // 256), jnp.arange(6, dtype=jnp.int32), normaliser,
        jnp.ones((), jnp.int32), jnp.asarray(wave_BN), jnp.asarray(length_B),
    )  # fmt: skip


@functools.cache
def make_take(sequential: bool = True, when: Any = "epoch"):
    config = AugmentConfig(when=when)
    return jax.jit(make_take_augmented(config, RATE_HZ, FRONT_END, sequential=sequential))


def take_clips(*index: int, draw: int = 1, p: float = 1.0, key: jax.Array = KEY, **how):
    assert len(index) == 4, "one shape is compiled once"
    return make_take(**how)(make_dataset(), jnp.asarray(index, jnp.int32), key, draw, p)


@pytest.mark.device
@pytest.mark.parametrize("sequential", [True, False])
def test_without_probability_the_batch_is_the_plain_one(sequential):
    batch = take_clips(3, 0, PADDING, 5, p=0.0, sequential=sequential)
    plain = take(make_dataset(), jnp.asarray([3, 0, PADDING, 5], jnp.int32))
    for ours, theirs in zip(jax.tree.leaves(batch), jax.tree.leaves(plain), strict=True):
        assert_near(ours, theirs, atol=1e-4, why="fft")


@pytest.mark.device
@pytest.mark.parametrize("sequential", [True, False])
def test_a_clip_does_not_depend_on_its_place_or_other_clips(sequential):
    one = take_clips(3, 0, 1, 2, sequential=sequential)
    other = take_clips(5, 4, 3, PADDING, sequential=sequential)
    assert_near(one.x_BTF[0], other.x_BTF[2], atol=1e-4, why="fft")
    np.testing.assert_array_equal(one.mask_BT[0], other.mask_BT[2])
    twice = take_clips(3, 3, 1, 2, sequential=sequential)
    assert_near(twice.x_BTF[0], twice.x_BTF[1], atol=1e-4, why="fft")


def test_draws_keys_and_clips_differ_and_repeat():
    first = take_clips(3, 0, 1, 2).x_BTF
    np.testing.assert_array_equal(take_clips(3, 0, 1, 2).x_BTF, first)
    assert np.abs(take_clips(3, 0, 1, 2, draw=2).x_BTF - first).max() > 0.1
    assert (
        np.abs(take_clips(3, 0, 1, 2, key=jax.random.key(8, impl="rbg")).x_BTF - first).max() > 0.1
    )


def test_once_is_the_same_in_every_draw():
    first, ninth = (
        take_clips(3, 0, 1, 2, draw=draw, when="once", sequential=False).x_BTF for draw in (1, 9)
    )
    np.testing.assert_array_equal(first, ninth)


@pytest.mark.parametrize("sequential", [True, False])
def test_padding_rows_are_zeros_without_weight(sequential):
    batch = take_clips(PADDING, 2, PADDING, 1, sequential=sequential)
    assert (np.asarray(batch.x_BTF)[[0, 2]] == 0).all()
    np.testing.assert_array_equal(batch.weight_B, [0, 1, 0, 1])
    assert not np.asarray(batch.mask_BT)[[0, 2]].any()
    assert np.isfinite(batch.x_BTF).all()


@pytest.mark.device
@pytest.mark.parametrize("sequential", [True, False])
def test_vmapped_runs_equal_runs_alone(sequential):
    dataset, index_B = make_dataset(), jnp.asarray([3, 0, 1, 2], jnp.int32)
    keys = jnp.stack([jax.random.key(i, impl="rbg") for i in range(3)])
    p_R = jnp.asarray([0.0, 0.5, 1.0])
    run = make_take(sequential=sequential)
    both = jax.vmap(run, (None, None, 0, None, 0))(dataset, index_B, keys, 1, p_R)
    for row in range(3):
        alone = run(dataset, index_B, keys[row], 1, p_R[row])
        assert_near(both.x_BTF[row], alone.x_BTF, atol=2e-3, why="fft")
    plain = take(dataset, index_B).x_BTF
    assert_near(both.x_BTF[0], plain, atol=1e-4, why="fft")
    assert np.abs(both.x_BTF[2] - plain).max() > 0.1


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_it_lowers_for_accelerators(platform):
    run = jax.jit(make_take_augmented(AugmentConfig(), RATE_HZ, FRONT_END, sequential=False))
    arguments = make_dataset(), jnp.asarray([3, 0, 1], jnp.int32), KEY, 1, 0.5
    exported = export.export(run, platforms=[platform])(*arguments)
    assert exported.platforms == (platform,)
    assert "callback" not in exported.mlir_module()
    assert "stablehlo.while" not in exported.mlir_module()  # a loop over frames or clips
