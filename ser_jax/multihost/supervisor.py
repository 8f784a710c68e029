"""The supervisor of a worker: `ser-jax train` as one of several processes runs as its child.

When a process dies, JAX's runtime aborts all others with a C++ stack. The supervisor, which does
not use JAX, turns that into one line and an exit status.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from typing import IO, NoReturn

from ser_jax.config import ParallelConfig
from ser_jax.multihost.launchers import find_process_count, say_how_to_meet

START_S = 120
"""How long the processes wait for each other at the start."""
DIED = 75
"""Exit status when another process has died: EX_TEMPFAIL, the same command resumes."""
INTERRUPT_S = 5.0
"""How long an interrupted worker may take to end, unless Ctrl-C is pressed again."""

_WORKER = "SER_JAX_WORKER"
"""Tells a worker its file descriptors: for the output of C++, and one that closes with the
supervisor."""


def supervise(parallel: ParallelConfig) -> int | None:
    """Run this command line in a worker if it is one of several processes.

    Returns:
      The exit status; `None` where this process itself is to train: alone, or as the worker.
    """
    if _WORKER in os.environ:
        _become_worker()
        return None
    counted_by = find_process_count(parallel)
    if counted_by is None:
        return None
    with tempfile.TemporaryFile() as log, _start_worker(log) as worker:
        signal.signal(signal.SIGTERM, _terminate)
        try:
            status = _wait(worker)
        finally:
            worker.kill()
            worker.wait()
        if status >= 0:  # the worker has said why
            return status
        log.seek(0)
        return _report(-status, log.read().decode(errors="replace"), counted_by, parallel)


@contextlib.contextmanager
def _start_worker(log: IO[bytes]):
    alive, held = os.pipe()
    environment = os.environ | {_WORKER: f"{log.fileno()},{alive}"}
    # A group of its own: a terminal's Ctrl-C reaches the worker once, through this process.
    with subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]], env=environment, pass_fds=(log.fileno(), alive),
        stdin=subprocess.DEVNULL, process_group=0,
    ) as worker:  # fmt: skip
        os.close(alive)
        yield worker
    os.close(held)


def _wait(worker: subprocess.Popen[bytes]) -> int:
    try:
        return worker.wait()
    except KeyboardInterrupt:
        worker.send_signal(signal.SIGINT)
    try:
        status = worker.wait(INTERRUPT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        status = -signal.SIGKILL
    if status < 0:  # ended by force, or by the end of another process that was interrupted too
        raise KeyboardInterrupt
    return status


def _terminate(signal_number: int, frame: object) -> NoReturn:
    del frame
    _say(f"received {signal.Signals(signal_number).name}; {_say_how_to_resume()}")
    sys.exit(128 + signal_number)


def _report(signal_number: int, log: str, counted_by: str, parallel: ParallelConfig) -> int:
    """Say in one line why a signal ended the worker, and return the exit status."""
    if "JAX distributed service detected fatal errors" not in log:
        if signal_number != signal.SIGKILL:
            sys.stderr.write(log)
        name = signal.Signals(signal_number).name
        _say(f"the worker was ended by {name}; {_say_how_to_resume()}")
        return 128 + signal_number
    if "CoordinationService/RegisterTask" in log:
        if "ALREADY_EXISTS" in log:
            _say(f"parallel.process_id={parallel.process_id}: given to two processes; number them "
                 "from 0")  # fmt: skip
        else:
            _say(f"{counted_by}: not all processes came within {START_S:g} s; "
                 f"{say_how_to_meet(counted_by)}")  # fmt: skip
        return 2
    _say(f"{_name_dead(log)} ended, or could not be reached for {parallel.heartbeat_s} s (its own "
         f"output may say why); {_say_how_to_resume()}")  # fmt: skip
    return DIED


def _name_dead(log: str) -> str:
    """The processes that have died, as the coordinator tells all others; itself if it cannot."""
    found = re.search(r"stopped sending heartbeats\):\n((?:\S*\d+\n)+)", log)
    if not found:
        return "process 0 (the coordinator)"
    numbers = re.findall(r"(\d+)\n", found[1])
    return f"process{'es' if len(numbers) > 1 else ''} {' '.join(numbers)}"


def _say_how_to_resume() -> str:
    command = shlex.join(sys.orig_argv)
    return (
        f"to resume from the last finished epoch, start all processes again, this one by: {command}"
    )


def _say(line: str) -> None:
    # A progress bar may have hidden the cursor.
    before, after = ("\r\n", "\x1b[?25h") if sys.stderr.isatty() else ("", "")
    print(f"{before}ser-jax: error: {line}{after}", file=sys.stderr, flush=True)


def _become_worker() -> None:
    """Keep Python's own streams, send what C++ prints to the log, and end with the supervisor."""
    log, alive = map(int, os.environ.pop(_WORKER).split(","))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        number = stream.fileno()
        kept = open(  # noqa: SIM115
            os.dup(number), "w", encoding=stream.encoding, errors=stream.errors, buffering=1
        )
        setattr(sys, name, kept)
        os.dup2(log, number)

    def end_with_supervisor() -> None:
        os.read(alive, 1)
        os._exit(DIED)

    threading.Thread(target=end_with_supervisor, daemon=True).start()
