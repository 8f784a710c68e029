"""Compiled programs, kept on disk for the next process."""

import contextlib
import hashlib
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from ser_jax.files.atomic import expand
from ser_jax.machine.jax_private import reset_compile_cache

CACHE_BYTES = 1 << 30
"""Size to which the kept programs of one kind of machine are cut back, the oldest first."""

_KEYS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
_lock = threading.Lock()
_n_scopes = 0
_before: dict[str, Any] = {}


@contextlib.contextmanager
def compile_cache_scope() -> Iterator[None]:
    """Undo `use_compile_cache` on leaving the outermost scope of all threads.

    JAX has these settings for a whole process only, so that other threads see them until then.
    """
    global _n_scopes, _before
    with _lock:
        if _n_scopes == 0:
            _before = {key: jax.config.values[key] for key in _KEYS}
        _n_scopes += 1
    try:
        yield
    finally:
        with _lock:
            _n_scopes -= 1
            if _n_scopes == 0 and _before != {key: jax.config.values[key] for key in _KEYS}:
                for key, value in _before.items():
                    jax.config.update(key, value)
                reset_compile_cache()


def use_compile_cache(cache_dir: str | None) -> Path | None:
    """Keep compiled programs between processes, however short their compilation.

    Call it inside `compile_cache_scope`, before the first computation.

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

    JAX's own limit takes a lock for each program, and fails where a file system has none.
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
