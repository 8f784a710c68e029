"""Everything is computed in 32 bits, whatever JAX_ENABLE_X64 says."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

_P = ParamSpec("_P")
_R = TypeVar("_R")


def in_32_bits(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` with JAX's 64-bit types switched off in the thread that runs it.

    With JAX_ENABLE_X64 an array made without a type has 64 bits, and a network that was trained in
    float32 would be another one. The caller's own setting is back when `function` returns.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return run
