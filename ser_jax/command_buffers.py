"""CUDA command buffers: many kernels of a program, launched from the host at once."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.accelerator import has_cuda

_KINDS = (
    "FUSION", "CUBLAS", "CUBLASLT", "CUSTOM_CALL", "CUDNN", "DYNAMIC_SLICE_FUSION", "CONDITIONAL",
    "WHILE", "CONVOLUTION",
)  # fmt: skip
"""What XLA may record. Loops and convolutions are not in its own list: it ends a command buffer at
each of them, and so cuts a training step of CNN-LSTM into dozens of launches."""

Options = tuple[tuple[str, str], ...]
"""(name, value) pairs for the compiler, which can be compared and hashed."""

OPTIONS: Options = (("xla_gpu_enable_command_buffer", ",".join(_KINDS)),)


def jit(function: Callable[..., Any], options: Options, **settings: Any) -> Any:
    """`jax.jit` with options for the compiler."""
    return jax.jit(function, compiler_options=dict(options) or None, **settings)


def choose_options(wish: Literal["auto", "off"]) -> Options:
    """What to compile programs with on JAX's default device.

    Args:
      wish: 'off': XLA's own choice of what it records; 'auto': more, on an NVIDIA GPU where a small
        program with a loop and a convolution comes out right that way.
    """
    if wish == "off" or not has_cuda():
        return ()
    return OPTIONS if try_options(OPTIONS) else ()


@functools.cache
def try_options(options: Options) -> bool:
    """Whether a loop of convolutions, compiled with `options`, runs here and is right.

    XLA renames options from version to version, and what a driver can record differs as well.
    """

    def run(x: jax.Array) -> jax.Array:
        def turn(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
            return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME"), None

        return jax.lax.scan(turn, x, jnp.full((3, 8, 8, 3, 3), 1 / 64))[0]

    program = jit(run, options)
    try:
        # The first run records, a later one plays back what was recorded.
        found = [np.asarray(program(np.ones((1, 8, 8, 8), np.float32))) for _ in range(3)]
    except Exception:  # the kind of error differs as well
        return False
    # Away from the edges each turn multiplies by nine taps of eight channels, each 1 / 64.
    return all(np.allclose(one[0, :, 3:5, 3:5], (9 / 8) ** 3, rtol=1e-2) for one in found)
