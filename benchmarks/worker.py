"""Run a contestant in its own process, driven turn by turn over a pipe.

Allocator settings, XLA flags and the number of CPU devices are fixed when a process starts, and
peak memory is counted per process. Nothing here imports numpy, jax or torch before the process is
pinned.
"""

import contextlib
import importlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from benchmarks import device
from benchmarks.flops import Work

_SETTINGS = {
    # Every process compiles afresh, on both sides, so that compile times mean something.
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "PYTHONWARNINGS": "ignore",  # about settings such as these
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share the device's memory
}


class Job(NamedTuple):
    """What a builder returns.

    Attributes:
      turn: does the contestant's steps and waits for the device.
      facts: called after the first turn; its JSON-able result goes into the contestant's row.
    """

    turn: Callable[[], Any]
    facts: Callable[[], dict[str, Any]] = dict


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Attributes:
      side: ser_jax, or the name of what it is compared with (pytorch, librosa, audiomentations).
      configuration: how, in words, as the row shows it.
      builder: 'module:function' that makes a `Job` from `arguments`.
      precision: float32, tf32 or bfloat16.
      environment: set before the process starts.
      tuned: whether to tune the memory allocator, as ser_jax's command line does on CPU; PyTorch
        gains as well.
      alone: nothing runs beside its first turn, which gives a compile time of its own.
      threads: cores it may use; None: all that the race has.
      steps: steps (or batches, clips, runs) of one turn.
      clips: clips of one step.
      work: counted work of one step; None: no utilisation and no floor.
      ratio_keys: ratios in which it counts.
    """

    side: str
    configuration: str
    builder: str
    arguments: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    environment: dict[str, str] = field(default_factory=dict)
    tuned: bool = False
    alone: bool = False
    threads: int | None = None
    steps: int = 1
    clips: int = 1
    work: Work | None = None
    ratio_keys: tuple[str, ...] = ()


class Failed(Exception):
    """A contestant cannot take part; the message says why."""


class Worker:
    """The process of one contestant, from the parent's side; starts at once, works when asked.

    Args:
      contestant: who works.
      threads: cores, unless the contestant has a number of its own.
      path: a folder to import packages from first; `None` uses those installed.
    """

    def __init__(self, contestant: Contestant, threads: int, path: str | None = None):
        self.contestant = contestant
        self.threads = contestant.threads or threads
        self._allowed_s: float | None = None
        self._end_s = 0.0
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve,
            args=(theirs, self.threads, contestant.side, contestant.tuned, path),
        )
        omp = {name: str(self.threads) for name in device.THREAD_VARIABLES}
        with _environment({**_SETTINGS, **omp, **contestant.environment}):
            self._process.start()
        theirs.close()

    def allow(self, seconds: float | None) -> None:
        """Kill the process if it has not answered after `seconds`."""
        self._allowed_s = seconds
        self._end_s = time.monotonic() + (seconds or 0)

    def build(self) -> None:
        """Make weights and data without compiling. Not timed."""
        self._ask(("build", self.contestant.builder, self.contestant.arguments))

    def turn(self) -> float:
        """Seconds of one turn."""
        return self._ask(("turn",))

    def read_facts(self) -> dict[str, Any]:
        """What the job reports."""
        return self._ask(("facts",))

    def call(self, function: str, **arguments: Any) -> Any:
        """Call 'module:function' in the process."""
        return self._ask(("call", function, arguments))

    def read_peak_memory(self) -> int:
        """Bytes since the process began to build."""
        return self._ask(("memory",))

    def hang_up(self) -> None:
        """Ask the process to end, without waiting."""
        self._connection.close()

    def close(self) -> None:
        """End the process."""
        self.hang_up()
        self._process.join(5)
        if self._process.exitcode is None:
            self._process.terminate()
            self._process.join(5)
        if self._process.exitcode is None:
            self.kill()

    def kill(self) -> None:
        """Kill the process at once."""
        self._process.kill()
        self._process.join(5)

    def _ask(self, message: tuple) -> Any:
        try:
            self._connection.send(message)
            if not self._connection.poll(self._left_s()):
                self.kill()
                raise Failed(f"not ready after {self._allowed_s:.0f} s")
            fine, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise Failed(f"its process died with status {self._process.exitcode}") from None
        if not fine:
            raise Failed(answer)
        return answer

    def _left_s(self) -> float | None:
        return None if self._allowed_s is None else max(0.0, self._end_s - time.monotonic())


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def look_up(path: str) -> Callable[..., Any]:
    """Look up the function that 'module:function' names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def serve(
    connection: Connection, threads: int, side: str, tuned: bool, path: str | None = None
) -> None:
    """Answer requests until the pipe is closed; runs in the process."""
    device.pin(threads)
    if path is not None:
        _look_first_in(path)
    job: Job | None = None
    answer: Any
    while True:
        try:
            kind, *rest = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if kind == "build":
                _prepare(side, threads, tuned)
                job, answer = look_up(rest[0])(**rest[1]), None
            elif kind == "facts":
                assert job is not None
                answer = job.facts()
            elif kind == "turn":
                assert job is not None
                start_s = time.perf_counter()
                job.turn()
                answer = time.perf_counter() - start_s
            elif kind == "call":
                answer = look_up(rest[0])(**rest[1])
            else:
                answer = device.read_peak_memory(side)
        except Exception as error:
            traceback.print_exc()  # for the log; the row has room for a line
            reason = str(error).strip().splitlines() or [""]
            connection.send((False, f"{type(error).__name__}: {reason[0][:200]}"))
        else:
            connection.send((True, answer))


def _look_first_in(path: str) -> None:
    """Import from `path` before installed packages, here and in child processes."""
    # A spawned process has its parent's sys.path; it is too late for PYTHONPATH.
    sys.path.insert(0, path)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (path, os.getenv("PYTHONPATH"))))


def _prepare(side: str, threads: int, tuned: bool) -> None:
    if tuned:
        from ser_jax.machine.allocator import tune_allocator

        if not tune_allocator():
            raise RuntimeError("the allocator cannot be tuned: no glibc, or MALLOC_ is set already")
    if side == "pytorch":
        import torch

        torch.set_num_threads(threads)
    device.reset_peak_memory(side)
