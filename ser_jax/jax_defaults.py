"""What the user's JAX_ variables must not change: types, random numbers, which device there is."""

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

from ser_jax.errors import UserError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def with_jax_defaults(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` under JAX's own defaults in the thread that runs it.

    Under JAX_ENABLE_X64 an array made without a type has 64 bits, and a network that was trained in
    float32 would be another one. Under another JAX_DEFAULT_PRNG_IMPL one seed gives another run,
    and one that was begun could not be resumed. The caller's own settings are back when `function`
    returns.

    Raises:
      UserError: JAX finds no device, such as that which JAX_PLATFORMS names; and what `function`
        raises.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with contextlib.ExitStack() as stack:
            for setting in (
                jax.enable_x64(False),
                jax.numpy_dtype_promotion("standard"),
                jax.default_prng_impl("threefry2x32"),
                jax.threefry_partitionable(True),
            ):
                stack.enter_context(setting)
            try:
                return function(*args, **kwargs)
            except (RuntimeError, AssertionError):
                _check_devices()
                raise

    return run


def _check_devices() -> None:
    """Raise where an error came of it that JAX has no device.

    Asked afterwards: whoever asks takes an accelerator's memory, which a grid's workers need.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = jax.config.values["jax_platforms"]
        wanted = f"JAX_PLATFORMS={platforms}" if platforms else "JAX"
        reason = " ".join(str(error).partition(" (set ")[0].split())[:200]
        raise UserError(
            f"{wanted}: no such device can be used ({reason or 'JAX knows none'}); unset "
            "JAX_PLATFORMS, or install JAX for the device, such as by pip install 'ser-jax[cuda]'"
        ) from error
