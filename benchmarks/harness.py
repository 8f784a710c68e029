"""The race: contestants warmed up, synchronised and interleaved in one run; rows from it.

First calls come one contestant after another, since they compile. Then the turns go round: each
round every contestant has one, in an order that rotates, so that drift of the machine hits all.
Only one works at a time; the others sleep in their own processes.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.device import count_cores
from benchmarks.flops import compute_floor_s
from benchmarks.worker import Contestant, Failed, Worker

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchaudio", "librosa", "audiomentations",
)  # fmt: skip
_SETTLE_S = 0.01  # OpenMP's threads spin for some milliseconds after their last work


def order_turns(n: int, turn: int) -> list[int]:
    """Numbers of the contestants in the order of round `turn`; every one is first in its turn."""
    return [(turn + i) % n for i in range(n)]


def race(
    place: dict[str, Any],
    contestants: Sequence[Contestant],
    options: argparse.Namespace,
    *,
    turns: int,
    warm: int = 2,
    equal: dict[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Measure contestants against each other.

    Args:
      place: goes into every row: 'benchmark', 'case', 'shape'.
      contestants: who takes part.
      options: the command line; its `device` is what `describe_device` found.
      turns: measured turns of each.
      warm: turns after the first that are not measured.
      equal: facts that must be equal between all contestants, with tolerances in float32; twenty
        times as much in a lower precision.

    Returns:
      A row per contestant, in their order; one that failed says why.

    Raises:
      AssertionError: contestants do not compute the same.
    """
    workers = [Worker(contestant, options.threads) for contestant in contestants]
    records: list[dict[str, Any]] = [{"seconds": []} for _ in workers]

    def attempt(number: int, act: Callable[[Worker, dict[str, Any]], None]) -> None:
        record = records[number]
        if "reason" not in record:
            try:
                act(workers[number], record)
            except Failed as error:
                record["reason"] = str(error)

    try:
        for number in range(len(workers)):
            attempt(number, _start)
        check_equal(contestants, records, equal or {})
        for turn in range(-warm, turns):
            for number in order_turns(len(workers), turn):
                attempt(number, _take_turn if turn >= 0 else _warm_up)
                time.sleep(_SETTLE_S)
        for number in range(len(workers)):
            attempt(number, _finish)
    finally:
        for worker in workers:
            worker.close()
    return _report(place, contestants, records, options)


def load_clips(
    options: argparse.Namespace, benchmark: str, case: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A batch of clips as builders take them, and the place of their rows."""
    data = choose_data(options, 4, 32)
    n_clips = 32 if options.device["kind"] == "cpu" else 128
    arguments = call(options, "benchmarks.clips:load_clips", keys=data, n_clips=n_clips)
    n_samples, rate_hz = arguments["wave_BN"].shape[1], arguments["rate_hz"]
    place = {
        "benchmark": benchmark, "case": case,
        "shape": f"{n_clips} x {n_samples / rate_hz:.2f} s, {data['data.corpus']}",
    }  # fmt: skip
    return arguments, place


def race_cold(
    place: dict[str, Any],
    contestants: Sequence[Contestant],
    options: argparse.Namespace,
    *,
    turns: int,
) -> list[dict[str, Any]]:
    """Measure what is done once per process, as whole runs are: compilation and all else included.

    Every turn has a new process. Unless `options.quick`, the last one does its work twice, so that
    compile time is known: what the first time takes beyond the second.
    """
    records: list[dict[str, Any]] = [{"seconds": []} for _ in contestants]
    for turn in range(turns):
        for number in order_turns(len(contestants), turn):
            record = records[number]
            if "reason" in record:
                continue
            worker = Worker(contestants[number], options.threads)
            try:
                worker.build()
                record["seconds"].append(worker.turn())
                record["facts"] = worker.read_facts()
                record["peak_memory"] = worker.read_peak_memory()
                if turn == turns - 1 and not options.quick:
                    record["warm_s"] = worker.turn()
            except Failed as error:
                record["reason"] = str(error)
            finally:
                worker.close()
    return _report(place, contestants, records, options)


def _report(
    place: dict[str, Any],
    contestants: Sequence[Contestant],
    records: Sequence[dict[str, Any]],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """The rows of a race, printed."""
    rows = [
        make_row(place, contestant, record, options)
        for contestant, record in zip(contestants, records, strict=True)
    ]
    results.print_rows(rows)
    return rows


def _start(worker: Worker, record: dict[str, Any]) -> None:
    worker.build()
    record["first_s"] = worker.turn()
    record["facts"] = worker.read_facts()


def _warm_up(worker: Worker, record: dict[str, Any]) -> None:
    del record
    worker.turn()


def _take_turn(worker: Worker, record: dict[str, Any]) -> None:
    record["seconds"].append(worker.turn())


def _finish(worker: Worker, record: dict[str, Any]) -> None:
    record["peak_memory"] = worker.read_peak_memory()


def check_equal(
    contestants: Sequence[Contestant], records: Sequence[dict[str, Any]], equal: dict[str, float]
) -> None:
    """Facts of all contestants that took part are those of the first, within tolerances."""
    took_part = [(c, r["facts"]) for c, r in zip(contestants, records, strict=True) if "facts" in r]
    for name, tolerance in equal.items():
        for contestant, facts in took_part[1:]:
            first, own = took_part[0][1][name], facts[name]
            both = contestant.precision == took_part[0][0].precision == "float32"
            room = tolerance if both else 20 * tolerance
            assert math.isclose(first, own, rel_tol=room, abs_tol=room), (
                f"{name} of {contestant.side}, {contestant.configuration}: {own}; "
                f"of {took_part[0][0].side}, {took_part[0][0].configuration}: {first}"
            )


def make_row(
    place: dict[str, Any],
    contestant: Contestant,
    record: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """What results/*.json holds of a contestant; times are of one step, in seconds."""
    device = options.device
    row = place | {
        "side": contestant.side,
        "configuration": contestant.configuration,
        "precision": contestant.precision,
        "threads": contestant.threads or options.threads,
        "device": device["name"],
        "versions": options.versions,
        "ratio_keys": list(contestant.ratio_keys),
        "status": "failed" if "reason" in record else "ok",
    }
    if "reason" in record:
        return row | {"reason": record["reason"]}
    return row | compute_figures(contestant, record, device["peaks"])


def compute_figures(
    contestant: Contestant, record: dict[str, Any], peaks: dict[str, float]
) -> dict[str, Any]:
    """The figures of a contestant that finished."""
    steps = sorted(seconds / contestant.steps for seconds in record["seconds"])
    median_s = statistics.median(steps)
    # What the first turn takes beyond a steady one: tracing, compiling, choosing algorithms.
    first_s, steady_s = record.get("first_s"), median_s * contestant.steps
    if first_s is None:  # a cold race
        first_s, steady_s = record["seconds"][-1], record.get("warm_s")
    figures = {
        "compile_s": None if steady_s is None else max(0.0, first_s - steady_s),
        "first_step_s": first_s,
        "median_s": median_s,
        "p95_s": steps[math.ceil(0.95 * len(steps)) - 1],
        "clips_per_s": contestant.clips / median_s,
        "peak_memory_mib": record["peak_memory"] / 2**20,
        "turns": len(steps),
        "steps_per_turn": contestant.steps,
        **record["facts"],
    }
    if contestant.work is not None:
        rate = peaks[contestant.precision]
        floor_s = compute_floor_s(contestant.work, rate, peaks["memory"])
        figures |= {
            "flop": contestant.work.flop,
            "bytes": contestant.work.n_bytes,
            "mfu": contestant.work.flop / median_s / rate,
            "floor_s": floor_s,
            "times_floor": median_s / floor_s,
        }
    return figures


def choose_data(options: argparse.Namespace, actors: int, clips: int) -> dict[str, Any]:
    """Keys of the corpus: RAVDESS if the command line names its folder, else synthetic."""
    keys: dict[str, Any] = (
        {} if options.store_dir is None else {"data.store_dir": options.store_dir}
    )
    if options.data_root is not None:
        return keys | {"data.corpus": "ravdess", "data.root": options.data_root}
    size = {"data.synthetic_actors": actors, "data.synthetic_clips": clips}
    return keys | {"data.corpus": "synthetic"} | size


def call(options: argparse.Namespace, function: str, **arguments: Any) -> Any:
    """The result of 'module:function' in a process of its own, so that this one stays empty."""
    worker = Worker(Contestant("ser_jax", "helper", ""), options.threads)
    try:
        return worker.call(function, **arguments)
    finally:
        worker.close()


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer turns, clips and epochs")
    parser.add_argument(
        "--out", type=Path, help="JSON file; default benchmarks/results/DEVICE.json"
    )
    parser.add_argument("--turns", type=int, help="measured turns of each contestant")
    parser.add_argument(
        "--threads", type=int, default=count_cores(), help="cores for each side; default all"
    )
    parser.add_argument("--data.root", dest="data_root", help="folder of the RAVDESS recordings")
    parser.add_argument("--data.store_dir", dest="store_dir", help="folder of decoded corpora")
    return parser


def describe_device(options: argparse.Namespace) -> None:
    """Set `options.device`, `options.versions` and, where it is missing, `options.out`."""
    options.device = call(options, "benchmarks.device:describe")
    options.versions = call(options, "benchmarks.device:list_versions", packages=PACKAGES)
    options.out = options.out or results.default_path(options.device["name"])


def run(
    measure: Callable[[argparse.Namespace], list[dict[str, Any]]],
    options: argparse.Namespace,
    benchmark: str,
) -> None:
    """Measure one benchmark and put its rows into the file of results."""
    if not hasattr(options, "device"):
        describe_device(options)
    print(f"\n{benchmark}: {options.device['name']}, {options.threads} threads", flush=True)
    start_s = time.perf_counter()
    rows = measure(options)
    results.save(options, benchmark, rows, time.perf_counter() - start_s)
