"""Training by several processes: who takes part, which rows are whose, and how it ends.

By hand (`parallel.coordinator`, `num_processes`, `process_id`), or as SLURM or a TPU pod says.
"""

import atexit
import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ser_jax.config import ParallelConfig
from ser_jax.errors import UserError, check
from ser_jax.machine.jax_private import detect_processes, has_started
from ser_jax.multihost.rendezvous import admit, present_oneself, start_relay
from ser_jax.multihost.watch import GRACE_S, Peer, Watch
from ser_jax.progress import be_silent

START_S = 120.0
"""How long the processes wait for each other at the start."""
JAX_HEARTBEAT_S = 30
"""JAX' own heartbeat_timeout_seconds: it would abort after 15 to 31 s, the watch comes first."""


_BY_HAND = "start one with each --parallel.process_id, and the same --parallel.coordinator"
_BY_SRUN = (
    "start ser-jax itself by srun, which starts one per task, or train in one process with "
    "--parallel.num_processes 1"
)


class Processes(NamedTuple):
    """This process among those that train together: its number, of how many."""

    index: int
    count: int


_ALONE = Processes(0, 1)
_processes: Processes | None = None
_watch: Watch | None = None


class Place(NamedTuple):
    """Where this process stands, before it has met the others."""

    address: tuple[str, int]
    count: int
    process: int
    local_device_ids: list[int] | None
    counted_by: str
    """What says how many processes there are, for messages."""


def initialize(parallel: ParallelConfig, *, start_s: float = START_S) -> Processes:
    """Meet the other processes and join their devices; nothing to do for one process.

    Once per program, before anything is computed: a second call returns what the first did, once it
    has found the same settings good. From here on the program ends with one line and status
    `watch.DIED` when another process dies.

    Args:
      parallel: coordinator, num_processes, process_id, heartbeat_s.
      start_s: how long to wait for the others.

    Raises:
      UserError: settings that do not fit together, or a process that is not there.
      RuntimeError: something was computed before, or by another number of processes.
    """
    global _processes, _watch
    place = find_place(parallel)
    if _processes is not None:
        if place is not None and place.count != _processes.count:
            raise RuntimeError(f"initialize() has been called before, for {_processes.count}")
        return _processes
    if place is None or place.count == 1:
        _processes = _ALONE
        return _processes
    if has_started():
        raise RuntimeError("initialize() must come before anything is computed with JAX")
    me = Peer(place.process, place.count, socket.gethostname(), os.getpid())
    host, port = place.address
    if me.process == 0:
        with _listen(host, port) as listener:
            jax_port = _find_free_port(host)
            remedy = _BY_SRUN if place.counted_by.startswith("SLURM") else _BY_HAND
            links, peers = admit(
                listener, me, {"port": jax_port},
                start_s=start_s, counted_by=place.counted_by, remedy=remedy,
            )  # fmt: skip
    else:
        link, welcome, peers = present_oneself(place.address, me, start_s=start_s)
        links, host, jax_port = {0: link}, "127.0.0.1", start_relay((host, welcome["port"]))
    _watch = Watch(me, links, peers, parallel.heartbeat_s)
    jax.distributed.initialize(
        f"{host}:{jax_port}", me.count, me.process, place.local_device_ids,
        cluster_detection_method="deactivate", heartbeat_timeout_seconds=JAX_HEARTBEAT_S,
    )  # fmt: skip
    _connect_devices()
    if me.process != 0:
        be_silent()
    _processes = Processes(me.process, me.count)
    return _processes


def find_place(parallel: ParallelConfig) -> Place | None:
    """From the settings, and what they leave out from SLURM or the TPU pod; None: one process."""
    by_hand = (parallel.coordinator, parallel.num_processes, parallel.process_id)
    if parallel.num_processes == 1:
        return None
    if by_hand == (None, None, None) and not _on_slurm():
        return None
    local_device_ids = None
    coordinator, count, process = by_hand
    if None in by_hand or _on_slurm():
        coordinator, count, process, local_device_ids = detect_processes(
            *by_hand, timeout_s=int(START_S)
        )
    found = {"coordinator": coordinator, "num_processes": count, "process_id": process}
    given = " ".join(f"parallel.{k}={v}" for k, v in found.items() if v is not None)
    for key, value in found.items():
        check(
            value is not None,
            f"parallel.{key}: missing beside {given}; give it, or start by srun on SLURM",
        )
    assert coordinator is not None
    assert count is not None
    assert process is not None
    check(
        process < count,
        f"parallel.process_id={process}: must lie between 0 and {count - 1} with "
        f"parallel.num_processes={count}",
    )
    host, _, port = coordinator.rpartition(":")
    ids = None if local_device_ids is None else list(local_device_ids)
    by_slurm = by_hand[1] is None and _on_slurm()
    counted_by = f"{'SLURM_NTASKS' if by_slurm else 'parallel.num_processes'}={count}"
    return Place((host.strip("[]"), int(port)), count, process, ids, counted_by)


def _on_slurm() -> bool:
    """Whether srun started this program more than once."""
    keys = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    count = os.environ.get("SLURM_NTASKS", "1")
    return all(key in os.environ for key in keys) and count.isdecimal() and int(count) > 1


def _listen(host: str, port: int) -> socket.socket:
    """Listen on `port` of every address of this host, or only where `host` is the loopback."""
    loopback = host == "localhost" or host.startswith("127.")
    try:
        if loopback or not socket.has_dualstack_ipv6():
            return socket.create_server(("127.0.0.1" if loopback else "", port))
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"parallel.coordinator={host}:{port}: process 0 cannot listen there: {reason}; choose "
            "another port"
        ) from error


def _find_free_port(host: str) -> int:
    with socket.create_server(("", 0)) as listener:
        return listener.getsockname()[1]


def _connect_devices() -> None:
    """A first exchange; gloo says on standard output that it has connected what it connects."""
    sharding = NamedSharding(Mesh(np.asarray(jax.devices()), ("all",)), PartitionSpec("all"))
    ones = np.ones(jax.device_count(), np.float32)
    with _silent_output() if jax.default_backend() == "cpu" else contextlib.nullcontext():
        x = jax.make_array_from_callback(ones.shape, sharding, lambda index: ones[index])
        jax.block_until_ready(jax.jit(jnp.sum)(x))


@contextlib.contextmanager
def _silent_output() -> Iterator[None]:
    sys.stdout.flush()
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)


def is_writer() -> bool:
    """Whether this process writes the run's directory and prints: process 0 alone does."""
    return _processes is None or _processes.index == 0


@contextlib.contextmanager
def taking_part(parallel: ParallelConfig) -> Iterator[Processes]:
    """`initialize`, and at the end tell the others whether this process ends well, or why not."""
    processes = initialize(parallel)
    try:
        yield processes
    except BaseException as error:
        _leave(error)
        raise
    if _watch is not None:
        jax.distributed.shutdown()  # waits for all; the watch is still on
        _watch.leave(0, "")


def _leave(error: BaseException) -> None:
    if _watch is None:
        return
    if isinstance(error, KeyboardInterrupt):
        status, reason = 130, "was interrupted; the same commands go on"
    else:
        # A dead process makes collectives fail here: the watch says so first, and ends this one.
        time.sleep(GRACE_S)
        if isinstance(error, UserError):
            status, reason = 2, f"stopped: {error}"
        else:
            if _watch.ending:  # its error is the cause of this one, and is said in its time
                time.sleep(3 * GRACE_S)
            status, reason = 1, f"stopped: {type(error).__name__}: {error}"
    _watch.leave(status, reason)
    # JAX would wait at exit for processes that wait for this one.
    atexit.register(_exit_at_once, status)


def _exit_at_once(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
