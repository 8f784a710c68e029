"""What a process settles before JAX computes: its memory allocator, kept programs, counted work."""

import contextlib
import ctypes
import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from ser_jax.config import ParallelConfig
from ser_jax.files.atomic import expand
from ser_jax.machine.cores import count_cores
from ser_jax.machine.jax_private import reset_compile_cache

# Numbers of glibc's malloc.h and of Linux' mman.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 << 20
_USERS_OWN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")

ROWS_PER_CORE = 16
"""Least rows of a batch that are worth a device: with fewer its overhead weighs."""

CACHE_BYTES = 1 << 30
"""Size to which the kept programs of one kind of machine are cut back, the oldest first."""


def settle(parallel: ParallelConfig) -> None:
    """Keep compiled programs; call it before the first computation. What was settled once stays.

    The allocator is left to whom the process belongs: the command line calls `tune_for_cpu`.
    """
    use_compile_cache(parallel.cache_dir)


_made_devices = False
"""Whether `use_all_cores` made the CPU's devices, and not the user."""


def use_all_cores(parallel: ParallelConfig, batch_size: int, n_cores: int | None = None) -> int:
    """Make each core a device on CPU, if batches are large enough to be shared out.

    XLA splits products over threads but not the rest of a step; devices share out all of it. To be
    called before JAX meets its devices; GPUs and TPUs are left as they are.

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
    except RuntimeError:  # too late: JAX has met them
        return 1
    _made_devices = True
    return count


def choose_devices(batch_size: int) -> tuple[Any, ...]:
    """The devices that share out batches: all, but of those of `use_all_cores` no more than pay.

    So a run takes the same number alone as beside runs with larger batches.
    """
    devices = tuple(jax.devices())
    return devices[: max(1, batch_size // ROWS_PER_CORE)] if _made_devices else devices


# The allocator.

_tuned: bool | None = None


def tune_for_cpu() -> bool:
    """`tune_allocator` where JAX computes on CPU, for a process whose owner asks for it.

    Call it after `use_all_cores` and after processes have met, since JAX may have to be asked for
    its devices; and before anything is computed: XLA's threads, once they run, escape it in part.
    """
    return _computes_on_cpu() and tune_allocator()


def _computes_on_cpu() -> bool:
    """What `jax.default_backend` would say, without a backend made where that is certain."""
    if platforms := jax.config.values["jax_platforms"]:
        return platforms.partition(",")[0] == "cpu"
    homes = ("jax_plugins", "libtpu")
    if not any(map(find_spec, homes)) and not entry_points(group="jax_plugins"):
        return True
    return jax.default_backend() == "cpu"


def tune_allocator() -> bool:
    """Keep freed memory in the process, in huge pages, instead of giving it back at each step.

    XLA frees and asks for its buffers anew at each step on CPU; glibc gives blocks of that size
    back to the system, and the system clears every page again.

    Returns:
      Whether the allocator is glibc's and was tuned; not where the user has tuned it by
      environment variables.
    """
    global _tuned
    if _tuned is None:
        _tuned = _tune()
    return _tuned


def _tune() -> bool:
    if platform.libc_ver()[0] != "glibc" or any(key.startswith(_USERS_OWN) for key in os.environ):
        return False
    libc = ctypes.CDLL(None)
    # One arena: those of other threads live in maps of 64 MB that glibc gives back in any case.
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1}
    done = [libc.mallopt(key, value) for key, value in settings.items()]
    _reserve(libc, _choose_reserve())
    return all(done)


def _choose_reserve() -> int:
    """Bytes of address space that the heap takes in advance; memory only as they are used."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(8 << 30, physical // 2)


def _reserve(libc: ctypes.CDLL, size: int) -> None:
    """Lengthen the heap by `size` bytes of huge pages, where the system gives them on request."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = libc.malloc(size)
    if not block:  # a limit on address space: the heap grows as it must
        return
    start = block + -block % _HUGE_PAGE
    libc.madvise(start, (block + size - start) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
    libc.free(block)


# Kept programs.


def use_compile_cache(cache_dir: str | None) -> Path | None:
    """Keep compiled programs between processes, however short their compilation.

    Args:
      cache_dir: folder shared by machines, each kind with a folder of its own in it; None: nothing
        is kept.

    Returns:
      The folder in use; None for none, as where it cannot be written. A folder set before, by
      JAX_COMPILATION_CACHE_DIR say, stays.
    """
    if (before := jax.config.values["jax_compilation_cache_dir"]) is not None:
        return Path(before)
    if cache_dir is None:
        return None
    folder = expand(cache_dir) / name_machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _cut_back(folder, CACHE_BYTES)
    except OSError:  # a cache is no reason to stop
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    reset_compile_cache()
    return folder


def name_machine() -> str:
    """The kind of this machine's processor: XLA compiles for the very features that it finds."""
    facts = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        facts += sorted(line for line in lines if line.startswith(("flags", "Features", "model")))
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
    return f"{platform.machine()}-{digest}"


def _cut_back(folder: Path, n_bytes: int) -> None:
    """Delete the oldest files of `folder` until the others have at most `n_bytes`.

    JAX' own limit takes a lock for each program, and fails where a file system has none.
    """
    found = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process cuts back as well
            stat = path.stat()
            found.append((stat.st_mtime, stat.st_size, path))
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > n_bytes or size == 0:  # nothing in it: its writer was killed
            path.unlink(missing_ok=True)


# Counted work.


@dataclass
class Work:
    """What JAX did that a process with everything at hand need not do.

    Attributes:
      traces: functions traced to programs.
      compilations: programs compiled, or read from the kept ones.
      hits, misses: programs that were among the kept ones, and that were not.
    """

    traces: int = 0
    compilations: int = 0
    hits: int = 0
    misses: int = 0


_DURATIONS = {
    "/jax/core/compile/jaxpr_trace_duration": "traces",
    "/jax/core/compile/backend_compile_duration": "compilations",
}
_EVENTS = {
    "/jax/compilation_cache/cache_hits": "hits",
    "/jax/compilation_cache/cache_misses": "misses",
}
_counting: list[Work] = []
_listening = False


@contextlib.contextmanager
def count_work() -> Iterator[Work]:
    """Count what is traced and compiled inside the block."""
    global _listening
    if not _listening:  # JAX has no public way to take a listener back
        jax.monitoring.register_event_duration_secs_listener(_on_duration)
        jax.monitoring.register_event_listener(_on_event)
        _listening = True
    work = Work()
    _counting.append(work)
    try:
        yield work
    finally:
        _counting.remove(work)


def _on_duration(event: str, duration_secs: float, **_: object) -> None:
    _add(_DURATIONS.get(event))


def _on_event(event: str, **_: object) -> None:
    _add(_EVENTS.get(event))


def _add(kind: str | None) -> None:
    if kind is not None:
        for work in _counting:
            setattr(work, kind, getattr(work, kind) + 1)
