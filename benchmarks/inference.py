"""Waveforms to probabilities, host to host: latency of 1 and 32 clips, throughput of 256.

Command: python benchmarks/inference.py [--quick] [--data.root DIR]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import harness
from benchmarks.flops import BYTES, count_forward, list_layers
from benchmarks.worker import Contestant
from ser_jax.config import ModelConfig, override

NAME = "inference"
MODEL: dict[str, Any] = {"name": "cnn_lstm"}
HOP = 512
FEATURES: dict[str, Any] = {"n_mfcc": 40, "hop_length": HOP}


def list_contestants(
    arguments: dict[str, Any], options: argparse.Namespace, n_frames: int
) -> list[Contestant]:
    """ser_jax's one program against PyTorch's ways; only the network's work is counted."""
    kind = options.device["kind"]
    batch = len(arguments["wave_BN"])
    layers = list_layers(override(ModelConfig(), MODEL), 8, n_frames, FEATURES["n_mfcc"])
    shared: dict[str, Any] = {
        "clips": batch, "ratio_keys": (f"{NAME}_batch_{batch}",),
    }  # fmt: skip
    allocators = {"": False}
    if kind == "cpu":
        allocators = {", tuned allocator": True} | ({} if options.quick else allocators)
    last = {"channels_last": True}
    ways = [("eager", {}), ("eager, channels_last", last)]
    if not options.quick:
        ways.append(("compile, channels_last", last | {"compile_mode": "default"}))
        if kind != "cpu":
            ways.append(("compile, reduce-overhead", {"compile_mode": "reduce-overhead"}))
    contestants = []
    for precision in ("float32",) if kind == "cpu" else ("tf32", "bfloat16"):
        for words, tuned in allocators.items():
            work = count_forward(layers, batch, BYTES[precision])
            common = shared | {"precision": precision, "tuned": tuned, "work": work}
            own = arguments | {"precision": precision}
            contestants.append(Contestant(
                "ser_jax", f"jit{words}", "benchmarks.ours:make_inference", own, **common
            ))  # fmt: skip
            for way, flags in ways:
                contestants.append(Contestant(
                    "pytorch", f"{way}{words}", "benchmarks.pytorch.inference:make_inference",
                    own | flags | {"kind": kind}, **common,
                ))  # fmt: skip
    return contestants


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of each batch size."""
    data = harness.choose_data(options, 4, 32)
    rows: list[dict[str, Any]] = []
    for batch in (1, 32) if options.quick else (1, 32, 256):
        arguments = harness.call(options, "benchmarks.clips:load_clips", keys=data, n_clips=batch)
        n_samples, rate_hz = arguments["wave_BN"].shape[1], arguments["rate_hz"]
        n_frames = 1 + n_samples // HOP
        arguments |= {"model": MODEL, "features": FEATURES}
        arguments["variables"] = harness.call(
            options, "benchmarks.ours:make_variables", model=MODEL, n_frames=n_frames,
            n_features=FEATURES["n_mfcc"],
        )  # fmt: skip
        place = {
            "benchmark": NAME, "case": f"cnn_lstm, batch {batch}",
            "shape": f"{n_samples / rate_hz:.2f} s, {data['data.corpus']}",
        }  # fmt: skip
        turns = options.turns or (8 if options.quick else 50)
        contestants = list_contestants(arguments, options, n_frames)
        # The mean of the largest probability shows that both sides compute the same.
        rows += harness.race(place, contestants, options, turns=turns, equal={"confidence": 1e-4})
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    harness.run(measure, harness.make_parser(__doc__).parse_args(arguments), NAME)


if __name__ == "__main__":
    main()
