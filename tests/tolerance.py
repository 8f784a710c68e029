"""How far apart two results may lie: as a test says on CPU, wider on a device, by reason."""

import os
from typing import Any

import jax
import numpy as np

PLATFORM = os.environ.get("SER_JAX_TEST_PLATFORM", "cpu")
"""Where the tests compute: cpu, cuda or tpu."""

FACTORS = {
    # Sums of some hundred float32 in another order, products fused with sums, and exp, log, tanh
    # and sine to two units in the last place instead of one.
    "order": 10.0,
    # A device's transform of 2048 samples splits them into other factors, and the logarithm of a
    # bin 80 dB below the loudest magnifies its error by a thousand; CPU stays ten times below.
    "fft": 5.0,
    # Convolutions by Winograd's transform, which cuDNN may choose, lose one more decimal.
    "cudnn": 30.0,
}
"""By how much a tolerance of the CPU grows on a device at precision `highest`."""

LEAST = 2e-6
"""What replaces 0 on a device: two programs that agree to the bit on CPU, numbers about 1."""


def tolerance(cpu: float, why: str = "order", *, platform: str = PLATFORM) -> float:
    """The `atol` or `rtol` between two programs that are the same in exact arithmetic.

    Not for one program run twice, nor for chances of random draws, which no device changes.

    Args:
      cpu: the tolerance on CPU.
      why: a key of `FACTORS`.
      platform: 'cpu' leaves `cpu` as it is.
    """
    factor = FACTORS[why]
    return cpu if platform == "cpu" else cpu * factor or LEAST


def assert_near(
    found: Any, expected: Any, *, rtol: float = 1e-7, atol: float = 0.0, why: str = "order"
) -> None:
    """`np.testing.assert_allclose` for trees, with `tolerance` of both on a device."""
    limits: Any = {"rtol": tolerance(rtol, why), "atol": tolerance(atol, why)}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **limits), found, expected)
