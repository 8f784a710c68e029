"""Device augmentation of real clips beside audiomentations' two methods, at fixed amounts."""

import functools
import warnings
from typing import Any

import jax
import librosa
import numpy as np
import pytest
from audiomentations import PitchShift, TimeStretch

from ser_jax.audio.reading import load_audio
from ser_jax.augment.waveform import shift_pitch, stretch
from ser_jax.features.frontend import compute_log_mel

RATE_HZ = 16000
N_SAMPLES = 40000
FRAME = 512
METHODS = "signalsmith_stretch", "librosa_phase_vocoder"
AMOUNTS = [("stretch", 0.8), ("stretch", 1.2), ("pitch", -4.0), ("pitch", 4.0)]

fast_stretch = jax.jit(functools.partial(stretch, rate_hz=RATE_HZ, sequential=True))
fast_pitch = jax.jit(
    functools.partial(shift_pitch, rate_hz=RATE_HZ, max_semitones=4.0, sequential=True)
)


@pytest.fixture(scope="module")
def clips_BN(ravdess_root) -> np.ndarray:
    """Clips of six actors, of six emotions: 2.5 s from where the speech is about to begin."""
    folders = sorted(ravdess_root.glob("*/Actor_*"))[::4]
    files = [sorted(folder.iterdir())[10 * i + 3] for i, folder in enumerate(folders)]
    waves = [load_audio(path, RATE_HZ)[8000 : 8000 + N_SAMPLES] for path in files]
    assert [len(wave) for wave in waves] == [N_SAMPLES] * 6
    return np.stack(waves)


@functools.cache
def _transform(wave: bytes, kind: str, amount: float) -> list[np.ndarray]:
    wave_N = np.frombuffer(wave, np.float32).copy()
    make = {"stretch": TimeStretch, "pitch": PitchShift}[kind]
    ours = {"stretch": fast_stretch, "pitch": fast_pitch}[kind](wave_N, N_SAMPLES, amount)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [make(amount, amount, method=m, p=1.0)(wave_N, RATE_HZ) for m in METHODS]
    return [np.asarray(ours), *theirs]


def transform(wave_N: np.ndarray, kind: str, amount: float) -> list[np.ndarray]:
    """On the device, by Signalsmith's stretch, by librosa's phase vocoder."""
    return _transform(wave_N.tobytes(), kind, amount)


def compute_distance_db(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """Mean absolute difference of the log-mel spectrograms."""
    a_TF, b_TF = (
        compute_log_mel(x_N, rate_hz=RATE_HZ, n_fft=2048, hop_length=FRAME, n_mels=128)
        for x_N in (a_N, b_N)
    )
    return float(np.abs(a_TF - b_TF).mean())


@pytest.mark.parametrize(("kind", "amount"), AMOUNTS)
def test_log_mel_is_as_near_to_each_method_as_the_methods_to_each_other(clips_BN, kind, amount):
    distances = []
    for wave_N in clips_BN:
        ours_N, signalsmith_N, librosa_N = transform(wave_N, kind, amount)
        pairs = (signalsmith_N, librosa_N), (ours_N, signalsmith_N), (ours_N, librosa_N)
        distances.append([compute_distance_db(*pair) for pair in pairs])
    between, *to_each = np.mean(distances, axis=0)
    assert max(to_each) <= between


def find_span(wave_N: np.ndarray) -> np.ndarray:
    """Samples at which a clip's level first and last exceeds 20 dB below its loudest."""
    level_T = librosa.feature.rms(y=wave_N, frame_length=1024, hop_length=64)[0]
    loud = np.flatnonzero(level_T > 0.1 * level_T.max())
    return loud[[0, -1]] * 64


@pytest.mark.parametrize(("kind", "amount"), AMOUNTS)
def test_speech_begins_and_ends_where_signalsmith_has_it(clips_BN, kind, amount):
    apart_B2 = []
    for wave_N in clips_BN:
        ours_N, signalsmith_N, _ = transform(wave_N, kind, amount)
        apart_B2.append(np.abs(find_span(ours_N) - find_span(signalsmith_N)))
    # A faint last syllable may fall on either side of the threshold, so the median clip decides.
    assert (np.median(apart_B2, axis=0) <= FRAME / 2).all()


def test_stretched_clip_lasts_as_long_as_audiomentations(clips_BN):
    for wave_N in clips_BN:
        ours, *theirs = (np.flatnonzero(x_N)[-1] for x_N in transform(wave_N, "stretch", 1.2))
        assert abs(ours - N_SAMPLES / 1.2) <= 2
        assert max(abs(ours - end) for end in theirs) <= FRAME


def find_pitch_hz(
    wave_N: np.ndarray, low_hz: float, high_hz: float, resolution: float
) -> np.ndarray:
    """Pitch of each frame by pyin; NaN where it is unvoiced or quieter than -30 dB."""
    settings: dict[str, Any] = {"sr": RATE_HZ, "frame_length": 1024, "hop_length": 256}
    pitch_T, voiced_T, _ = librosa.pyin(
        wave_N, fmin=low_hz, fmax=high_hz, resolution=resolution, **settings
    )
    level_T = librosa.feature.rms(y=wave_N, frame_length=1024, hop_length=256)[0]
    loud_T = level_T > 10 ** (-30 / 20) * level_T.max()
    return np.where(voiced_T & loud_T, pitch_T, np.nan)


@pytest.mark.parametrize("amount", [-4.0, 4.0])
@pytest.mark.parametrize("clip", [0, 3])
def test_pitch_is_within_10_cents_of_audiomentations(clips_BN, clip, amount):
    cut = [wave_N[6000:24000] for wave_N in transform(clips_BN[clip], "pitch", amount)]
    middle_hz = np.nanmedian(find_pitch_hz(cut[1], 60, 600, 0.1))  # near, so that the next is quick
    ours_T, *theirs = (find_pitch_hz(x_N, middle_hz / 1.3, middle_hz * 1.3, 0.01) for x_N in cut)
    for theirs_T in theirs:
        cents_T = 1200 * np.log2(ours_T / theirs_T)
        assert np.isfinite(cents_T).sum() >= 10  # frames voiced in both
        assert abs(np.nanmedian(cents_T)) < 10
