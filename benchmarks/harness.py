"""What the benchmarks share: the command line, clips, helper processes, rows into the file.

`race` is race.py's, `race_cold` cold.py's.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.cold import race_cold
from benchmarks.device import count_cores
from benchmarks.race import count_parallel, is_over, race, start_worker
from benchmarks.worker import Contestant

__all__ = [
    "call", "choose_data", "describe_device", "is_over", "load_clips", "make_parser", "race",
    "race_cold", "run",
]  # fmt: skip
PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchaudio", "transformers", "librosa",
    "audiomentations",
)  # fmt: skip


def load_clips(
    options: argparse.Namespace, benchmark: str, case: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load a batch of clips as builders take them, and the place of their rows."""
    data = choose_data(options, 4, 32)
    n_clips = 32 if options.device["kind"] == "cpu" else 128
    arguments = call(options, "benchmarks.clips:load_clips", keys=data, n_clips=n_clips)
    n_samples, rate_hz = arguments["wave_BN"].shape[1], arguments["rate_hz"]
    place = {
        "benchmark": benchmark, "case": case,
        "shape": f"{n_clips} x {n_samples / rate_hz:.2f} s, {data['data.corpus']}",
    }  # fmt: skip
    return arguments, place


def choose_data(options: argparse.Namespace, actors: int, clips: int) -> dict[str, Any]:
    """Choose the corpus: RAVDESS if the command line names its folder, else synthetic."""
    keys: dict[str, Any] = (
        {} if options.store_dir is None else {"data.store_dir": options.store_dir}
    )
    if options.data_root is not None:
        return keys | {"data.corpus": "ravdess", "data.root": options.data_root}
    size = {"data.synthetic_actors": actors, "data.synthetic_clips": clips}
    return keys | {"data.corpus": "synthetic"} | size


def call(
    options: argparse.Namespace, function: str, *, on_device: bool = False, **arguments: Any
) -> Any:
    """Call 'module:function' in a process of its own, so that this one imports nothing.

    Args:
      options: the command line.
      function: the baseline's run with the baseline's packages, all others with ser_jax's.
      on_device: whether it must see the device; otherwise JAX computes on CPU, and spends no time
        and memory on a GPU context.
      **arguments: of the function.
    """
    side = "pytorch" if function.startswith("benchmarks.pytorch.") else "ser_jax"
    environment = {} if on_device else {"JAX_PLATFORMS": "cpu"}
    worker = start_worker(Contestant(side, "helper", "", environment=environment), options)
    try:
        return worker.call(function, **arguments)
    finally:
        worker.close()


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer turns, clips and epochs")
    parser.add_argument(
        "--out", type=Path, help="JSON file; default benchmarks/results/DEVICE.json"
    )
    parser.add_argument("--turns", type=int, help="measured turns of each contestant")
    parser.add_argument(
        "--threads", type=int, default=count_cores(), help="cores for each side; default all"
    )
    parser.add_argument(
        "--parallel", type=int,
        help="contestants prepared at once; default 1 on CPU, else as many as cores",
    )  # fmt: skip
    parser.add_argument(
        "--ours-path", metavar="DIR", default=os.environ.get("SER_JAX_BENCH_PATH"),
        help="folder of packages that only ser_jax's side imports before those installed, for "
        "transformers below 5; default $SER_JAX_BENCH_PATH",
    )  # fmt: skip
    parser.add_argument("--data.root", dest="data_root", help="folder of the RAVDESS recordings")
    parser.add_argument("--data.store_dir", dest="store_dir", help="folder of decoded corpora")
    return parser


def describe_device(options: argparse.Namespace) -> None:
    """Set `options.device`, `options.versions` and, where they are missing, `out`, `parallel`."""
    options.device = call(options, "benchmarks.device:describe", on_device=True)
    options.versions = list_versions(options)
    options.out = options.out or results.default_path(options.device["name"])
    options.parallel = count_parallel(options)


def list_versions(options: argparse.Namespace) -> dict[str, str]:
    """List versions of all packages; of transformers on both sides, where they differ."""
    versions = call(options, "benchmarks.device:list_versions", packages=PACKAGES)
    if getattr(options, "ours_path", None) is not None:
        theirs = argparse.Namespace(**vars(options) | {"ours_path": None})
        found = call(theirs, "benchmarks.device:list_versions", packages=("transformers",))
        versions["transformers (pytorch)"] = found.get("transformers", "none")
    return versions


def run(
    measure: Callable[[argparse.Namespace], list[dict[str, Any]]],
    options: argparse.Namespace,
    benchmark: str,
) -> None:
    """Measure one benchmark, saving its rows to the results file race by race."""
    if not hasattr(options, "device"):
        describe_device(options)
    print(f"\n{benchmark}: {options.device['name']}, {options.threads} threads", flush=True)
    start_s, own = time.perf_counter(), []

    def save(rows: list[dict[str, Any]]) -> None:
        own.extend(rows)
        results.save(options, benchmark, own, time.perf_counter() - start_s)

    options.on_rows = save
    measure(options)
    results.print_ratios(options.out)
