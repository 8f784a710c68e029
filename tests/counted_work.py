"""How much JAX traces and compiles inside a block."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import jax


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
