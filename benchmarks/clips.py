"""Clips for the contestants; librosa and audiomentations as contestants."""

import functools
import multiprocessing
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from benchmarks.worker import Job
from ser_jax.audio.samples import to_float
from ser_jax.config import AugmentConfig, Config, FeaturesConfig, override
from ser_jax.machine.spawning import exit_with_parent


def load_clips(keys: dict[str, Any], n_clips: int) -> dict[str, Any]:
    """Load clips spread over the corpus that dotted keys of `Config` name.

    Returns:
      'wave_BN' int16 and zero padded, 'length_B' int32, 'rate_hz'.
    """
    from ser_jax.data.store import load_corpus

    corpus = load_corpus(override(Config(), keys).data)
    rows = np.linspace(0, len(corpus.wave_BN) - 1, n_clips).astype(int)
    return {
        "wave_BN": corpus.wave_BN[rows],
        "length_B": corpus.length_B[rows],
        "rate_hz": corpus.rate_hz,
    }


def compute_librosa(wave_N: np.ndarray, features: FeaturesConfig, rate_hz: int) -> np.ndarray:
    """Compute the features of one clip with librosa, [T, F]."""
    import librosa

    mel_FT = librosa.feature.melspectrogram(
        y=wave_N, sr=rate_hz, n_fft=features.n_fft, hop_length=features.hop_length,
        n_mels=features.n_mels, fmin=features.fmin_hz, fmax=features.fmax_hz,
    )  # fmt: skip
    db_FT = librosa.power_to_db(mel_FT, top_db=features.top_db)
    if features.kind == "mfcc":
        db_FT = librosa.feature.mfcc(S=db_FT, n_mfcc=features.n_mfcc)
    return db_FT.T


def make_librosa(
    *, wave_BN: np.ndarray, length_B: np.ndarray, rate_hz: int, features: dict[str, Any],
    processes: int = 1,
) -> Job:  # fmt: skip
    """One turn computes the features of all clips with librosa, clip by clip in each process."""
    del length_B
    config = override(FeaturesConfig(), features)
    function = functools.partial(compute_librosa, features=config, rate_hz=rate_hz)
    return _map_clips(function, list(to_float(wave_BN)), processes)


def apply_audiomentations(wave_N: np.ndarray, config: AugmentConfig, rate_hz: int) -> np.ndarray:
    """Apply the four augmentations to one clip."""
    return _make_chain(config)(wave_N, rate_hz)


@functools.cache
def _make_chain(config: AugmentConfig) -> Callable[..., np.ndarray]:
    import audiomentations as a

    p, method = config.p, config.method
    return a.Compose([
        a.AddGaussianNoise(config.noise_min, config.noise_max, p=p),
        a.TimeStretch(config.stretch_min, config.stretch_max, method=method, p=p),
        a.PitchShift(config.pitch_min, config.pitch_max, method=method, p=p),
        a.Shift(config.shift_min_s, config.shift_max_s, shift_unit="seconds",
                rollover=config.rollover, p=p),
    ])  # fmt: skip


def make_audiomentations(
    *, wave_BN: np.ndarray, length_B: np.ndarray, rate_hz: int, augment: dict[str, Any],
    processes: int = 1,
) -> Job:  # fmt: skip
    """One turn augments all clips with audiomentations, each at its own length."""
    config = override(AugmentConfig(), augment)
    waves = [to_float(w[:n]) for w, n in zip(wave_BN, length_B, strict=True)]
    function = functools.partial(apply_audiomentations, config=config, rate_hz=rate_hz)
    return _map_clips(function, waves, processes)


def _start_process() -> None:
    warnings.simplefilter("ignore")
    threading.Thread(target=exit_with_parent, daemon=True).start()


def _map_clips(function: Callable[..., Any], clips: list[np.ndarray], processes: int) -> Job:
    warnings.simplefilter("ignore")
    if processes == 1:
        return Job(lambda: [function(clip) for clip in clips])
    context = multiprocessing.get_context("spawn")  # forked processes would share this one's locks
    pool = ProcessPoolExecutor(processes, context, initializer=_start_process)
    chunk = -(-len(clips) // (2 * processes))
    return Job(lambda: list(pool.map(function, clips, chunksize=chunk)))
