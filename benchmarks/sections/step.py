"""Step: a training step of LSTM and CNN-LSTM at the standard shape, both sides' best ways."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from benchmarks import step
from benchmarks.sections.context import Context
from benchmarks.sections.racing import list_as_gpu, make_options, race
from benchmarks.worker import Contestant

NETWORKS = ("lstm", "cnn_lstm")
SHAPE, DRY_SHAPE = step.STANDARD, (16, 16, 4)  # frames, features, batch


Way = tuple[str, tuple[str, ...], dict[str, Any]]  # words, networks, arguments
MORE: tuple[Way, ...] = (
    ("scan, command buffers", NETWORKS, {"command_buffers": "auto"}),
    ("scan, unrolled LSTM, command buffers", ("cnn_lstm",),
     {"command_buffers": "auto", "forms": {"lstm": "unrolled"}}),
)  # fmt: skip
"""Ours besides those of `step.py`; a further one is a further line."""


def add_ways(name: str, contestants: list[Contestant]) -> list[Contestant]:
    """With `MORE` of a network, made of its default form in each precision."""
    defaults = [c for c in contestants if c.side == "ser_jax" and c.configuration == "scan"]
    return contestants + [
        dataclasses.replace(default, configuration=words, arguments=default.arguments | own)
        for default in defaults for words, networks, own in MORE if name in networks
    ]  # fmt: skip


def choose(contestants: Iterable[Contestant]) -> list[Contestant]:
    """All but the plain forms, which are references and no ways to win; none is prepared alone,
    for which there is no time here."""
    return [dataclasses.replace(contestant, alone=False) for contestant in contestants
            if "plain" not in contestant.configuration]  # fmt: skip


def measure(context: Context) -> None:
    """A race for each network."""
    options = make_options(context)
    n_frames, n_features, batch = shape = DRY_SHAPE if context.dry else SHAPE
    for number, name in enumerate(NETWORKS):
        contestants = step.list_contestants(
            name, shape, list_as_gpu(options), steps=1 if context.dry else 20
        )
        place = {"benchmark": step.NAME, "case": name,
                 "shape": f"{batch} x {n_frames} x {n_features}"}  # fmt: skip
        race(
            context, options, place, choose(add_ways(name, contestants)),
            equal={"parameters": 0.0, "loss": 1e-4}, turns=1 if context.dry else 20,
            share=0.9 / (len(NETWORKS) - number),
        )  # fmt: skip
