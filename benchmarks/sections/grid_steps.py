"""Training steps of several numbers of runs, in every form, compiled and timed in one process."""

import statistics
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.ours import make_runs_step
from ser_jax.machine.cores import count_cores


def time_steps(
    *, sizes: Sequence[int], hows: Sequence[str], dry: bool, measure_s: float
) -> list[dict[str, Any]]:
    """A row for each number of runs and form: seconds of one step of all runs together.

    Args:
      sizes: numbers of runs.
      hows: see `make_runs_step`.
      dry: tiny shapes and network.
      measure_s: what the timed rounds may take in all; each has one at least.
    """
    n_frames, n_features, batch = (16, 16, 4) if dry else (83, 20, 32)
    # On CPU a convolution of many runs takes XLA minutes to compile.
    model = {"name": "lstm", "hidden": 8} if dry else {"name": "cnn_lstm"}
    rng = np.random.default_rng(0)
    arguments: dict[str, Any] = {
        "model": model, "x_BTF": rng.standard_normal((batch, n_frames, n_features), np.float32),
        "label_B": rng.integers(0, 8, batch).astype(np.int32), "variables": {},
        "index_SB": rng.permutation(batch).astype(np.int32)[None], "precision": "bfloat16",
    }  # fmt: skip
    shape = f"{batch} x {n_frames} x {n_features}"
    rows = [{"case": f"{runs} runs, one step", "shape": shape, "configuration": how, "runs": runs}
            for runs in sizes for how in hows]  # fmt: skip
    jobs: list[Any] = [None] * len(rows)

    def compile_one(number: int) -> None:
        row = rows[number]
        start_s = time.perf_counter()
        try:
            job = make_runs_step(**arguments, runs=row["runs"], how=row["configuration"])
            job.turn()
        except Exception as error:  # such as too little memory
            traceback.print_exc()  # for the log; the row has room for a line
            row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:200]}
            return
        row["first_step_s"] = time.perf_counter() - start_s
        jobs[number] = job

    with ThreadPoolExecutor(min(count_cores(), len(rows))) as pool:
        list(pool.map(compile_one, range(len(rows))))
    _time(rows, jobs, measure_s)
    return rows


def _time(rows: list[dict[str, Any]], jobs: list[Any], measure_s: float) -> None:
    """Rounds in which each has a turn, until the time is up."""
    found: list[list[float]] = [[] for _ in jobs]
    end_s = time.perf_counter() + measure_s
    while not found[0] or (time.perf_counter() < end_s and len(found[0]) < 30):
        for seconds, job in zip(found, jobs, strict=True):
            start_s = time.perf_counter()
            if job is not None:
                job.turn()
            seconds.append(time.perf_counter() - start_s)
    for row, seconds, job in zip(rows, found, jobs, strict=True):
        if job is not None:
            row |= {"median_s": statistics.median(seconds), "turns": len(seconds),
                    "p95_s": float(np.quantile(seconds, 0.95))}  # fmt: skip
            row["clips_per_s"] = row["runs"] * 32 / row["median_s"]
