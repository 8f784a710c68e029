"""Options: what settings of the compiler and of the allocator cost and gain, by one step."""

import dataclasses
import os
from typing import Any

from benchmarks import step
from benchmarks.sections.context import Context
from benchmarks.sections.racing import list_as_gpu, make_options, race
from benchmarks.worker import Contestant

# Words, XLA's flags, what else differs; a further setting is a further line.
SETTINGS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("default", "", {}),
    ("autotune level 0", "--xla_gpu_autotune_level=0", {}),
    ("autotune level 2", "--xla_gpu_autotune_level=2", {}),  # finds the fastest, checks no results
    ("Triton GEMM off", "--xla_gpu_enable_triton_gemm=false", {}),
    (
        "Triton GEMM off, autotune level 2",
        "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=2",
        {},
    ),
)


def vary(contestant: Contestant) -> list[Contestant]:
    """The same work under each setting, each prepared alone so that compile times compare."""
    found = []
    for words, flags, changes in SETTINGS:
        environment = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
        found.append(dataclasses.replace(
            contestant, configuration=f"{contestant.configuration}, {words}", ratio_keys=(),
            environment=environment, alone=True, **changes,
        ))  # fmt: skip
    return found


def measure(context: Context) -> None:
    """One race of CNN-LSTM's default form."""
    options = make_options(context)
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
