"""Run: ten epochs of the augmented CNN-LSTM from disk to test score, cold, then warm."""

import argparse

from benchmarks import epoch
from benchmarks.sections.context import Context, Row
from benchmarks.sections.racing import choose_corpus, list_as_gpu, make_options, race
from benchmarks.worker import Contestant


def list_all(context: Context, options: argparse.Namespace) -> tuple[Row, list[Contestant]]:
    """List the place of the rows, and both sides' ways in bfloat16."""
    epochs = 1 if context.dry else 10
    keys = epoch.KEYS | choose_corpus(context) | {"train.epochs": epochs}
    clips = 64 if context.dry else 1440
    if context.dry:
        keys |= {"model.channels": (4, 4, 4, 4), "model.hidden": 8, "features.hop_length": 512}
    contestants = epoch.list_contestants(keys, list_as_gpu(options), clips * 7 // 10 * epochs)
    place = {"benchmark": epoch.NAME, "case": "cnn_lstm, augmented",
             "shape": f"{clips} clips, {epochs} epochs, {keys['data.corpus']}"}  # fmt: skip
    return place, [c for c in contestants if c.precision == "bfloat16"]


def measure(context: Context) -> None:
    """Race ours, then PyTorch augmenting on the device, then PyTorch augmenting in workers."""
    options = make_options(context)
    place, contestants = list_all(context, options)
    contestants.sort(key=lambda c: (c.side != "ser_jax", "workers" in c.configuration))
    race(context, options, place, contestants, cold=True)
