"""Grid: a whole grid of 32 runs, cold and warm, then a training step of many runs by itself."""

import argparse
import dataclasses
from typing import Any

from benchmarks import grid
from benchmarks.sections.context import Context, Row
from benchmarks.sections.racing import choose_corpus, list_as_gpu, make_options, race, start_worker
from benchmarks.worker import Contestant, Failed

HOWS, SIZES = ("im2col", "rows", "grouped", "map"), (1, 8, 32, 64)
N_SEEDS, N_EPOCHS = 8, 10


def measure(context: Context) -> None:
    """Ours whole; PyTorch's from one run of each system; step times in one process."""
    options = make_options(context)
    systems, seeds, epochs = grid.SYSTEMS, N_SEEDS, N_EPOCHS
    if context.dry:
        systems, seeds, epochs = {"lstm": systems["lstm"] | {"model.hidden": 8}}, 2, 1
    keys = grid.KEYS | choose_corpus(context) | {"train.epochs": epochs}
    n_runs = len(systems) * seeds
    place = {"benchmark": grid.NAME, "case": f"{n_runs} runs",
             "shape": f"{epochs} epochs, {keys['data.corpus']}"}  # fmt: skip
    listing = list_as_gpu(options)
    ours = _list_side(keys, systems, tuple(range(seeds)), listing, "ser_jax")
    if context.dry:  # as on a GPU; on CPU each run would have a process of its own
        ours[0].arguments["batching"] = "vmap"
    race(context, options, place, ours, cold=True, share=0.6)
    theirs = _list_side(keys, systems, (0,), listing, "pytorch")
    part = place | {"shape": f"{place['shape']}; {len(systems)} of the {n_runs} runs"}
    rows = race(context, options, part, theirs, cold=True, share=0.7)
    processes = {c.configuration: c.arguments["processes"] for c in theirs}
    context.put_rows([
        extrapolate(row, n_runs, processes.get(row["configuration"], 1)) | place
        for row in rows if row["status"] == "ok"
    ])  # fmt: skip
    _measure_steps(context, options)


def _list_side(
    keys: Row, systems: Any, seeds: tuple[int, ...], listing: argparse.Namespace, side: str
) -> list[Contestant]:
    contestants = grid.list_contestants(keys, systems, seeds, listing)
    chosen = [contestant for contestant in contestants if contestant.side == side]
    if side == "ser_jax":
        return chosen
    # Rows of a part count in no ratio; those extrapolated to the whole do.
    return [dataclasses.replace(contestant, ratio_keys=()) for contestant in chosen]


def extrapolate(row: Row, n_runs: int, processes: int) -> Row:
    """The row of a whole grid by that of a part: the runs still to come take their mean time.

    Args:
      row: of `race_cold`, with 'turns' of one and 'runs_s', the seconds of each run.
      n_runs: of the whole grid.
      processes: that run at once.
    """
    measured = row["runs_s"]
    total_s = row["median_s"] * row["steps_per_turn"]
    total_s += (n_runs - len(measured)) / processes * sum(measured) / len(measured)
    key = grid.NAME if row["temperature"] == "cold" else f"{grid.NAME}_warm"
    words = f"{row['configuration']}, extrapolated from {len(measured)} runs"
    figures = dict.fromkeys(("median_s", "p95_s"), total_s / n_runs)
    return row | figures | {
        "configuration": words, "clips_per_s": n_runs / total_s, "ratio_keys": [key],
        "extrapolated_from": len(measured),
    }  # fmt: skip


def _measure_steps(context: Context, options: argparse.Namespace) -> None:
    sizes = (1, 2) if context.dry else SIZES
    worker = start_worker("ser_jax", options)
    base: Row = {
        "benchmark": "grid_step", "side": "ser_jax", "precision": "bfloat16", "ratio_keys": [],
        "threads": options.threads, "device": options.device["name"], "status": "ok",
    }  # fmt: skip
    try:
        worker.allow(context.left_s())
        found = worker.call(
            "benchmarks.sections.grid_steps:time_steps", sizes=sizes, hows=HOWS, dry=context.dry,
            measure_s=1.0 if context.dry else max(5.0, context.left_s() * 0.2),
        )  # fmt: skip
    except Failed as error:
        failed = {"case": "steps", "shape": "", "configuration": "vmap", "status": "failed"}
        context.put(base | failed | {"reason": str(error)})
        return
    finally:
        worker.close()
    for row in found:
        print(f"{row['case']}, {row['configuration']}: {row.get('median_s')} {row.get('reason')}")
    context.put_rows([base | row for row in found])
