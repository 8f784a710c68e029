"""Race steps: contestants warmed up, synchronised and interleaved in one run.

Contestants are prepared first: built, and run for one turn, which compiles. On CPU this happens one
after another; where a device does the timed work, side by side. Then come rounds in which every
contestant has one turn, in a rotating order, so that drift of the machine affects all. Only one
works at a time; the others sleep in their own processes.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import results
from benchmarks.device import count_cores
from benchmarks.figures import make_row, mark_differing
from benchmarks.worker import Contestant, Failed, Worker

_SETTLE_S = 0.01  # OpenMP's threads spin for some milliseconds after their last work

Row = dict[str, Any]
OnRows = Callable[[list[Row]], None]


def order_turns(n: int, turn: int) -> list[int]:
    """Order the contestants' numbers for round `turn`; each is first in some round."""
    return [(turn + i) % n for i in range(n)]


def count_parallel(options: argparse.Namespace) -> int:
    """Count the contestants to prepare at once: `options.parallel`, else by device."""
    asked = getattr(options, "parallel", None)
    return asked or (1 if options.device["kind"] == "cpu" else count_cores())


def count_left_s(options: argparse.Namespace) -> float:
    """Seconds until `options.end_s` of the monotonic clock; infinite without a limit."""
    end_s = getattr(options, "end_s", None)
    return math.inf if end_s is None else end_s - time.monotonic()


def is_over(options: argparse.Namespace) -> bool:
    """Whether the command line's time limit has passed."""
    return count_left_s(options) <= 0


def start_worker(contestant: Contestant, options: argparse.Namespace) -> Worker:
    """Start a contestant's process; ser_jax's import from `options.ours_path` first."""
    path = getattr(options, "ours_path", None) if contestant.side == results.OURS else None
    return Worker(contestant, options.threads, path)


def skip(place: dict[str, Any]) -> list[Row]:
    """Return no rows, and print a line that says so."""
    words = ", ".join(str(value) for value in place.values())
    print(f"{words}: skipped, the time is up", flush=True)
    return []


def report(rows: list[Row], options: argparse.Namespace, on_rows: OnRows | None) -> None:
    """Print rows and pass them on."""
    results.print_rows(rows)
    tell = on_rows or getattr(options, "on_rows", None)
    if tell is not None:
        tell(rows)


def race(
    place: dict[str, Any],
    contestants: Sequence[Contestant],
    options: argparse.Namespace,
    *,
    turns: int,
    warm: int = 2,
    equal: dict[str, float] | None = None,
    on_rows: OnRows | None = None,
    prepare_s: float | None = None,
    measure_s: float | None = None,
) -> list[Row]:
    """Measure contestants against each other.

    Args:
      place: goes into every row: 'benchmark', 'case', 'shape'.
      contestants: who takes part.
      options: the command line; its `device` is what `describe_device` found.
      turns: measured turns of each.
      warm: turns after the first that are not measured.
      equal: facts that must be equal between all contestants, with relative tolerances in float32;
        see `figures.mark_differing`.
      on_rows: called with the rows; default `options.on_rows`.
      prepare_s: a contestant is killed if preparing it, or a later turn, takes longer.
      measure_s: rounds, including warm ones, end after this time or at the command line's limit;
        one is always measured.

    Returns:
      A row per contestant, in their order, with status ok, failed or differs; an empty list after
      the command line's time limit.
    """
    if is_over(options):
        return skip(place)
    entries = [_Entry(start_worker(contestant, options), prepare_s) for contestant in contestants]
    records = [entry.record for entry in entries]
    try:
        _prepare(entries, count_parallel(options))
        mark_differing(contestants, records, equal or {})
        most_s = min(count_left_s(options), math.inf if measure_s is None else measure_s)
        for turn in _list_rounds(turns, warm, most_s):
            for number in order_turns(len(entries), turn):
                entries[number].allow()
                entries[number].attempt(_take_turn if turn >= 0 else _warm_up)
                time.sleep(_SETTLE_S)
        for entry in entries:
            entry.allow()
            entry.attempt(_finish)
    finally:
        for entry in entries:
            entry.worker.hang_up()
        for entry in entries:
            entry.worker.close()
    rows = [make_row(place, c, r, options) for c, r in zip(contestants, records, strict=True)]
    report(rows, options, on_rows)
    return rows


class _Entry:
    """A contestant's process and its record."""

    def __init__(self, worker: Worker, limit_s: float | None):
        self.worker, self.limit_s = worker, limit_s
        self.record: dict[str, Any] = {"seconds": []}

    def allow(self) -> None:
        """Kill the process if it has not answered when its time is over."""
        self.worker.allow(self.limit_s)

    def attempt(self, act: Callable[[Worker, dict[str, Any]], None]) -> None:
        """Call `act` unless an earlier call failed; record a failure."""
        if "reason" not in self.record:
            try:
                act(self.worker, self.record)
            except Failed as error:
                self.record["reason"] = str(error)


def _prepare(entries: Sequence[_Entry], parallel: int) -> None:
    """Build all, `parallel` at once, then run first turns, `alone` ones first, within one limit."""

    def attempt_all(
        act: Callable[[Worker, dict[str, Any]], None], some: Sequence[_Entry], beside: int
    ) -> None:
        with ThreadPoolExecutor(max(1, beside)) as pool:
            try:
                list(pool.map(lambda entry: entry.attempt(act), some))
            except BaseException:  # interrupted: the threads wait for the processes killed here
                for entry in entries:
                    entry.worker.kill()
                raise

    alone = [entry for entry in entries if entry.worker.contestant.alone]
    others = [entry for entry in entries if entry not in alone]
    beside = min(parallel, len(others))
    if beside > 1:
        for entry in others:
            entry.record["more"] = {"compiled_beside": beside}
    for entry in entries:
        entry.allow()
    attempt_all(_build, entries, min(parallel, len(entries)))
    attempt_all(_start, alone, 1)
    attempt_all(_start, others, beside)


def _list_rounds(turns: int, warm: int, most_s: float) -> Iterator[int]:
    """Yield round numbers from -warm; after the time limit only round 0, if still to come."""
    start_s = time.monotonic()
    for turn in range(-warm, turns):
        if turn != 0 and time.monotonic() - start_s >= most_s:
            if turn > 0:
                return
            continue
        yield turn


def _build(worker: Worker, record: dict[str, Any]) -> None:
    del record
    worker.build()


def _start(worker: Worker, record: dict[str, Any]) -> None:
    record["first_s"] = worker.turn()
    record["facts"] = worker.read_facts()


def _warm_up(worker: Worker, record: dict[str, Any]) -> None:
    del record
    worker.turn()


def _take_turn(worker: Worker, record: dict[str, Any]) -> None:
    record["seconds"].append(worker.turn())


def _finish(worker: Worker, record: dict[str, Any]) -> None:
    record["peak_memory"] = worker.read_peak_memory()
