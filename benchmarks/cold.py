"""Race whole runs: a new process for each, cold and then warm."""

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import make_row
from benchmarks.race import OnRows, Row, is_over, order_turns, report, skip, start_worker
from benchmarks.worker import Contestant, Failed

_CACHES = {  # of compiled programs, on both sides, as users have them
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_COMPILATION_CACHE_DIR": "{}/xla",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "0",
    "TORCHINDUCTOR_CACHE_DIR": "{}/inductor",
}


def race_cold(
    place: dict[str, Any],
    contestants: Sequence[Contestant],
    options: argparse.Namespace,
    *,
    turns: int,
    on_rows: OnRows | None = None,
    turn_s: float | None = None,
) -> list[Row]:
    """Measure work that a process does once, such as whole runs, compilation and all included.

    Every turn starts a new process, which does the work twice: cold, with nothing compiled and
    empty caches, then warm, with whatever the first time left in the caches and the process.

    Args:
      place, contestants, options, on_rows: as in `race`; rows are reported when a contestant ends.
      turns: processes for each contestant.
      turn_s: a contestant that takes longer to build, or for either half of a turn, is killed.

    Returns:
      Two rows per contestant, 'temperature' cold and warm, in the order they finished; ratio keys
      of the warm one end in '_warm'. Contestants that the command line's time limit leaves out
      have none.
    """
    records = [({"seconds": []}, {"seconds": []}) for _ in contestants]
    rows: list[Row] = []
    for turn in range(turns):
        for number in order_turns(len(contestants), turn):
            contestant, pair = contestants[number], records[number]
            if not (is_over(options) or any("reason" in record for record in pair)):
                _run_twice(contestant, options, pair, turn_s)
            if turn < turns - 1:
                continue
            if not (pair[0]["seconds"] or "reason" in pair[0]):
                skip(place | {"configuration": contestant.configuration})
                continue
            own = _make_pair(place, contestant, pair, options)
            report(own, options, on_rows)
            rows += own
    return rows


def _run_twice(
    contestant: Contestant,
    options: argparse.Namespace,
    pair: tuple[dict, dict],
    turn_s: float | None,
) -> None:
    """Run a cold and a warm turn in a new process with empty compilation caches."""
    record = pair[0]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        caches = {name: value.format(folder) for name, value in _CACHES.items()}
        environment = contestant.environment | caches
        worker = start_worker(dataclasses.replace(contestant, environment=environment), options)
        try:
            worker.allow(turn_s)
            worker.build()
            for record in pair:
                worker.allow(turn_s)
                record["seconds"].append(worker.turn())
                record["facts"] = worker.read_facts()
                record["peak_memory"] = worker.read_peak_memory()
        except Failed as error:
            record["reason"] = str(error)
        finally:
            worker.close()


def _make_pair(
    place: dict[str, Any],
    contestant: Contestant,
    pair: tuple[dict, dict],
    options: argparse.Namespace,
) -> list[Row]:
    """Make a row of the cold turns and one of the warm ones; only the former if it failed."""
    cold, warm = pair
    steady_s = statistics.median(warm["seconds"]) if warm["seconds"] else None
    cold |= {"first_s": cold["seconds"][-1] if cold["seconds"] else None, "steady_s": steady_s}
    rows = [make_row(place | {"temperature": "cold"}, contestant, cold, options)]
    if "reason" not in cold:
        rows.append(make_row(place | {"temperature": "warm"}, contestant, warm, options))
        rows[1]["ratio_keys"] = [f"{key}_warm" for key in contestant.ratio_keys]
    return rows
