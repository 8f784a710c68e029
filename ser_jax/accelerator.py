"""What JAX computes on, as far as programs are made for it."""

import jax
from jax.extend import backend


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
