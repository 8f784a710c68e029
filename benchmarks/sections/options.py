"""Options: what settings of the compiler cost and gain, by a step and by whole runs, cold."""

import argparse
import dataclasses
import os

from benchmarks import step
from benchmarks.sections import run
from benchmarks.sections.context import Context
from benchmarks.sections.racing import list_as_gpu, make_options, race
from benchmarks.worker import Contestant

# Words and XLA's flags; a further setting is a further line.
SETTINGS = (
    ("default", ""),
    ("autotune level 0", "--xla_gpu_autotune_level=0"),
    ("Triton GEMM off", "--xla_gpu_enable_triton_gemm=false"),
    ("autotune level 2", "--xla_gpu_autotune_level=2"),  # finds the fastest, checks no results
)
COLD = ("autotune level 0", "Triton GEMM off")  # of whole runs; `run` has the default


def vary(contestant: Contestant) -> list[Contestant]:
    """The same work under each setting, each prepared alone so that compile times compare."""
    found = []
    for words, flags in SETTINGS:
        environment = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
        found.append(dataclasses.replace(
            contestant, configuration=f"{contestant.configuration}, {words}", ratio_keys=(),
            environment=environment, alone=True,
        ))  # fmt: skip
    return found


def measure(context: Context) -> None:
    """Cold runs, then one race of CNN-LSTM's step."""
    options = make_options(context)
    _race_cold(context, options)
    _race_steps(context, options)


def _race_cold(context: Context, options: argparse.Namespace) -> None:
    place, contestants = run.list_all(context, options)
    ours = next(c for c in contestants if c.side == "ser_jax")
    chosen = [c for c in vary(ours) if c.configuration.endswith(COLD)]
    race(context, options, place | {"benchmark": "options"}, chosen, cold=True, share=0.3)


def _race_steps(context: Context, options: argparse.Namespace) -> None:
    n_frames, n_features, batch = shape = (16, 16, 4) if context.dry else step.STANDARD
    contestants = step.list_contestants(
        "cnn_lstm", shape, list_as_gpu(options), steps=1 if context.dry else 20
    )
    half = [contestant for contestant in contestants if contestant.precision == "bfloat16"]
    ours = next(contestant for contestant in half if contestant.side == "ser_jax")
    theirs = next(c for c in half if "compile_mode" in c.arguments)
    place = {"benchmark": "options", "case": "cnn_lstm",
             "shape": f"{batch} x {n_frames} x {n_features}"}  # fmt: skip
    theirs = dataclasses.replace(theirs, ratio_keys=(), alone=True)
    race(context, options, place, [*vary(ours), theirs])
