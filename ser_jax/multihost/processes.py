"""Training by several processes: how this one joins the others by `jax.distributed`, and leaves."""

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax

from ser_jax.config import ParallelConfig
from ser_jax.errors import UserError, check
from ser_jax.multihost.launchers import find_launcher, find_process_count, say_how_to_meet
from ser_jax.multihost.supervisor import START_S
from ser_jax.progress import be_silent

NOTICE_S = 5.0
"""How long a process waits for others before it says so."""
GRACE_S = 2.0
"""How long a process with an error waits before it leaves, since JAX then ends the others: they may
be about to report the same error."""


def is_writer() -> bool:
    """Whether this process writes the run's directory and prints: process 0 alone does."""
    return jax.process_index() == 0


@contextlib.contextmanager
def taking_part(parallel: ParallelConfig) -> Iterator[None]:
    """Join the processes that train together; nothing to do for one process.

    To be entered before anything is computed. Where the program has called
    `jax.distributed.initialize` itself, that holds. When another process dies, JAX ends this one.

    Args:
      parallel: coordinator, num_processes, process_id, heartbeat_s.

    Raises:
      UserError: settings that do not fit together, or a port that is in use.
      RuntimeError: something was computed before.
    """
    counted_by = find_process_count(parallel)
    if counted_by is None or jax.distributed.is_initialized():
        yield
        return
    try:
        _join(parallel, counted_by)
        yield
    except BaseException as error:
        if jax.distributed.is_initialized():
            # The death of another process makes an exchange fail before JAX notices it and ends
            # this one, which says more.
            failed = isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)
            time.sleep(2 * parallel.heartbeat_s if failed else GRACE_S)
            _leave_at_exit(error)
        raise
    jax.distributed.shutdown()  # waits for all


def _join(parallel: ParallelConfig, counted_by: str) -> None:
    given = parallel.coordinator, parallel.num_processes, parallel.process_id
    address = parallel.coordinator or ""
    is_local = address.startswith(("localhost:", "127."))
    if address and parallel.process_id == 0:
        _check_port(address, is_local)
    with _announcing_wait(counted_by), _heeding_sigterm():
        try:
            jax.distributed.initialize(
                *given,
                # A launcher also says which of a host's devices are whose.
                cluster_detection_method=None if None in given or find_launcher() else "deactivate",
                initialization_timeout=START_S,
                heartbeat_timeout_seconds=parallel.heartbeat_s,
                coordinator_bind_address=address if is_local else None,
            )
        except ValueError as error:
            raise UserError(_name_missing(parallel) or str(error)) from error
        except jax.errors.JaxRuntimeError as error:
            raise UserError(
                f"{counted_by}: process 0 cannot listen ({error}); set JAX_COORDINATOR_PORT for all"
            ) from error
    count = parallel.num_processes
    check(
        count in (None, jax.process_count()),
        f"parallel.num_processes={count}: the other processes count {jax.process_count()}; give "
        "the same number to all",
    )
    if not is_writer():
        be_silent()


def _check_port(address: str, is_local: bool) -> None:
    """Raise if process 0 cannot listen, which JAX does not explain."""
    port = int(address.rpartition(":")[2])
    try:
        socket.create_server(("127.0.0.1" if is_local else "", port)).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"parallel.coordinator={address}: process 0 cannot listen there: {reason}; choose "
            "another port"
        ) from error


def _name_missing(parallel: ParallelConfig) -> str | None:
    keys = ("coordinator", "num_processes", "process_id")
    found = {key: getattr(parallel, key) for key in keys}
    given = " ".join(f"parallel.{k}={v}" for k, v in found.items() if v is not None)
    for key, value in found.items():
        if value is None:
            return (
                f"parallel.{key}: missing beside {given}; give it, or start by what "
                "jax.distributed recognises, such as srun on SLURM"
            )
    return None


@contextlib.contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """Have JAX leave SIGTERM alone, which it would take as a note of coming preemption."""
    before = jax.config.values["jax_enable_preemption_service"]
    jax.config.update("jax_enable_preemption_service", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_preemption_service", before)


@contextlib.contextmanager
def _announcing_wait(counted_by: str) -> Iterator[None]:
    """Say after `NOTICE_S` that this process waits for others."""
    notice = (
        f"{counted_by}: waiting up to {START_S:g} s for the other processes; if none is to come, "
    )
    timer = threading.Timer(
        NOTICE_S, print, [notice + say_how_to_meet(counted_by)], {"file": sys.stderr, "flush": True}
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _leave_at_exit(error: BaseException) -> None:
    """Let the interpreter end at once: JAX would wait for processes that wait for this one."""
    status = {UserError: 2, KeyboardInterrupt: 130}.get(type(error), 1)

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)
