"""What the user's JAX_ variables must not change: types, random numbers, which device there is."""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

from ser_jax.errors import UserError, check, one_line
from ser_jax.machine.compile_cache import compile_cache_scope
from ser_jax.machine.jax_private import has_started

_P = ParamSpec("_P")
_R = TypeVar("_R")

_is_fork_of_jax = False
"""Whether this process was forked off one in which JAX had met its devices: a fork takes none of
JAX's threads along, and the first computation would wait for them for ever."""


def _note_fork() -> None:
    global _is_fork_of_jax
    _is_fork_of_jax = has_started()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def with_jax_defaults(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` under JAX's own defaults in the thread that runs it.

    Under JAX_ENABLE_X64 an array made without a type has 64 bits, and a network that was trained in
    float32 would be another one. Under another JAX_DEFAULT_PRNG_IMPL one seed gives another run,
    and one that was begun could not be resumed. A guard of transfers is for a program's own steps,
    not for what reads its results. The caller's own settings are back when `function` returns.

    Raises:
      UserError: JAX finds no device, such as that which JAX_PLATFORMS names; this process was
        forked off one that used JAX; and what `function` raises.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        check(
            not _is_fork_of_jax,
            "this process was forked off one that had used JAX, which would hang here; start it by "
            "multiprocessing.get_context('spawn'), or before anything is trained or predicted",
        )
        with contextlib.ExitStack() as stack:
            for setting in (
                jax.enable_x64(False),
                jax.numpy_dtype_promotion("standard"),
                jax.default_prng_impl("threefry2x32"),
                jax.threefry_partitionable(True),
                jax.transfer_guard("allow"),
                compile_cache_scope(),
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
        reason = one_line(str(error).partition(" (set ")[0], 200)
        raise UserError(
            f"{wanted}: no such device can be used ({reason or 'JAX knows none'}); unset "
            "JAX_PLATFORMS, or install JAX for the device, such as by pip install 'ser-jax[cuda]'"
        ) from error
