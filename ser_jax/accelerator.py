"""What JAX computes on, as far as programs are made for it, and how they are compiled for it."""

import os
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import backend

# What XLA finds by compiling dozens of candidates for every product and every fusion: minutes for
# a training step, which without them takes no longer (benchmarks/README.md).
_SEARCHES = ("xla_gpu_enable_triton_gemm", "xla_gpu_experimental_enable_fusion_autotuner")


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
    """XLA's settings for this process' devices, beside its own; what `XLA_FLAGS` names is left."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: False for name in _SEARCHES if has_cuda() and name not in flags}


def jit(function: Callable[..., Any], **settings: Any) -> Any:
    """`jax.jit` with `choose_compiler_options`, for what is compiled by itself: JAX refuses options
    inside another program."""
    return jax.jit(function, compiler_options=choose_compiler_options() or None, **settings)
