"""The study's four augmentations: ser_jax on the device against audiomentations and PyTorch.

Command: python benchmarks/augment.py [--quick] [--data.root DIR]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import harness
from benchmarks.worker import Contestant

NAME = "augment"


def list_our_contestants(
    arguments: dict[str, Any], options: argparse.Namespace
) -> list[Contestant]:
    """ser_jax's augmentation, clips side by side and one after another."""
    clips, keys = len(arguments["wave_BN"]), (NAME, f"{NAME}_all_cores", f"{NAME}_torch")
    builder = "benchmarks.ours:make_augment"
    ways = ["map", "vmap"] if options.device["kind"] == "cpu" else ["vmap"]
    ways = ways[:1] if options.quick else ways
    return [
        Contestant("ser_jax", way, builder, arguments | {"way": way}, clips=clips, ratio_keys=keys)
        for way in ways
    ]


def list_contestants(arguments: dict[str, Any], options: argparse.Namespace) -> list[Contestant]:
    """audiomentations on one core (the headline) and on all, PyTorch on the device, ser_jax."""
    clips, threads = len(arguments["wave_BN"]), options.threads
    host, theirs = (
        "benchmarks.clips:make_audiomentations",
        "benchmarks.pytorch.augment:make_augment",
    )
    contestants = []
    for method in ("signalsmith_stretch", "librosa_phase_vocoder")[: 1 if options.quick else 2]:
        own = arguments | {"augment": {"method": method}}
        contestants += [
            Contestant("audiomentations", f"one core, {method}", host, own, threads=1, clips=clips,
                       ratio_keys=(NAME,) if method == "signalsmith_stretch" else ()),
            Contestant("audiomentations", f"{threads} processes, {method}", host,
                       own | {"processes": threads}, clips=clips,
                       ratio_keys=(f"{NAME}_all_cores",)),
        ]  # fmt: skip
    on_device = arguments | {"kind": options.device["kind"]}
    for words, alone in (("drawn clips alone", True), ("all clips", False)):
        contestants.append(Contestant(
            "pytorch", f"torchaudio's functions, batched, {words}", theirs,
            on_device | {"alone": alone}, clips=clips, ratio_keys=(f"{NAME}_torch",),
        ))  # fmt: skip
    return contestants + list_our_contestants(arguments, options)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the augmentation."""
    arguments, place = harness.load_clips(options, NAME, "all four, p = 0.5")
    turns = options.turns or (4 if options.quick else 20)
    contestants = list_contestants(arguments | {"augment": {}}, options)
    return harness.race(place, contestants, options, turns=turns)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    harness.run(measure, harness.make_parser(__doc__).parse_args(arguments), NAME)


if __name__ == "__main__":
    main()
