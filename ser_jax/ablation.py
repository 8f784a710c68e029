"""ablate(): a grid of runs, several at a time on CPU, resumable cell by cell."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NamedTuple

from ser_jax.augment import count_cores, exit_with_parent, sigint_held_back
from ser_jax.config import AblationConfig, Config, compute_identity, override, to_dict
from ser_jax.corpora import prepare
from ser_jax.errors import UserError, check
from ser_jax.files import write_atomic
from ser_jax.loop import Diverged
from ser_jax.progress import progress
from ser_jax.report import write_ablation_report
from ser_jax.report.tables import make_cell_name
from ser_jax.run import Memo, train
from ser_jax.run_dir import CONFIG_FILE, METRICS_FILE, load_config
from ser_jax.splits import count_folds

STUDY = {
    "cnn": {"accuracy": 0.3519, "weighted_f1": 0.3014},
    "lstm": {"accuracy": 0.4352, "weighted_f1": 0.4044},
    "cnn_lstm": {"accuracy": 0.4630, "weighted_f1": 0.4463},
    "cnn_lstm_augmented": {"accuracy": 0.3889, "weighted_f1": 0.3462},
}
"""Table 1 of the study, by the names that the configurations give the systems."""


class Cell(NamedTuple):
    """One run of the grid."""

    system: str
    protocol: str
    fold: int
    seed: int
    config: Config

    def describe(self) -> dict[str, Any]:
        """The cell's place in the grid."""
        return {key: getattr(self, key) for key in ("system", "protocol", "fold", "seed")}


Outcome = tuple[Cell, dict[str, Any]]
"""A cell and what results.json holds of it."""


def list_cells(config: AblationConfig) -> list[Cell]:
    """The runs of a grid, folds innermost.

    Raises:
      UserError: no systems, a key of a system that does not exist or a value out of its range.
    """
    check(len(config.systems) > 0, "systems={}: the grid has no rows; name at least one system")
    shared = {
        name: getattr(config, name) for name in ("data", "features", "augment", "model", "train")
    }
    cells = []
    for system, changes in config.systems.items():
        base = _override_system(Config(**shared), system, changes)
        for protocol in config.protocols:
            folds = config.folds or range(1, count_folds(protocol) + 1)
            _check_folds(protocol, folds)
            for seed in config.seeds:
                for fold in folds:
                    run_dir = Path(config.out) / "cells"
                    run_dir /= make_cell_name(system, protocol, fold, seed)
                    place = {"data.protocol": protocol, "data.fold": fold, "seed": seed}
                    run = override(base, place | {"run_dir": str(run_dir)})
                    cells.append(Cell(system, protocol, fold, seed, run))
    return cells


def ablate(config: AblationConfig) -> dict[str, Any]:
    """Run every cell of the grid that has not been run, and write the tables and figures.

    Killed or interrupted, the same call goes on: finished cells are read, and a cell that was
    running goes on from its last checkpoint. A cell that diverges is recorded and harms no other.

    Returns:
      What results.json holds: {"cells": [...], "labels": [...], "config": {...}, "study": {...}}.

    Raises:
      UserError: bad input; a cell's folder holds a run with other settings; a write failed.
    """
    cells = list_cells(config)
    _check_folders(config, cells)
    prepare(config.data)
    results: dict[str, Any] = {
        "cells": [cell.describe() | {"status": "missing"} for cell in cells],
        "labels": [],
        "config": to_dict(config),
    }
    if config.data.corpus == "ravdess":
        results["study"] = STUDY
    path = Path(config.out) / "results.json"
    place = {cell.config.run_dir: number for number, cell in enumerate(cells)}
    with contextlib.closing(_run_cells(config, cells)) as outcomes:
        for cell, outcome in outcomes:
            labels = outcome.pop("labels", None)
            results["labels"] = labels or results["labels"]
            results["cells"][place[cell.config.run_dir]] = cell.describe() | outcome
            write_atomic(path, json.dumps(results, indent=1))
    write_ablation_report(config.out)
    return results


def _check_folds(protocol: str, folds: Sequence[int]) -> None:
    most = count_folds(protocol)
    check(
        min(folds) >= 1 and max(folds) <= most,
        f"folds={list(folds)}: {protocol} has {'one' if most == 1 else f'1 to {most}'}",
    )


def _override_system(base: Config, system: str, changes: dict[str, Any]) -> Config:
    try:
        return override(base, changes or {})
    except (UserError, AttributeError, TypeError) as error:
        raise UserError(f"systems.{system}: {error}") from error


def _check_folders(config: AblationConfig, cells: list[Cell]) -> None:
    """No cell may meet a run with other settings in its folder."""
    for cell in cells:
        run_dir = Path(cell.config.run_dir or "")
        if (run_dir / CONFIG_FILE).exists():
            check(
                compute_identity(load_config(run_dir)) == compute_identity(cell.config),
                f"out={config.out}: {run_dir.name} was run with other settings; "
                "choose another --out, or delete it",
            )


def _run_cells(config: AblationConfig, cells: list[Cell]) -> Generator[Outcome]:
    """The outcome of each cell, as it comes."""
    finished = [cell for cell in cells if (Path(cell.config.run_dir or "") / METRICS_FILE).exists()]
    for cell in finished:
        yield cell, _run_cell(cell, None, lambda amount: None)
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        if cell not in finished:
            groups.setdefault((cell.system, cell.protocol, cell.seed), []).append(cell)
    # Seed by seed, so that a grid cut short has every system's row.
    order = sorted(groups, key=lambda group: config.seeds.index(group[2]))
    groups = {group: groups[group] for group in order}
    epochs = sum(cell.config.train.epochs for group in groups.values() for cell in group)
    workers = min(_choose_workers(config), len(groups))
    with progress(f"{sum(map(len, groups.values()))} runs", epochs, "epochs") as advance:
        if workers <= 1:
            outcomes = _run_here(list(groups.values()), advance)
        else:
            outcomes = _run_in_processes(list(groups.values()), workers, advance)
        with contextlib.closing(outcomes):
            for cell, outcome in outcomes:
                _print_outcome(cell, outcome)
                yield cell, outcome


def _choose_workers(config: AblationConfig) -> int:
    """One process per core on CPU, where two runs on a core each beat one run on two cores."""
    if config.workers is not None:
        return config.workers
    import jax

    return count_cores() if jax.default_backend() == "cpu" else 1


def _run_here(groups: list[list[Cell]], advance: Callable[[float], None]) -> Generator[Outcome]:
    for group in groups:
        memo: Memo = {}
        for cell in group:
            yield cell, _run_cell(cell, memo, advance)


def _run_cell(cell: Cell, memo: Memo | None, advance: Callable[[float], None]) -> dict[str, Any]:
    """Train one cell; its outcome as results.json holds it."""
    epochs, reached = cell.config.train.epochs, 0.0

    def observe(event: dict[str, Any]) -> None:
        nonlocal reached
        if event["event"] in ("epoch", "restored"):
            advance(event["epoch"] - reached)
            reached = event["epoch"]

    try:
        metrics = train(cell.config, memo=memo, observe=observe)
    except Diverged as error:
        advance(epochs - reached)
        return {"status": "diverged", "reason": str(error)}
    advance(epochs - reached)  # after an early stop
    test = metrics["test"]
    figures = {k: test[k] for k in ("accuracy", "weighted_f1", "uar", "macro_f1", "n", "confusion")}
    facts = {key: metrics[key] for key in ("best_epoch", "seconds", "identity", "checksum")}
    return {"status": "done", **figures, **facts, "labels": test["labels"]}


def _print_outcome(cell: Cell, outcome: dict[str, Any]) -> None:
    place = f"{cell.system}  {cell.protocol} fold {cell.fold}  seed {cell.seed}"
    if outcome["status"] != "done":
        print(f"{place}  {outcome['status']}: {outcome['reason']}", flush=True)
        return
    print(
        f"{place}  test accuracy {outcome['accuracy']:.3f}  weighted F1 "
        f"{outcome['weighted_f1']:.3f}  {outcome['seconds']:.0f} s",
        flush=True,
    )


def _run_in_processes(
    groups: list[list[Cell]], workers: int, advance: Callable[[float], None]
) -> Generator[Outcome]:
    """Groups of cells in worker processes of one core each.

    A group's cells, the folds of one system and seed, stay in one process, which keeps their
    augmented clips.
    """
    _start_tracker()
    context = multiprocessing.get_context("spawn")
    # A simple queue's `put` returns when the message is in the pipe, so that what a group has sent
    # is there when its future is done.
    channel = context.SimpleQueue()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put([cores[number % len(cores)]] if cores else [])
    pool = ProcessPoolExecutor(
        workers, context, initializer=_start_worker, initargs=(channel, numbers)
    )
    try:
        with sigint_held_back():
            waiting = {pool.submit(_run_group, group) for group in groups}
        while waiting:
            done, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            yield from _drain(channel, advance)
            for future in done:
                waiting.remove(future)
                with _naming_dead_workers():
                    future.result()
        yield from _drain(channel, advance)
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_tracker() -> None:
    """Start the process that deletes what stopped workers leave, and keep it from saying so."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


@contextlib.contextmanager
def _naming_dead_workers() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(
            "a process of the grid died, perhaps for want of memory; "
            "run the same command again, with --workers 1 if it happens twice"
        ) from error


def _drain(channel: Any, advance: Callable[[float], None]) -> Generator[Outcome]:
    """What the workers have reported so far."""
    while not channel.empty():
        message = channel.get()
        if isinstance(message, float):
            advance(message)
        else:
            yield message


_channel: Any = None
"""In a worker: where it reports epochs (a float) and finished cells."""


def _start_worker(channel: Any, numbers: Any) -> None:
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


def _run_group(group: list[Cell]) -> None:
    memo: Memo = {}
    for cell in group:
        outcome = _run_cell(cell, memo, lambda amount: _channel.put(float(amount)))
        _channel.put((cell, outcome))


def with_shared(config: AblationConfig, changes: dict[str, Any]) -> AblationConfig:
    """`config` with dotted keys set for every system, also where a system sets them itself."""
    systems = {
        name: {key: value for key, value in (own or {}).items() if key not in changes}
        for name, own in config.systems.items()
    }
    return dataclasses.replace(override(config, changes), systems=systems)
