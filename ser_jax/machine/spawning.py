"""Worker processes, which start from any script or notebook and end with their parent."""

import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator

from ser_jax.errors import UserError, check


@contextlib.contextmanager
def starting_workers(remedy: str) -> Iterator[None]:
    """Start processes inside: they inherit that Ctrl-C is blocked, and do not run `__main__`.

    A process that is spawned runs its parent's script once more, to find the functions that are
    defined there. Without the guard `if __name__ == "__main__":` that would train again in every
    worker, without end. These workers need only functions of this package.

    Args:
      remedy: how to do without workers.

    Raises:
      UserError: the system allows no further process, or has no shared memory.
    """
    check(
        not multiprocessing.current_process().daemon,
        f"worker processes: this process is a daemon, which may start none; {remedy}",
    )
    try:
        with _sigint_held_back(), _main_hidden():
            yield
    except OSError as error:  # no /dev/shm for semaphores, a limit on processes
        raise UserError(
            f"worker processes: cannot be started here: {error.strerror or error}; give the "
            f"machine or container a writable /dev/shm and more processes, or {remedy}"
        ) from error


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _sigint_held_back() -> Iterator[None]:
    """Block Ctrl-C in this thread: a process started inside inherits that."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_with_parent() -> None:
    """In a worker: wait until the parent is gone, then end this process."""
    # A killed parent cleans nothing up, and a worker would wait on a shared queue for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
