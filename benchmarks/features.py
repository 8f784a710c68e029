"""Waveform to MFCC: ser_jax against librosa and PyTorch, clips in memory (on a GPU: in its own).

Command: python benchmarks/features.py [--quick] [--data.root DIR]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import harness
from benchmarks.worker import Contestant

NAME = "features"
FEATURES = {"n_mfcc": 40, "hop_length": 512}


def list_contestants(
    arguments: dict[str, Any], options: argparse.Namespace, name: str
) -> list[Contestant]:
    """librosa on one core and on all, PyTorch, ser_jax.

    On CPU the headline is one core against one core.
    """
    kind, threads = options.device["kind"], options.threads
    clips = len(arguments["wave_BN"])
    ours, theirs = "benchmarks.ours:make_features", "benchmarks.pytorch.features:make_features"
    librosa = "benchmarks.clips:make_librosa"
    torch_arguments = arguments | {"kind": kind}
    one, every, torch_one = (name,), (f"{name}_all_cores",), (f"{name}_torch",)
    contestants = [
        Contestant("librosa", "one core", librosa, arguments, threads=1, clips=clips,
                   ratio_keys=one),
        Contestant("librosa", f"{threads} processes", librosa,
                   arguments | {"processes": threads}, clips=clips, ratio_keys=every),
    ]  # fmt: skip
    if kind == "cpu":
        contestants += [
            Contestant("ser_jax", "one core", ours, arguments, threads=1, clips=clips,
                       ratio_keys=one + torch_one),
            Contestant("pytorch", "one core", theirs, torch_arguments, threads=1, clips=clips,
                       ratio_keys=torch_one),
        ]  # fmt: skip
        one, torch_one = (), (f"{name}_torch_all_cores",)
    contestants += [
        Contestant("ser_jax", "jit", ours, arguments, clips=clips,
                   ratio_keys=one + every + torch_one),
        Contestant("pytorch", "eager", theirs, torch_arguments, clips=clips,
                   ratio_keys=torch_one),
    ]  # fmt: skip
    if not options.quick:
        contestants.append(Contestant(
            "pytorch", "compile", theirs, torch_arguments | {"compiled": True}, clips=clips,
            ratio_keys=torch_one,
        ))  # fmt: skip
    return contestants


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the front end."""
    arguments, place = harness.load_clips(options, NAME, "mfcc")
    contestants = list_contestants(arguments | {"features": FEATURES}, options, NAME)
    turns = options.turns or (5 if options.quick else 30)
    return harness.race(place, contestants, options, turns=turns)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    harness.run(measure, harness.make_parser(__doc__).parse_args(arguments), NAME)


if __name__ == "__main__":
    main()
