"""Step: a training step of LSTM and CNN-LSTM at the standard shape, both sides' best ways."""

import dataclasses
from collections.abc import Iterable

from benchmarks import step
from benchmarks.sections.context import Context
from benchmarks.sections.racing import list_as_gpu, make_options, race
from benchmarks.worker import Contestant

NETWORKS = ("lstm", "cnn_lstm")
SHAPE, DRY_SHAPE = step.STANDARD, (16, 16, 4)  # frames, features, batch


def choose(contestants: Iterable[Contestant]) -> list[Contestant]:
    """Prepare none alone; there is no time for it here."""
    return [dataclasses.replace(contestant, alone=False) for contestant in contestants]


def measure(context: Context) -> None:
    """Run a race for each network."""
    options = make_options(context)
    n_frames, n_features, batch = shape = DRY_SHAPE if context.dry else SHAPE
    for number, name in enumerate(NETWORKS):
        contestants = step.list_contestants(
            name, shape, list_as_gpu(options), steps=1 if context.dry else 20
        )
        place = {"benchmark": step.NAME, "case": name,
                 "shape": f"{batch} x {n_frames} x {n_features}"}  # fmt: skip
        race(
            context, options, place, choose(contestants),
            equal={"parameters": 0.0, "loss": 1e-4}, turns=1 if context.dry else 20,
            share=0.9 / (len(NETWORKS) - number),
        )  # fmt: skip
