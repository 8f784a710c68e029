"""The processor and its available cores."""

import contextlib
import os
import platform
from pathlib import Path

from ser_jax.errors import count_noun


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def name_processor() -> str:
    """The processor's own name and the cores that this process may use: `AMD EPYC, 2 cores`."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {count_noun(count_cores(), 'core')}"
