"""A grid of 32 runs, four systems x eight seeds: ser_jax.ablate against PyTorch.

PyTorch trains one run per core in processes on CPU; on a GPU one after another, and in processes
that share it.
Command: python benchmarks/grid.py [--quick] [--data.root DIR] [--epochs 10] [--seeds 8]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import harness
from benchmarks.worker import Contestant

NAME = "grid"
KEYS: dict[str, Any] = {
    "features.hop_length": 1024, "model.norm_momentum": 0.9, "parallel.cache_dir": None,
}  # fmt: skip
PROCESSES = 4
"""Of PyTorch's that share a GPU; none but the driver's time slices are assumed."""
SYSTEMS: dict[str, dict[str, Any]] = {  # those of configs/ablation.yaml
    "cnn": {"model.name": "cnn"},
    "lstm": {"model.name": "lstm", "features.normalise": "none"},
    "cnn_lstm": {"model.name": "cnn_lstm"},
    "cnn_lstm_augmented": {"model.name": "cnn_lstm", "augment.enabled": True},
}


def list_contestants(
    keys: dict[str, Any],
    systems: dict[str, dict[str, Any]],
    seeds: tuple[int, ...],
    options: argparse.Namespace,
) -> list[Contestant]:
    """Both sides' ways to train all runs; a step is one run, a turn the whole grid."""
    on_cpu = options.device["kind"] == "cpu"
    precision = "float32" if on_cpu else "bfloat16"
    runs = [keys | own | {"seed": seed} for own in systems.values() for seed in seeds]
    shared: dict[str, Any] = {
        "precision": precision, "steps": len(runs), "ratio_keys": (NAME,),
    }  # fmt: skip
    contestants = []
    for batching in ("auto",) if options.quick else ("auto", "vmap", "map", "one"):
        arguments = {
            "keys": keys, "systems": systems, "seeds": seeds, "batching": batching,
            "precision": precision,
        }  # fmt: skip
        contestants.append(Contestant(
            "ser_jax", f"batching {batching}", "benchmarks.ours:make_grid", arguments,
            tuned=on_cpu, **shared,
        ))  # fmt: skip
    for processes, way, flags in list_torch_ways(options):
        words = f"{processes} processes" if processes > 1 else "one run after another"
        for place in ("workers", "device") if on_cpu and not options.quick else ("device",):
            where = "audiomentations in the run's process" if place == "workers" else "the device"
            arguments = {
                "runs": runs, "kind": options.device["kind"], "processes": processes,
                "precision": precision, "augment_in": place, **flags,
            }  # fmt: skip
            contestants.append(Contestant(
                "pytorch", f"{words}, {way}, augmented by {where}",
                "benchmarks.pytorch.grid:make_grid", arguments, **shared,
            ))  # fmt: skip
    return contestants


def list_torch_ways(options: argparse.Namespace) -> list[tuple[int, str, dict[str, Any]]]:
    """Processes at once, and how each runs a step."""
    last = ("eager, channels_last", {"channels_last": True})
    if options.device["kind"] == "cpu":
        counts, ways = (options.threads,), [last, ("eager", {})]
    else:
        flags = last[1] | {"pool_first": True, "graph": True}
        counts, ways = (1, PROCESSES), [("CUDA graph, channels_last, pool before ELU", flags), last]
    return [(n, *way) for n in counts for way in (ways[:1] if options.quick else ways)]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the grid."""
    epochs = getattr(options, "epochs", None) or (1 if options.quick else 10)
    systems = {"cnn_lstm": SYSTEMS["cnn_lstm"]} if options.quick else SYSTEMS
    n_seeds = getattr(options, "seeds", None) or (4 if options.quick else 8)
    keys = KEYS | {"train.epochs": epochs}
    keys |= harness.choose_data(options, *((4, 32) if options.quick else (24, 60)))
    clips = harness.call(options, "benchmarks.ours:prepare_data", keys=keys)
    contestants = list_contestants(keys, systems, tuple(range(n_seeds)), options)
    n_runs = n_seeds * len(systems)
    place = {
        "benchmark": NAME, "case": f"{n_runs} runs",
        "shape": f"{clips} clips, {epochs} epochs, {keys['data.corpus']}",
    }  # fmt: skip
    return harness.race_cold(place, contestants, options, turns=options.turns or 1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--epochs", type=int, help="default 10; quick: 1")
    parser.add_argument(
        "--seeds", type=int, help="default 8, which makes 32 runs; quick: 4 of one system"
    )
    harness.run(measure, parser.parse_args(arguments), NAME)


if __name__ == "__main__":
    main()
