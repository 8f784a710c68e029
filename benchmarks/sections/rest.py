"""Rest: features, augmentation and prediction of clips, as time allows."""

import argparse
from typing import Any

from benchmarks import augment, features, harness, inference
from benchmarks.sections.context import Context
from benchmarks.sections.racing import choose_corpus, list_as_gpu, make_options, race


def _load(context: Context, options: argparse.Namespace, n_clips: int) -> dict[str, Any]:
    """Load clips as builders take them, and a batch for prediction."""
    return harness.call(
        options, "benchmarks.clips:load_clips", keys=choose_corpus(context), n_clips=n_clips
    )


def _take(arguments: dict[str, Any], n_clips: int) -> dict[str, Any]:
    return arguments | {key: arguments[key][:n_clips] for key in ("wave_BN", "length_B")}


def measure(context: Context) -> None:
    """Race features, the four augmentations, then prediction at several batch sizes."""
    options = make_options(context)
    listing = list_as_gpu(options)
    clips = _load(context, options, 4 if context.dry else 256)
    some = _take(clips, 4 if context.dry else 128)
    shape = f"{len(some['wave_BN'])} x {clips['wave_BN'].shape[1] / clips['rate_hz']:.2f} s"
    races = [
        ("mfcc", features, features.list_contestants(
            some | {"features": features.FEATURES}, listing, features.NAME)),
        ("all four, p = 0.5", augment, augment.list_contestants(some | {"augment": {}}, listing)),
    ]  # fmt: skip
    for case, module, contestants in races:
        place = {"benchmark": module.NAME, "case": case, "shape": shape}
        race(context, options, place, contestants, share=0.35)
    _predict(context, options, clips)


def _predict(context: Context, options: argparse.Namespace, clips: dict[str, Any]) -> None:
    n_frames = 1 + clips["wave_BN"].shape[1] // inference.HOP
    common = {"model": inference.MODEL, "features": inference.FEATURES}
    common["variables"] = harness.call(
        options, "benchmarks.ours:make_variables", model=inference.MODEL, n_frames=n_frames,
        n_features=inference.FEATURES["n_mfcc"],
    )  # fmt: skip
    batches = (1,) if context.dry else (1, 32, 256)
    for number, batch in enumerate(batches):
        contestants = inference.list_contestants(
            _take(clips, batch) | common, list_as_gpu(options), n_frames
        )
        place = {"benchmark": inference.NAME, "case": f"cnn_lstm, batch {batch}",
                 "shape": f"{clips['wave_BN'].shape[1] / clips['rate_hz']:.2f} s"}  # fmt: skip
        race(context, options, place, contestants, equal={"confidence": 1e-3},
             share=0.9 / (len(batches) - number))  # fmt: skip
