"""Options: what compiler searches cost and gain, in steps and in whole cold runs."""

import argparse
import dataclasses
import os

from benchmarks import step
from benchmarks.sections import run
from benchmarks.sections.context import Context
from benchmarks.sections.racing import list_as_gpu, make_options, race
from benchmarks.worker import Contestant

_TRITON = "--xla_gpu_enable_triton_gemm"
_FUSION = "--xla_gpu_experimental_enable_fusion_autotuner"
# Words and XLA's flags; a further setting is a further line. The package respects what is named
# here (`accelerator.choose_compiler_options`).
SETTINGS = (
    ("as the package", ""),
    ("Triton GEMM", f"{_TRITON}=true"),
    ("XLA's own", f"{_TRITON}=true {_FUSION}=true"),
    ("autotune level 0", f"--xla_gpu_autotune_level=0 {_TRITON}=true {_FUSION}=true"),
)
COLD = ("Triton GEMM",)  # of whole runs; `run` has the package's own
FORMS = ("fast", "im2col")  # of convolutions, beside the package's own
NETWORKS = {"cnn_lstm": 0.5, "lstm": 0.5}  # and the share of the time left


def vary(contestant: Contestant) -> list[Contestant]:
    """Vary the settings of the same work; each compiles alone, so that compile times compare."""
    found = []
    for words, flags in SETTINGS:
        environment = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
        found.append(dataclasses.replace(
            contestant, configuration=f"{contestant.configuration}, {words}", ratio_keys=(),
            environment=environment, alone=True,
        ))  # fmt: skip
    return found


def change_forms(contestant: Contestant) -> list[Contestant]:
    """Vary the form of convolution in the same step."""
    return [
        dataclasses.replace(
            contestant, configuration=f"{contestant.configuration}, {form} convolution",
            arguments=contestant.arguments | {"forms": {"conv": form}}, ratio_keys=(), alone=True,
        )
        for form in FORMS
    ]  # fmt: skip


def measure(context: Context) -> None:
    """Race each network's step, then cold runs."""
    options = make_options(context)
    for name, share in NETWORKS.items():
        _race_steps(context, options, name, share)
    _race_cold(context, options)


def _race_cold(context: Context, options: argparse.Namespace) -> None:
    place, contestants = run.list_all(context, options)
    ours = next(c for c in contestants if c.side == "ser_jax")
    chosen = [c for c in vary(ours) if c.configuration.endswith(COLD)]
    race(context, options, place | {"benchmark": "options"}, chosen, cold=True, share=0.9)


def _race_steps(context: Context, options: argparse.Namespace, name: str, share: float) -> None:
    n_frames, n_features, batch = shape = (16, 16, 4) if context.dry else step.STANDARD
    contestants = step.list_contestants(
        name, shape, list_as_gpu(options), steps=1 if context.dry else 20
    )
    ours = next(c for c in contestants if c.side == "ser_jax" and c.precision == "bfloat16")
    ways = vary(ours) if name == "lstm" else [*vary(ours), *change_forms(ours)]
    place = {"benchmark": "options", "case": name,
             "shape": f"{batch} x {n_frames} x {n_features}"}  # fmt: skip
    race(context, options, place, ways, equal={"loss": 1e-4}, share=share)
