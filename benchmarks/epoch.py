"""A whole augmented CNN-LSTM run, ten epochs: ser_jax against PyTorch, from disk to test score.

Command: python benchmarks/epoch.py [--quick] [--data.root DIR] [--epochs 10]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import harness
from benchmarks.worker import Contestant

NAME = "run"
KEYS: dict[str, Any] = {  # configs/cnn_lstm_augmented.yaml
    "features.hop_length": 1024, "model.name": "cnn_lstm", "model.norm_momentum": 0.9,
    "augment.enabled": True, "parallel.cache_dir": None,
}  # fmt: skip
ON_CORES, ON_DEVICE = ("run",), ("run_augmented_on_device",)


def list_contestants(keys: dict[str, Any], options: argparse.Namespace, clips: int) -> list:
    """ser_jax, and PyTorch with its augmentation in worker processes and on the device."""
    kind = options.device["kind"]
    on_cpu = kind == "cpu"
    precisions = ("float32",) if on_cpu else ("tf32", "bfloat16")
    contestants = []
    for precision in precisions:
        shared: dict[str, Any] = {
            "precision": precision, "clips": clips, "tuned": on_cpu,
        }  # fmt: skip
        for backend in ("device", "host"):
            arguments = {"keys": keys | {"augment.backend": backend}, "precision": precision}
            ratios = ON_CORES + ON_DEVICE
            contestants.append(Contestant(
                "ser_jax", f"augmented on the {backend}", "benchmarks.ours:make_run", arguments,
                ratio_keys=ratios, **shared,
            ))  # fmt: skip
        for words, ways in list_torch_ways(kind, options.quick):
            for place, ratios in (("workers", ON_CORES), ("device", ON_DEVICE)):
                where = f"{options.threads} workers" if place == "workers" else "the device"
                arguments = {
                    "keys": keys, "kind": kind, "precision": precision, "augment_in": place,
                    "workers": options.threads, **ways,
                }  # fmt: skip
                contestants.append(Contestant(
                    "pytorch", f"{words}, augmented on {where}",
                    "benchmarks.pytorch.run:make_run", arguments, ratio_keys=ratios,
                    **shared,
                ))  # fmt: skip
    if options.quick:  # augmenting on the host is ser_jax's slower way
        contestants = [c for c in contestants if "on the host" not in c.configuration]
    return contestants


def list_torch_ways(kind: str, quick: bool) -> list[tuple[str, dict[str, Any]]]:
    """How the training step runs; on a GPU the graph holds augmentation and features too."""
    last = {"channels_last": True}
    eager = ("eager, channels_last", last)
    if kind == "cpu":
        ways = [eager, ("eager", {})]
    else:
        graph = last | {"pool_first": True, "graph": True}
        ways = [("CUDA graph, channels_last, pool before ELU", graph), eager]
    if quick:
        return ways[:1]
    return [*ways, ("compile, channels_last", last | {"compile_mode": "default"})]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the run."""
    epochs = getattr(options, "epochs", None) or (1 if options.quick else 10)
    keys = KEYS | {"train.epochs": epochs}
    keys |= harness.choose_data(options, *((4, 32) if options.quick else (24, 60)))
    clips = harness.call(options, "benchmarks.ours:prepare_data", keys=keys)
    contestants = list_contestants(keys, options, clips * 7 // 10 * epochs)
    place = {
        "benchmark": NAME, "case": "cnn_lstm, augmented",
        "shape": f"{clips} clips, {epochs} epochs, {keys['data.corpus']}",
    }  # fmt: skip
    turns = options.turns or (1 if options.quick or options.device["kind"] == "cpu" else 3)
    return harness.race_cold(place, contestants, options, turns=turns)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--epochs", type=int, help="default 10; quick: 1")
    harness.run(measure, parser.parse_args(arguments), NAME)


if __name__ == "__main__":
    main()
