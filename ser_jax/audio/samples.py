"""16-bit samples to floats of full scale 1, and back."""

from typing import Any

import numpy as np

FULL_SCALE = 32768  # int16 samples per unit of a float waveform


def to_float(samples: Any) -> Any:
    """int16 samples, of NumPy or JAX, as float32 in [-1, 1), exactly."""
    return samples.astype(np.float32) / FULL_SCALE


def round_to_int16(scaled_N: np.ndarray) -> np.ndarray:
    """Floats at the scale of int16, rounded to int16 and clipped."""
    return np.clip(np.rint(scaled_N), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
