"""glibc's memory allocator, told to keep what XLA frees at each step on CPU."""

import ctypes
import os
import platform
from importlib.metadata import entry_points
from importlib.util import find_spec

import jax

# Numbers of glibc's malloc.h and of Linux' mman.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 << 20
_USERS_OWN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")

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
