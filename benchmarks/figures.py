"""Turn the record of a contestant into a row: figures, and whether it computed the same."""

import argparse
import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.flops import compute_floor_s
from benchmarks.results import OURS
from benchmarks.worker import Contestant

ROOM = {"float32": 1, "tf32": 20, "bfloat16": 100}
"""Tolerances by precision, as multiples of float32's: a loss may be off by 1e-4, 2e-3 and 1e-2."""


def find_reference(contestants: Sequence[Contestant]) -> Contestant:
    """Find whose facts the others must equal: float32 first, the other side before ser_jax."""
    return min(contestants, key=lambda c: (ROOM[c.precision], c.side == OURS))


def mark_differing(
    contestants: Sequence[Contestant],
    records: Sequence[dict[str, Any]],
    equal: dict[str, float],
) -> None:
    """Set 'differs' in records whose facts are not those of the reference.

    Args:
      contestants: who takes part.
      records: one for each; those without 'facts' failed and are left out.
      equal: relative tolerances of facts in float32, by name; `ROOM` widens them.
    """
    took_part = [(c, r) for c, r in zip(contestants, records, strict=True) if "facts" in r]
    if not (took_part and equal):
        return
    reference = find_reference([contestant for contestant, _ in took_part])
    expected = next(record["facts"] for c, record in took_part if c is reference)
    for contestant, record in took_part:
        room = max(ROOM[contestant.precision], ROOM[reference.precision])
        differs = {
            name: [record["facts"][name], expected[name]]
            for name, tolerance in equal.items()
            if not math.isclose(record["facts"][name], expected[name], rel_tol=room * tolerance)
        }
        if differs:
            record["differs"] = differs
            record["reference"] = f"{reference.side}: {reference.configuration}"


def make_row(
    place: dict[str, Any],
    contestant: Contestant,
    record: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Make what results/*.json holds of a contestant; times are seconds per step."""
    device = options.device
    row = place | {
        "side": contestant.side,
        "configuration": contestant.configuration,
        "precision": contestant.precision,
        "threads": contestant.threads or options.threads,
        "device": device["name"],
        "versions": options.versions,
        "ratio_keys": list(contestant.ratio_keys),
        "status": "ok",
    }
    if "reason" in record:
        return row | {"status": "failed", "reason": record["reason"]}
    row |= compute_figures(contestant, record, device["peaks"])
    if "differs" in record:
        values = ", ".join(
            f"{name} {own:.6g}, not {expected:.6g}"
            for name, (own, expected) in record["differs"].items()
        )
        row |= {"status": "differs", "differs": record["differs"],
                "reason": f"{values} as {record['reference']}"}  # fmt: skip
    return row


def compute_figures(
    contestant: Contestant, record: dict[str, Any], peaks: dict[str, float]
) -> dict[str, Any]:
    """Compute the figures of a contestant that finished.

    Args:
      contestant: whose.
      record: 'seconds' of its turns, 'facts' and 'peak_memory'; where they are known 'first_s' of
        the first turn and 'steady_s' of a later one (default: the median); further entries of
        the row under 'more'.
      peaks: of the device, FLOP/s by precision and bytes/s under 'memory'.
    """
    steps = sorted(seconds / contestant.steps for seconds in record["seconds"])
    median_s = statistics.median(steps)
    first_s = record.get("first_s")
    # The first turn less a steady one: tracing, compiling, choosing algorithms.
    steady_s = record.get("steady_s", median_s * contestant.steps)
    figures = {
        "compile_s": None if None in (first_s, steady_s) else max(0.0, first_s - steady_s),
        "first_step_s": first_s,
        "median_s": median_s,
        "p95_s": steps[math.ceil(0.95 * len(steps)) - 1],
        "clips_per_s": contestant.clips / median_s,
        "peak_memory_mib": record["peak_memory"] / 2**20,
        "turns": len(steps),
        "steps_per_turn": contestant.steps,
        **record["facts"],
        **record.get("more", {}),
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
