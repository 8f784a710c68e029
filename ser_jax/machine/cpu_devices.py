"""CPU cores as devices that share a batch."""

import os
from typing import Any

import jax

from ser_jax.config import ParallelConfig
from ser_jax.machine.cores import count_cores

ROWS_PER_CORE = 16
"""Rows of a batch that are worth a device: with fewer, overhead dominates."""

_made_devices = False
"""Whether `use_all_cores` made the CPU's devices, and not the user."""


def use_all_cores(parallel: ParallelConfig, batch_size: int, n_cores: int | None = None) -> int:
    """Make each core a device on CPU, if batches are large enough to shard.

    XLA splits matrix products over threads but not the rest of a step; devices share all of it.
    Call it before JAX initialises its devices; GPUs and TPUs are left as they are.

    Args:
      parallel, batch_size: of the run.
      n_cores: cores to count on; `None`: those of this process. A grid's worker has one core but
        as many devices as a run alone, since their number decides the order of its sums.

    Returns:
      The number of CPU devices asked for; 1 where the user has set it, or for several processes.
    """
    global _made_devices
    count = min(n_cores or count_cores(), batch_size // ROWS_PER_CORE)
    is_users = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    together = (parallel.num_processes or 1) > 1 or parallel.coordinator is not None
    if parallel.mode == "jit" or together or is_users or count < 2:
        return 1
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # too late: JAX has initialised them
        return 1
    _made_devices = True
    return count


def choose_devices(batch_size: int) -> tuple[Any, ...]:
    """The devices that share a batch: all, but of those of `use_all_cores` only as many as pay.

    So a run takes the same number alone as beside runs with larger batches.
    """
    devices = tuple(jax.devices())
    return devices[: max(1, batch_size // ROWS_PER_CORE)] if _made_devices else devices
