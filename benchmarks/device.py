"""The device's name, versions, peak rates and memory; equal threads. Runs inside workers."""

import contextlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_jax.machine.cores import count_cores, name_processor

# TFLOP/s, dense, and TB/s, from NVIDIA's data sheets, by the device's own name.
GPU_PEAKS: dict[str, dict[str, float]] = {
    "H200": {"float32": 67, "tf32": 495, "bfloat16": 989, "memory": 4.8},
    "H100 PCIe": {"float32": 51, "tf32": 378, "bfloat16": 756, "memory": 2.0},
    "H100": {"float32": 67, "tf32": 495, "bfloat16": 989, "memory": 3.35},
    "A100": {"float32": 19.5, "tf32": 156, "bfloat16": 312, "memory": 2.0},
    "L40S": {"float32": 91.6, "tf32": 183, "bfloat16": 362, "memory": 0.864},
    "L4": {"float32": 30.3, "tf32": 60, "bfloat16": 121, "memory": 0.3},
    "RTX 4090": {"float32": 82.6, "tf32": 82.6, "bfloat16": 165, "memory": 1.008},
    "V100": {"float32": 15.7, "tf32": 15.7, "bfloat16": 15.7, "memory": 0.9},
    "T4": {"float32": 8.1, "tf32": 8.1, "bfloat16": 8.1, "memory": 0.32},
}

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def pin(threads: int) -> None:
    """Pin this process to `threads` cores, before any library counts them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def list_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def describe() -> dict[str, Any]:
    """The device that JAX computes on: kind, name, count, cores and peak rates (run in a worker).

    Rates are FLOP/s by precision, and bytes/s under 'memory': from the table for a known GPU,
    measured otherwise. On CPU the float32 rate is the better of two matrix products, JAX's and
    NumPy's, and stands for every precision.
    """
    import jax

    device = jax.devices()[0]
    kind = "cpu" if device.platform == "cpu" else device.platform
    cores = count_cores()
    name = name_processor() if kind == "cpu" else device.device_kind
    table = next((rates for key, rates in GPU_PEAKS.items() if key in name), None)
    if table is not None and kind != "cpu":
        peaks = {key: rate * 1e12 for key, rate in table.items()}
        source = "data sheet"
    else:
        rate = max(_probe_jax(), _probe_numpy())
        peaks = dict.fromkeys(("float32", "tf32", "bfloat16"), rate) | {"memory": _probe_copy()}
        source = "measured: a matrix product of 2048 x 2048, a copy of 128 MiB"
    return {
        "kind": "gpu" if kind in ("gpu", "cuda", "rocm") else kind,
        "name": name,
        "devices": len(jax.devices()),
        "cores": cores,
        "peaks": peaks,
        "peaks_from": source,
    }


def _best_s(function: Any, repeats: int = 8) -> float:
    function()
    times = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        function()
        times.append(time.perf_counter() - start_s)
    return min(times)


def _probe_jax(n: int = 2048) -> float:
    import jax
    import jax.numpy as jnp

    product = jax.jit(lambda a: a @ a)
    a = jnp.ones((n, n), jnp.float32)
    return 2 * n**3 / _best_s(lambda: jax.block_until_ready(product(a)))


def _probe_numpy(n: int = 2048) -> float:
    import numpy as np

    a, out = np.ones((n, n), np.float32), np.empty((n, n), np.float32)
    return 2 * n**3 / _best_s(lambda: np.matmul(a, a, out=out))


def _probe_copy(n_bytes: int = 2**27) -> float:
    import jax
    import jax.numpy as jnp

    double = jax.jit(lambda a: a + 1, donate_argnums=0)
    state = [jnp.zeros(n_bytes // 4, jnp.float32)]

    def copy() -> None:
        state[0] = jax.block_until_ready(double(state[0]))

    return 2 * n_bytes / _best_s(copy)


def reset_peak_memory(side: str) -> None:
    """Reset the measured peak memory, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts again
    if side == "pytorch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()


def read_peak_memory(side: str) -> int:
    """Bytes: on a GPU what the library's allocator held at most, on CPU the process's high-water
    mark of resident memory (interpreter and libraries included, on both sides)."""
    # A library that was never imported holds no memory.
    if side == "ser_jax" and (jax := sys.modules.get("jax")):
        stats = jax.devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            return int(stats["peak_bytes_in_use"])
    elif side == "pytorch":
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0
