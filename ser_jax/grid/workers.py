"""Cells one by one: in this process, or in worker processes of one core each."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any

from ser_jax.config import AblationConfig, ParallelConfig
from ser_jax.errors import UserError
from ser_jax.grid.cells import Cell, write_diverged
from ser_jax.machine.allocator import tune_for_cpu
from ser_jax.machine.cores import count_cores
from ser_jax.machine.cpu_devices import use_all_cores
from ser_jax.machine.spawning import exit_with_parent, starting_workers
from ser_jax.run.train import Memo, train_run
from ser_jax.training.loop import Diverged

AdvanceEpochs = Callable[[float], None]
"""Called with the number of epochs as they finish."""

_REMEDY = "set workers=1, which runs the cells in this process"


def run_one_by_one(
    config: AblationConfig, cells: list[Cell], advance: AdvanceEpochs
) -> Generator[Cell]:
    """Train each cell with a program of its own; yields each as it finishes."""
    workers = _choose_workers(config)
    # Seed by seed, so that a grid cut short has every system's row.
    ordered = sorted(
        deal_cells(cells, workers), key=lambda group: config.seeds.index(group[0].seed)
    )
    workers = min(workers, len(ordered))
    # On CPU a single worker too, since it has as many devices as the run would have alone.
    import jax

    on_cpu = jax.default_backend() == "cpu"
    in_processes = workers > 1 or (on_cpu and config.workers != 1 and count_cores() > 1)
    return (_run_in_processes if in_processes else _run_here)(ordered, workers, advance)


def deal_cells(cells: list[Cell], workers: int) -> list[list[Cell]]:
    """The folds of each system and seed, which share a program and the host's augmented clips.

    Where these are fewer than the workers, folds that share only a program are dealt out.
    """
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.system, cell.protocol, cell.seed), []).append(cell)
    most = -(-workers // max(len(groups), 1))
    dealt = []
    for group in groups.values():
        n_parts = 1 if group[0].config.augment.on_host else min(most, len(group))
        dealt += [group[part::n_parts] for part in range(n_parts)]
    return dealt


def make_devices_here(config: AblationConfig) -> None:
    """If `workers` is 1, the cells run in this process: give it the devices of `train`.

    Only for a process that runs nothing else, before JAX initialises its devices.
    """
    if config.workers == 1:
        swept = config.sweep.get("train.batch_size", [])
        own = [changes.get("train.batch_size", 0) for changes in config.systems.values()]
        use_all_cores(config.parallel, max([config.train.batch_size, *own, *swept]))


def _choose_workers(config: AblationConfig) -> int:
    """One process per core on CPU, where two runs on one core each beat one run on two cores."""
    if config.workers is not None:
        return config.workers
    import jax

    return count_cores() if jax.default_backend() == "cpu" else 1


def _run_here(groups: list[list[Cell]], workers: int, advance: AdvanceEpochs) -> Generator[Cell]:
    del workers
    for group in groups:
        memo: Memo = {}
        for cell in group:
            run_cell(cell, memo, advance)
            yield cell


def run_cell(cell: Cell, memo: Memo | None, advance: AdvanceEpochs) -> None:
    """Train or resume one cell; a divergence is recorded in its folder."""
    epochs, reached = cell.config.train.epochs, 0.0

    def observe(event: dict[str, Any]) -> None:
        nonlocal reached
        if event["event"] in ("epoch", "restored"):
            advance(event["epoch"] - reached)
            reached = event["epoch"]

    try:
        train_run(cell.config, memo=memo, observe=observe)
    except Diverged as error:
        write_diverged(cell, error)
    advance(epochs - reached)  # after an early stop


def _run_in_processes(
    groups: list[list[Cell]], workers: int, advance: AdvanceEpochs
) -> Generator[Cell]:
    """The cells of a group share one process, which keeps their augmented clips."""
    with starting_workers(_REMEDY):
        _start_tracker()
        context = multiprocessing.get_context("spawn")
        # A simple queue's `put` returns when the message is in the pipe, so all that a group sent
        # has arrived when its future is done.
        channel = context.SimpleQueue()
        pool = _make_pool(context, channel, groups, workers)
    try:
        with starting_workers(_REMEDY):
            waiting = {pool.submit(_run_group, group) for group in groups}
        while waiting:
            done, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            yield from _drain(channel, advance)
            for future in done:
                waiting.remove(future)
                with naming_dead_workers():
                    future.result()
        yield from _drain(channel, advance)
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _make_pool(
    context: Any, channel: Any, groups: list[list[Cell]], workers: int
) -> ProcessPoolExecutor:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put([cores[number % len(cores)]] if cores and workers > 1 else cores)
    batch_size = max(cell.config.train.batch_size for group in groups for cell in group)
    # As many devices as the run would have alone, so that its result is bit-equal.
    devices = ParallelConfig(), batch_size, count_cores()
    return ProcessPoolExecutor(
        workers, context, initializer=_start_worker, initargs=(channel, numbers, devices)
    )


def _start_tracker() -> None:
    """Start the process that cleans up after stopped workers, and silence its warnings."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


@contextlib.contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Say in one line that a worker has died."""
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(
            "a process of the grid died, perhaps out of memory; "
            "run the same command again, with --workers 1 if it happens twice"
        ) from error


def _drain(channel: Any, advance: AdvanceEpochs) -> Generator[Cell]:
    """Yield the cells that workers have finished, and pass on the epochs."""
    while not channel.empty():
        message = channel.get()
        if isinstance(message, float):
            advance(message)
        else:
            yield message


_channel: Any = None
"""In a worker: where it reports epochs (a float) and finished cells."""


def _start_worker(channel: Any, numbers: Any, devices: tuple[ParallelConfig, int, int]) -> None:
    global _channel
    import logging
    import signal
    import warnings

    _channel = channel
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    threading.Thread(target=exit_with_parent, daemon=True).start()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if core := numbers.get():
        os.sched_setaffinity(0, core)
    use_all_cores(*devices)


def _run_group(group: list[Cell]) -> None:
    tune_for_cpu()  # nothing else runs in a worker's process
    memo: Memo = {}
    for cell in group:
        run_cell(cell, memo, lambda amount: _channel.put(float(amount)))
        _channel.put(cell)
