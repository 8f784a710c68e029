"""The races of `gpu.py`: those of the benchmarks, with rows saved at once and time limits."""

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.sections.context import Context, Row, load_rows
from benchmarks.worker import Contestant, Worker
from ser_jax.machine.cores import count_cores

NEEDS_GPU = "needs a GPU"
CLIP_S = 5.272  # RAVDESS's longest


def make_options(context: Context, **more: Any) -> argparse.Namespace:
    """Make a section's options, as the benchmarks' command line would.

    The device is read from the row of `facts`; a section run alone describes it itself.
    """
    options = argparse.Namespace(
        quick=True, turns=None, threads=count_cores(), out=Path(context.out) / "unused.json",
        data_root=context.data_root, store_dir=context.store_dir or f"{context.work}/store",
        ours_path=context.ours_path, end_s=context.deadline_s, parallel=None, **more,
    )  # fmt: skip
    if "device" in more:
        return options
    found = [row for row in load_rows(context.out) if row["benchmark"] == "device"]
    if found:
        options.device, options.versions = found[-1]["device"], found[-1]["versions"]
    else:
        harness.describe_device(options)
    return options


def start_worker(side: str, options: argparse.Namespace) -> Worker:
    """Start a process of one side that answers calls."""
    return harness.start_worker(Contestant(side, "helper", ""), options)


def choose_corpus(context: Context) -> dict[str, Any]:
    """Choose the corpus: RAVDESS if its recordings were named, else clips of its shapes."""
    own = f"{context.work}/store"
    if context.data_root is not None:
        store = {"data.store_dir": context.store_dir or own}
        return store | {"data.corpus": "ravdess", "data.root": context.data_root}
    keys = {"data.store_dir": own, "data.corpus": "synthetic", "data.clip_s": CLIP_S}
    if context.dry:
        keys |= {"data.synthetic_actors": 4, "data.synthetic_clips": 16, "data.clip_s": 1.0}
    return keys


def list_as_gpu(options: argparse.Namespace) -> argparse.Namespace:
    """The same options for listing contestants: as on a GPU, even in a dry run."""
    return argparse.Namespace(**vars(options) | {"device": options.device | {"kind": "gpu"}})


def adapt(context: Context, contestants: Iterable[Contestant]) -> tuple[list[Contestant], list]:
    """Split contestants into those that run here and those that do not, with reasons.

    On a GPU all run. In a dry run, on the CPU, the first of each side that can runs; if a side has
    only CUDA graphs, its first, without one.
    """
    contestants = list(contestants)
    if not context.dry:
        return contestants, []
    can_run = [c for c in contestants if not _needs_gpu(c)]
    chosen = {c.side: c for c in reversed(contestants)} | {c.side: c for c in reversed(can_run)}
    left = [(c, NEEDS_GPU if _needs_gpu(c) else "one of a side is enough in a dry run")
            for c in contestants if c is not chosen[c.side] or _needs_gpu(c)]  # fmt: skip
    sides = dict.fromkeys(contestant.side for contestant in contestants)
    return [_put_on_cpu(chosen[side]) for side in sides], left


def _needs_gpu(contestant: Contestant) -> bool:
    return bool(contestant.arguments.get("graph"))


def _put_on_cpu(contestant: Contestant) -> Contestant:
    own = {key: value for key, value in contestant.arguments.items() if key != "graph"}
    own |= {key: small for key, small in _SMALL.items() if key in own}
    words = contestant.configuration.replace("CUDA graph", "eager")
    return dataclasses.replace(contestant, arguments=own, configuration=words, alone=False)


_SMALL = {"kind": "cpu", "processes": 1, "workers": 1}


def race(
    context: Context,
    options: argparse.Namespace,
    place: Row,
    contestants: Sequence[Contestant],
    *,
    cold: bool = False,
    share: float = 1.0,
    **settings: Any,
) -> list[Row]:
    """Call `harness.race` or `race_cold`, and save the rows.

    Args:
      context, options: of the section.
      place, contestants: see `harness.race`.
      cold: use new processes, which do the work cold, then warm.
      share: of the time that is left.
      **settings: see `harness.race` and `race_cold`.
    """
    running, left = adapt(context, contestants)
    for contestant, reason in left:
        context.put(place | {
            "side": contestant.side, "configuration": contestant.configuration,
            "precision": contestant.precision, "threads": options.threads, "ratio_keys": [],
            "status": "skipped", "reason": reason,
        })  # fmt: skip
    if cold:
        rows: list[Row] = []
        for contestant in running:  # one at a time, since each leaves the next another budget
            rows += harness.race_cold(
                place, [contestant], options, turns=1, on_rows=context.put_rows,
                turn_s=context.left_s() * share, **settings,
            )  # fmt: skip
        return rows
    seconds = context.left_s() * share
    settings = {"turns": 2 if context.dry else 10, "warm": 0 if context.dry else 2} | settings
    return harness.race(
        place, running, options, on_rows=context.put_rows, prepare_s=seconds * 0.7,
        measure_s=seconds * 0.25, **settings,
    )  # fmt: skip
