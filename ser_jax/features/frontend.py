"""Waveform to log-mel, MFCC or chroma with librosa's conventions, in pure JAX on the device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.config import FeaturesConfig
from ser_jax.errors import check
from ser_jax.features.chroma import compute_chroma, estimate_tuning

_AMIN = 1e-10
"""Lowest power, librosa's `amin`: silence is -100 dB."""


def count_frames(n_samples: Any, hop_length: int) -> Any:
    """Number of frames in `n_samples` (a number or an array): one centred on each hop."""
    return 1 + n_samples // hop_length


def count_feature_frames(features: FeaturesConfig, n_samples: Any) -> Any:
    """Number of frames in `n_samples`; with kind wave a frame is a sample."""
    return n_samples if features.kind == "wave" else count_frames(n_samples, features.hop_length)


def count_least_samples(features: FeaturesConfig) -> int:
    """Shortest usable recording, in samples: one analysis window.

    For kind wave this is the receptive field of a frame in every published wav2vec 2.0.
    """
    return 400 if features.kind == "wave" else features.n_fft


def count_features(features: FeaturesConfig) -> int:
    """F: numbers in a frame of features."""
    return {
        "wave": 1,
        "logmel": features.n_mels,
        "mfcc": features.n_mfcc,
        "mfcc_chroma": features.n_mfcc + features.n_chroma,
    }[features.kind]


def get_wave(wave: jax.Array) -> jax.Array:
    """The samples themselves as features, [..., N] to [..., N, 1]."""
    return jnp.asarray(wave, jnp.float32)[..., None]


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Slaney's scale: 15 mel at 1 kHz, linear below, logarithmic above (27 mel to 6.4 times)."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


@functools.lru_cache(maxsize=32)
def make_mel_filter(
    rate_hz: int, n_fft: int, n_mels: int, fmin_hz: float, fmax_hz: float | None
) -> np.ndarray:
    """Triangular mel bands of equal area ("slaney" scale and norm), float32 [n_fft // 2 + 1, F].

    Source: M. Slaney, Auditory Toolbox, 1998, as in `librosa.filters.mel`.
    """
    ends_mel = _hz_to_mel(fmin_hz), _hz_to_mel(rate_hz / 2 if fmax_hz is None else fmax_hz)
    edge_hz = _mel_to_hz(np.linspace(*ends_mel, n_mels + 2))[None, :]
    low_hz, mid_hz, high_hz = edge_hz[:, :-2], edge_hz[:, 1:-1], edge_hz[:, 2:]
    bin_hz = (np.arange(n_fft // 2 + 1) * (rate_hz / n_fft))[:, None]
    rising, falling = (bin_hz - low_hz) / (mid_hz - low_hz), (high_hz - bin_hz) / (high_hz - mid_hz)
    triangle = np.maximum(0, np.minimum(rising, falling))
    filter_KF = (triangle * 2 / (high_hz - low_hz)).astype(np.float32)
    filter_KF.flags.writeable = False  # the cache shares it among all callers
    return filter_KF


@functools.lru_cache(maxsize=32)
def make_dct(n_mels: int, n_mfcc: int) -> np.ndarray:
    """Orthonormal DCT-II as a matrix, float32 [n_mels, n_mfcc]."""
    mel, order = np.arange(n_mels)[:, None], np.arange(n_mfcc)[None, :]
    basis = np.cos(np.pi * order * (2 * mel + 1) / (2 * n_mels)) * np.sqrt(2 / n_mels)
    basis[:, 0] /= np.sqrt(2)
    basis = basis.astype(np.float32)
    basis.flags.writeable = False
    return basis


def _frame(wave_BN: jax.Array, n_fft: int, hop_length: int) -> jax.Array:
    """Centred windows, zeros beyond both ends: [B, N] -> [B, T, n_fft]."""
    n_frames = count_frames(wave_BN.shape[-1], hop_length)
    padded_BN = jnp.pad(wave_BN, ((0, 0), (n_fft // 2, n_fft // 2)))
    index = np.arange(n_frames)[:, None] * hop_length + np.arange(n_fft)[None, :]
    return padded_BN[:, index]


def _compute_power(wave_BN: jax.Array, n_fft: int, hop_length: int) -> jax.Array:
    """Power spectrogram under a periodic Hann window, [B, N] -> [B, T, n_fft // 2 + 1]."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frame_BTN = _frame(wave_BN, n_fft, hop_length) * window.astype(np.float32)[None, None, :]
    spectrum_BTK = jnp.fft.rfft(frame_BTN)
    return jnp.square(spectrum_BTK.real) + jnp.square(spectrum_BTK.imag)


def _to_rows(wave: jax.Array | np.ndarray, n_fft: int) -> jax.Array:
    """Samples [..., N], checked, as float32 [B, N]."""
    check(n_fft % 2 == 0, f"features.n_fft={n_fft}: must be even")
    check(wave.shape[-1] > 0, "wave of 0 samples: there is nothing to compute features from")
    if not jnp.issubdtype(wave.dtype, jnp.floating):
        raise TypeError(f"wave of {wave.dtype}: scale to float, full scale 1, first")
    return jnp.asarray(wave, jnp.float32).reshape(-1, wave.shape[-1])


def _to_log_mel(
    power_BTK: jax.Array, rate_hz: int, n_mels: int,
    fmin_hz: float, fmax_hz: float | None, top_db: float | None,
) -> jax.Array:  # fmt: skip
    """Power spectrogram to mel bands in dB, [B, T, K] -> [B, T, F]."""
    n_fft = 2 * (power_BTK.shape[2] - 1)
    filter_KF = make_mel_filter(rate_hz, n_fft, n_mels, fmin_hz, fmax_hz)
    mel_BTF = jnp.matmul(power_BTK, filter_KF, precision=jax.lax.Precision.HIGHEST)
    db_BTF = 10 * jnp.log10(jnp.maximum(mel_BTF, _AMIN))
    if top_db is not None:
        db_BTF = jnp.maximum(db_BTF, db_BTF.max(axis=(1, 2), keepdims=True) - top_db)
    return db_BTF


def _to_cepstrum(db: jax.Array, n_mfcc: int) -> jax.Array:
    """Log-mel spectrogram [..., T, F] to cepstral coefficients [..., T, n_mfcc]."""
    n_mels = db.shape[-1]
    check(n_mfcc <= n_mels, f"features.n_mfcc={n_mfcc}: must not exceed features.n_mels={n_mels}")
    return jnp.matmul(db, make_dct(n_mels, n_mfcc), precision=jax.lax.Precision.HIGHEST)


def compute_log_mel(
    wave: jax.Array | np.ndarray,
    *,
    rate_hz: int,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    fmin_hz: float = 0.0,
    fmax_hz: float | None = None,
    top_db: float | None = 80.0,
) -> jax.Array:
    """Log-mel spectrogram in dB, clip by clip.

    Args:
      wave: floating-point samples, full scale 1, [..., N]; any number of leading axes.
      rate_hz: sample rate.
      n_fft: window and FFT length in samples, even; clips shorter than it are padded with zeros.
      hop_length: samples between frames.
      n_mels: number of mel bands, F.
      fmin_hz, fmax_hz: range of the bands; fmax_hz None is half the rate.
      top_db: floor below the loudest bin of each clip, in dB; None disables it.

    Returns:
      float32 [..., T, F] in dB re 1, T = 1 + N // hop_length. Each clip of the leading axes has its
      own floor, so that a clip's features do not depend on its batch.

    Raises:
      UserError: an empty clip, or an odd n_fft.
      TypeError: integer samples, whose scale is unknown.
    """
    wave_BN = _to_rows(wave, n_fft)
    power_BTK = _compute_power(wave_BN, n_fft, hop_length)
    db_BTF = _to_log_mel(power_BTK, rate_hz, n_mels, fmin_hz, fmax_hz, top_db)
    return db_BTF.reshape(*wave.shape[:-1], *db_BTF.shape[1:])


def compute_mfcc(wave: jax.Array | np.ndarray, *, n_mfcc: int, **log_mel: Any) -> jax.Array:
    """Mel-frequency cepstral coefficients: the orthonormal DCT-II of `compute_log_mel`.

    Args:
      wave: as for `compute_log_mel`, [..., N].
      n_mfcc: number of coefficients to keep, at most n_mels.
      **log_mel: the keywords of `compute_log_mel`.

    Returns:
      float32 [..., T, n_mfcc].

    Raises:
      UserError, TypeError: as `compute_log_mel`; more coefficients than bands.
    """
    return _to_cepstrum(compute_log_mel(wave, **log_mel), n_mfcc)


def compute_mfcc_chroma(
    wave: jax.Array | np.ndarray,
    *,
    rate_hz: int,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    n_mfcc: int,
    n_chroma: int,
    fmin_hz: float = 0.0,
    fmax_hz: float | None = None,
    top_db: float | None = 80.0,
) -> jax.Array:
    """MFCC followed by chroma, from one spectrogram.

    The chroma are tuned to each clip by `estimate_tuning`, in which frames centred beyond the last
    sample other than 0 have no vote, so that padding changes nothing.

    Args:
      wave: as for `compute_log_mel`, [..., N], with its other keywords.
      n_mfcc: number of cepstral coefficients, at most n_mels.
      n_chroma: number of pitch classes.

    Returns:
      float32 [..., T, n_mfcc + n_chroma].

    Raises:
      UserError, TypeError: as `compute_mfcc`.
    """
    wave_BN = _to_rows(wave, n_fft)
    power_BTK = _compute_power(wave_BN, n_fft, hop_length)
    db_BTF = _to_log_mel(power_BTK, rate_hz, n_mels, fmin_hz, fmax_hz, top_db)
    end_B = (jnp.arange(1, wave_BN.shape[1] + 1)[None, :] * (wave_BN != 0)).max(axis=1)
    real_BT = hop_length * jnp.arange(power_BTK.shape[1])[None, :] <= end_B[:, None]
    pitch = {"rate_hz": rate_hz, "n_chroma": n_chroma}
    chroma_BTC = compute_chroma(power_BTK, estimate_tuning(power_BTK, real_BT, **pitch), **pitch)
    x_BTF = jnp.concatenate([_to_cepstrum(db_BTF, n_mfcc), chroma_BTC], axis=2)
    return x_BTF.reshape(*wave.shape[:-1], *x_BTF.shape[1:])


def make_front_end(features: FeaturesConfig, rate_hz: int) -> Callable[..., jax.Array]:
    """A function from waves [..., N] to features [..., T, F]; jit it, vmap it, or call it."""
    settings: dict[str, Any] = {
        "rate_hz": rate_hz,
        "n_fft": features.n_fft,
        "hop_length": features.hop_length,
        "n_mels": features.n_mels,
        "fmin_hz": features.fmin_hz,
        "fmax_hz": features.fmax_hz,
        "top_db": features.top_db,
    }
    if features.kind == "wave":
        return get_wave
    if features.kind == "logmel":
        return functools.partial(compute_log_mel, **settings)
    settings["n_mfcc"] = features.n_mfcc
    if features.kind == "mfcc":
        return functools.partial(compute_mfcc, **settings)
    return functools.partial(compute_mfcc_chroma, n_chroma=features.n_chroma, **settings)
