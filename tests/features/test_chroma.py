"""Chroma and tuning against librosa, on real recordings and on tones of known pitch."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soundfile

from ser_jax.config import FeaturesConfig
from ser_jax.features import frontend
from ser_jax.features.chroma import compute_chroma, estimate_tuning, make_chroma_filter
from tests.tolerance import assert_near

RATE_HZ, N_FFT, HOP = 48000, 4096, 2048
PITCH = {"rate_hz": RATE_HZ, "n_chroma": 12}
BOTH = FeaturesConfig(kind="mfcc_chroma", n_fft=N_FFT, hop_length=HOP, n_mfcc=34)


@pytest.fixture(scope="module")
def clips(ravdess_root) -> list[np.ndarray]:
    """One real clip of each of the 24 actors, at its own rate and length."""
    found = []
    for i, folder in enumerate(sorted(ravdess_root.glob("*/Actor_*"))):
        files = sorted(folder.iterdir())
        wave, rate_hz = soundfile.read(files[(7 * i) % len(files)], dtype="float32")
        assert rate_hz == RATE_HZ
        found.append(wave if wave.ndim == 1 else wave.mean(axis=1))
    assert len(found) == 24
    return found


def compute_power(wave: np.ndarray, n_fft: int = N_FFT, hop: int = HOP) -> np.ndarray:
    """librosa's power spectrogram, [T, K]."""
    return np.square(np.abs(librosa.stft(wave, n_fft=n_fft, hop_length=hop))).T


def compute_reference(wave: np.ndarray, tuning: float | None = None) -> np.ndarray:
    return librosa.feature.chroma_stft(
        y=wave, sr=RATE_HZ, n_fft=N_FFT, hop_length=HOP, tuning=tuning
    ).T


def find_tuning(power_TK: np.ndarray, rate_hz: int = RATE_HZ, n_chroma: int = 12) -> float:
    """Of one clip, all of whose frames count."""
    real_1T = np.ones((1, len(power_TK)), bool)
    estimate = jax.jit(estimate_tuning, static_argnames=("rate_hz", "n_chroma"))
    return float(
        estimate(jnp.asarray(power_TK)[None], real_1T, rate_hz=rate_hz, n_chroma=n_chroma)[0]
    )


def make_tones(tuning: float, n_samples: int, n_chroma: int = 12) -> np.ndarray:
    """Three tones between 440 and 2000 Hz, all `tuning` pitch classes too high."""
    time_s = np.arange(n_samples) / RATE_HZ
    waves = [
        np.sin(2 * np.pi * 440 * 2 ** ((step + tuning) / n_chroma) * time_s) / (step + 2)
        for step in (0, 9, 21)
    ]
    return np.float32(0.3) * np.stack(waves).astype(np.float32).sum(axis=0)


@pytest.mark.parametrize(
    ("rate_hz", "n_fft", "n_chroma"),
    [(48000, 4096, 12), (16000, 2048, 12), (16000, 510, 24), (44100, 1024, 7), (8000, 64, 12)],
)
def test_filter_equals_librosas_at_any_tuning(rate_hz, n_fft, n_chroma):
    tunings = jnp.array([-0.5, -0.27, 0, 0.49])
    found_BKC = make_chroma_filter(tunings, rate_hz=rate_hz, n_fft=n_fft, n_chroma=n_chroma)
    for tuning, found_KC in zip(tunings, found_BKC, strict=True):
        expected_CK = librosa.filters.chroma(
            sr=rate_hz, n_fft=n_fft, tuning=tuning, n_chroma=n_chroma
        )
        assert_near(found_KC.T, expected_CK, atol=1e-5)


@pytest.mark.device
@pytest.mark.parametrize("tuning", [0.0, -0.31])
def test_chroma_of_real_clips_equal_librosas_at_a_given_tuning(clips, tuning):
    for wave in clips[::3]:
        power_1TK = frontend._compute_power(wave[None], N_FFT, HOP)
        found_1TC = compute_chroma(power_1TK, jnp.array([tuning]), **PITCH)
        assert_near(found_1TC[0], compute_reference(wave, tuning=tuning), atol=1e-4, why="fft")


@pytest.mark.parametrize("n_chroma", [12, 24])
def test_tuning_of_real_clips_equals_librosas(clips, n_chroma):
    for wave in clips[::2]:
        power_TK = compute_power(wave)
        expected = librosa.estimate_tuning(S=power_TK.T, sr=RATE_HZ, bins_per_octave=n_chroma)
        # The same spectrogram, so that only rounding of single peaks could differ.
        assert find_tuning(power_TK, n_chroma=n_chroma) == pytest.approx(expected, abs=1e-6)


def test_features_of_padded_real_clips_equal_librosas_nearly_always(clips):
    n_samples = max(map(len, clips)) + 3 * HOP
    padded_BN = np.stack([np.pad(wave, (0, n_samples - len(wave))) for wave in clips])
    found_BTF = np.asarray(jax.jit(frontend.make_front_end(BOTH, RATE_HZ))(padded_BN))
    assert found_BTF.shape == (24, frontend.count_frames(n_samples, HOP), 34 + 12)
    n_equal = 0
    for wave, found_TF in zip(clips, found_BTF, strict=True):
        mfcc_TF = librosa.feature.mfcc(y=wave, sr=RATE_HZ, n_mfcc=34, n_fft=N_FFT, hop_length=HOP).T
        T = len(mfcc_TF)
        assert_near(found_TF[:T, :34], mfcc_TF, atol=1e-2, why="fft")
        n_equal += np.abs(found_TF[:T, 34:] - compute_reference(wave)).max() < 1e-3
    # Clips whose commonest tunings have about as many votes are decided by rounding.
    assert n_equal >= 22


@pytest.mark.parametrize("tuning", [-0.445, -0.205, 0.055, 0.305, 0.445])
def test_tuning_of_tones_is_found_to_within_the_error_of_the_parabola(tuning):
    power_TK = compute_power(make_tones(tuning, 30000))[2:-2]
    found = find_tuning(power_TK)
    assert found == pytest.approx(tuning, abs=0.06)  # an eighth of a bin at 440 Hz
    assert found == pytest.approx(librosa.estimate_tuning(S=power_TK.T, sr=RATE_HZ), abs=1e-6)


def test_a_pure_tone_has_the_chroma_of_its_pitch_class_however_it_is_tuned():
    time_s = np.arange(20000) / RATE_HZ
    for step, tuning in ((0, 0.0), (5, 0.3), (11, -0.4)):
        wave = np.sin(2 * np.pi * 440 * 2 ** ((step + tuning) / 12) * time_s)
        power_1TK = jnp.asarray(compute_power(wave)[None, 2:-2], jnp.float32)
        chroma_1TC = compute_chroma(power_1TK, jnp.array([tuning]), **PITCH)
        assert (np.asarray(chroma_1TC).argmax(axis=2) == (9 + step) % 12).all()  # A is the tenth


def test_zeros_after_a_clip_change_neither_its_tuning_nor_its_frames():
    wave = make_tones(0.305, 20001)
    front_end = jax.jit(frontend.make_front_end(BOTH, RATE_HZ))
    alone_TF = front_end(wave)
    padded_TF = front_end(np.pad(wave, (0, 3 * HOP)))
    assert_near(padded_TF[: len(alone_TF)], alone_TF, atol=1e-3, why="fft")


def test_frames_that_do_not_count_have_no_vote():
    power_TK = np.concatenate([compute_power(make_tones(t, 20000))[2:-2] for t in (0.305, -0.205)])
    n_first = len(power_TK) // 2
    real_BT = np.arange(len(power_TK))[None, :] < n_first
    power_BTK = jnp.stack([power_TK, power_TK])
    found_B = estimate_tuning(power_BTK, jnp.concatenate([real_BT, ~real_BT]), **PITCH)
    assert found_B[0] == pytest.approx(find_tuning(power_TK[:n_first]))
    assert found_B[1] == pytest.approx(find_tuning(power_TK[n_first:]))
    assert found_B[0] - found_B[1] > 0.4


@pytest.mark.parametrize(("rate_hz", "n_fft"), [(48000, 4096), (192000, 16)])
def test_without_a_peak_the_tuning_is_0_and_silence_has_no_chroma(rate_hz, n_fft):
    power_1TK = jnp.zeros((1, 5, n_fft // 2 + 1))
    pitch = {"rate_hz": rate_hz, "n_chroma": 12}
    tuning_1 = estimate_tuning(power_1TK, jnp.ones((1, 5), bool), **pitch)
    np.testing.assert_array_equal(tuning_1, 0)
    np.testing.assert_array_equal(compute_chroma(power_1TK, tuning_1, **pitch), 0)


def test_one_spectrogram_serves_mfcc_and_chroma():
    program = str(jax.make_jaxpr(frontend.make_front_end(BOTH, RATE_HZ))(jnp.zeros((2, 9000))))
    assert program.count("= fft[") == 1
    assert program.count("dot_general[") == 3
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 3
