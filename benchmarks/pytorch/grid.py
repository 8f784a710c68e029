"""A grid of the baseline's runs: one run per core in processes, or one after another on a GPU."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from benchmarks.pytorch.run import Clips, Run
from benchmarks.pytorch.training import pick_device, set_precision
from benchmarks.worker import Job
from ser_jax.augment import exit_with_parent
from ser_jax.config import Config, override

_clips: list[Clips] = []
"""In a process of the grid: the corpus, read once for all of its runs."""


def execute(keys: dict[str, Any], kind: str, precision: str, ways: dict[str, Any]) -> float:
    """One run; its test accuracy."""
    config = override(Config(), keys)
    if not _clips:
        _clips.append(Clips(config, pick_device(kind)))
    clips = _clips[0]
    return Run(config, clips, precision=precision, **ways).execute()["test_accuracy"]


def start_process(precision: str) -> None:
    """One thread for each process: a run on a core of its own."""
    threading.Thread(target=exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    set_precision(precision)


def make_grid(
    *, runs: list[dict[str, Any]], kind: str, processes: int, precision: str = "float32",
    **ways: Any,
) -> Job:  # fmt: skip
    """A turn is the whole grid.

    Args:
      runs: dotted keys of ser_jax's `Config`, a dictionary per run.
      kind: of the device.
      processes: at once; 1: one after another, here.
      precision, **ways: see `Run`; `augment_in` device, or workers: in the run's own process.
    """
    facts: dict[str, Any] = {}
    set_precision(precision)
    arguments = (kind, precision, {"workers": 0, **ways})

    def turn() -> None:
        if processes == 1:
            facts["test_accuracies"] = [execute(keys, *arguments) for keys in runs]
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, start_process, (precision,)) as pool:
            futures = [pool.submit(execute, keys, *arguments) for keys in runs]
            facts["test_accuracies"] = [future.result() for future in futures]

    return Job(turn, lambda: facts)
