"""The kind of device that JAX computes on, and how programs are compiled for it."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import backend

# What XLA would time compiled candidates for. On an H200 products by Triton make a step of an LSTM
# 17 % shorter and its compilation twice as long, which pays from some 6,000 steps on; fusions gain
# nothing (benchmarks/README.md).
_SEARCHES = ("xla_gpu_enable_triton_gemm", "xla_gpu_experimental_enable_fusion_autotuner")
_tracing = threading.Lock()


def on_accelerator() -> bool:
    """Whether this process computes on GPU or TPU."""
    return jax.default_backend() != "cpu"


def has_cuda() -> bool:
    """Whether this process computes on NVIDIA GPUs."""
    return "cuda" in backend.get_backend().platform_version


def has_fused_attention() -> bool:
    """Whether this process computes on NVIDIA GPUs that cuDNN's fused attention runs on: Ampere or
    later."""
    return has_cuda() and all(float(x.compute_capability) >= 8 for x in jax.local_devices())


def choose_compiler_options() -> dict[str, bool]:
    """XLA's settings for the devices of this process, except those that `XLA_FLAGS` names."""
    if not has_cuda():
        return {}
    flags = os.environ.get("XLA_FLAGS", "").split()
    named = {flag.removeprefix("--").partition("=")[0] for flag in flags}
    return {name: False for name in _SEARCHES if name not in named}


def jit(function: Callable[..., Any], **settings: Any) -> Any:
    """`jax.jit` with `choose_compiler_options`, for what is compiled by itself: JAX refuses options
    inside another program."""
    return jax.jit(function, compiler_options=choose_compiler_options() or None, **settings)


def compile_ahead(jitted: Any, *arguments: Any) -> tuple[Any, float]:
    """The program of a `jit`ted function for arguments, or shapes, like these, and the seconds that
    it took.

    Of several threads one traces at a time: Python runs one of them anyway, and so the first is
    with XLA, which does not need Python, while the next is traced.
    """
    with _tracing:
        start_s = time.perf_counter()
        lowered = jitted.lower(*arguments)
    return lowered.compile(), time.perf_counter() - start_s
