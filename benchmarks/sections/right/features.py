"""Log-mel spectrogram and MFCC: a batch on the device against clip by clip on the CPU."""

from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.sections.right.checks import Check, Places, run_on
from ser_jax.config import FeaturesConfig
from ser_jax.features.frontend import make_front_end

RATE_HZ = 16000


def draw_clips(n_clips: int, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Tones in noise, each clip softer and shorter than the last, zeros behind; [B, N] and [B]."""
    rng, n = np.random.default_rng(0), np.arange(n_samples)
    length_B = np.linspace(n_samples, n_samples * 0.6, n_clips).astype(np.int32)
    wave_BN = np.zeros((n_clips, n_samples), np.float32)
    for row_N, length, loudness in zip(
        wave_BN, length_B, np.geomspace(0.3, 0.01, n_clips), strict=True
    ):
        hz = np.cumsum(200 + 80 * np.sin(2 * np.pi * n[:length] / RATE_HZ))
        tone_N = np.sin(2 * np.pi * hz / RATE_HZ) + 0.3 * np.sin(6 * np.pi * hz / RATE_HZ)
        row_N[:length] = loudness * (tone_N + 0.1 * rng.standard_normal(length))
    return wave_BN, length_B


def _compare(places: Places, kind: Any) -> tuple[Any, Any]:
    front_end = make_front_end(FeaturesConfig(kind=kind, hop_length=512), RATE_HZ)
    wave_BN, _ = draw_clips(2 if places.dry else 8, 8000 if places.dry else round(5.272 * RATE_HZ))
    # At default precision: the front end itself asks for the highest where it matters.
    found = run_on(places.device, front_end, wave_BN, precision="default")
    return found, run_on(places.cpu, lambda x_BN: jax.lax.map(front_end, x_BN), wave_BN)


def list_checks(places: Places) -> list[list[Check]]:
    """Both kinds of features; the bound is 0.01 dB of 100."""
    return [
        [Check(f"features: {kind}", 1e-4, partial(_compare, places, kind))]
        for kind in ("logmel", "mfcc")
    ]
