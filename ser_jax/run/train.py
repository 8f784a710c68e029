"""One run from its configuration to its directory."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from ser_jax.augment.epochs import Memo
from ser_jax.config import Config, ParallelConfig
from ser_jax.data.protocols import check_protocols
from ser_jax.errors import check
from ser_jax.files.atomic import held
from ser_jax.machine.compile_cache import use_compile_cache
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.multihost.processes import is_writer
from ser_jax.multihost.sharing import share
from ser_jax.run.events import EventLog
from ser_jax.run.file_names import LAST_FIGURE
from ser_jax.run.finish import finish_run
from ser_jax.run.monitor import profiled, watch
from ser_jax.run.results import describe_run
from ser_jax.run.run_dir import check_run_dir, default_run_dir, open_run_dir, read_finished
from ser_jax.systems.registry import find_system
from ser_jax.training.loop import OnEvent


@with_jax_defaults
def train_run(
    config: Config,
    *,
    memo: Memo | None = None,
    observe: OnEvent | None = None,
    report: Callable[[Path], object] | None = None,
) -> dict[str, Any]:
    """Train one network, or fit an svm or hmm, score its best epoch, and write the run directory.

    A directory that holds the same run is resumed, or read if the run is complete.

    Args:
      config: all settings.
      memo: augmented features to share between the runs of a grid; see `augment.epochs`.
      observe: called with every event; `None`: a progress bar and a line per epoch.
      report: called with the run's directory once it is complete, and while it is held; of a run
        that was complete before, only where its figures are missing.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: bad input, a directory of another run, a failed write, a loss that is NaN or
        infinite.
    """
    _check_processes(config.parallel)
    use_compile_cache(config.parallel.cache_dir)
    run_dir = Path(config.run_dir or default_run_dir(config))
    config = dataclasses.replace(config, run_dir=str(run_dir))
    if finished := share(lambda: _read_if_finished(run_dir, config, report)):
        return finished
    with _hold(run_dir):
        metrics = _train(config, run_dir, memo, observe)
        if report and is_writer():
            report(run_dir)
        return metrics


def _hold(run_dir: Path) -> contextlib.AbstractContextManager[None]:
    """The run's directory for this process, or for the one that writes of several."""
    remedy = "wait until it ends, or choose another --run_dir"
    return held(run_dir, remedy) if is_writer() else contextlib.nullcontext()


def _train(
    config: Config, run_dir: Path, memo: Memo | None, observe: OnEvent | None
) -> dict[str, Any]:
    """`train_run` of an incomplete run."""
    system = find_system(config.model.name)
    system.check(config)
    check_protocols([(config.data, config.seed)])
    with system.prepare(config, memo) as ready:
        corpus, split = ready.corpus, ready.split
        facts = describe_run(corpus, split, ready.normaliser, config)
        start_s = time.perf_counter()
        if is_writer():  # now that nothing is left that could be wrong with its settings
            open_run_dir(run_dir, config)
        with _tell(run_dir, config, observe, facts) as on_event:
            fitted = system.fit(config, ready, run_dir, facts, on_event)
            seconds = time.perf_counter() - start_s
            return finish_run(
                run_dir, config, corpus, split, fitted, on_event, seconds=seconds, rows=ready.rows
            )


def _check_processes(parallel: ParallelConfig) -> None:
    count = parallel.num_processes or 1
    check(
        count == 1 or jax.process_count() == count,
        f"parallel.num_processes={count}: this program has joined no others; several processes "
        "train one run by ser-jax train, inside ser_jax.taking_part or after "
        "jax.distributed.initialize; a grid is split by shard",
    )


def _read_if_finished(
    run_dir: Path, config: Config, report: Callable[[Path], object] | None
) -> dict[str, Any] | None:
    if not check_run_dir(run_dir, config):
        return None
    metrics = read_finished(run_dir)
    if report and not (run_dir / LAST_FIGURE).exists():  # a full disk or a grid left them out
        report(run_dir)
    return metrics


@contextlib.contextmanager
def _tell(
    run_dir: Path, config: Config, observe: OnEvent | None, facts: dict[str, Any]
) -> Iterator[OnEvent]:
    """Log, terminal and profiler; nothing on the processes that do not write."""
    if not is_writer():
        yield lambda event: None
        return
    with (
        watch(EventLog(run_dir), config, observe, facts) as on_event,
        profiled(on_event, config.train.profile, run_dir) as on_event,
    ):
        yield on_event
