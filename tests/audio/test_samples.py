"""Samples of 16 bits become floats without loss, on the host as on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.audio.samples import round_to_int16, to_float

EVERY_N = np.arange(-32768, 32768).astype(np.int16)


@pytest.mark.device
@pytest.mark.parametrize(("convert", "made"), [(np.asarray, np.ndarray), (jnp.asarray, jax.Array)])
def test_every_sample_has_its_own_float_of_full_scale_1(convert, made):
    wave_N = to_float(convert(EVERY_N))
    assert isinstance(wave_N, made)
    assert wave_N.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(wave_N), EVERY_N.astype(np.float64) / 32768)


def test_floats_are_rounded_to_samples_and_clipped_beyond_them():
    np.testing.assert_array_equal(round_to_int16(to_float(EVERY_N) * 32768), EVERY_N)
    found_N = round_to_int16(np.array([-40000.0, -1.4, 2.6, 32767.5], np.float32))
    np.testing.assert_array_equal(found_N, [-32768, -1, 3, 32767])
    assert found_N.dtype == np.int16
