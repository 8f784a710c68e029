"""A grid of the baseline's runs: several at once in processes, or one after another."""

import functools
import itertools
import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from benchmarks.pytorch.run import Clips, Run
from benchmarks.pytorch.training import pick_device, set_precision
from benchmarks.worker import Job
from ser_jax.config import Config, override
from ser_jax.machine.spawning import exit_with_parent

_clips: dict[int, Clips] = {}
"""In a process of the grid: the corpus, read once for all of its runs in a turn."""


def execute(
    keys: dict[str, Any], turn: int, kind: str, precision: str, ways: dict[str, Any]
) -> tuple[float, float]:
    """One run; its test accuracy, and its seconds once the corpus is there."""
    config = override(Config(), keys)
    if turn not in _clips:
        _clips.clear()
        _clips[turn] = Clips(config, pick_device(kind))
    start_s = time.perf_counter()
    run = Run(config, _clips[turn], precision=precision, **ways)
    return run.execute()["test_accuracy"], time.perf_counter() - start_s


def start_process(precision: str) -> None:
    """One thread for each process: a run on a core of its own."""
    threading.Thread(target=exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    set_precision(precision)


def make_grid(
    *, runs: list[dict[str, Any]], kind: str, processes: int, precision: str = "float32",
    **ways: Any,
) -> Job:  # fmt: skip
    """One turn is the whole grid.

    Args:
      runs: dotted keys of ser_jax's `Config`, a dictionary per run.
      kind: of the device.
      processes: at once, on one GPU too; 1: one after another, here. They outlive a turn.
      precision, **ways: see `Run`; `augment_in` device, or workers: in the run's own process.
    """
    facts: dict[str, Any] = {}
    set_precision(precision)
    pools: list[ProcessPoolExecutor] = []
    turns = itertools.count()

    def turn() -> None:
        run = functools.partial(
            execute, turn=next(turns), kind=kind, precision=precision, ways={"workers": 0, **ways}
        )
        if processes > 1 and not pools:
            context = multiprocessing.get_context("spawn")
            pools.append(ProcessPoolExecutor(processes, context, start_process, (precision,)))
        found = list((pools[0].map if pools else map)(run, runs))
        facts["test_accuracies"], facts["runs_s"] = map(list, zip(*found, strict=True))

    return Job(turn, lambda: facts)
