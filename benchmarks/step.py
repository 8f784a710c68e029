"""A training step of CNN, LSTM and CNN-LSTM: ser_jax against PyTorch.

Command: python benchmarks/step.py [--quick] [--models cnn,lstm] [--frames 83 --features 20]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import harness
from benchmarks.flops import BYTES, count_step, list_layers
from benchmarks.worker import Contestant
from ser_jax.config import ModelConfig, override

NAME = "step"
MODELS = ("cnn", "lstm", "cnn_lstm")
STANDARD = (165, 40, 32)  # frames, features, batch: the shape that the ratios are of
SECOND = (83, 20, 32)  # configs/ablation.yaml's
N_CLIPS = 128

PRECISIONS = ("float32", "tf32", "bfloat16")  # on a GPU; --quick leaves out the first
# Forms besides those that the package chooses.
CONV_FORMS, LSTM_FORMS = ("plain", "fast"), ("plain", "fast")
LONE, LONE_WAYS = ("cnn_lstm", "bfloat16"), ("scan", "compile, channels_last, pool before ELU")
NOUNS = {"conv": "convolution", "lstm": "LSTM"}

Way = tuple[str, str, dict[str, Any], bool]  # words, precision, arguments, tuned allocator


def list_our_ways(name: str, kind: str, threads: int, quick: bool) -> list[Way]:
    """How ser_jax runs it."""
    if kind == "cpu":
        ways: list[Way] = [
            ("jit", "float32", {}, True),
            ("jit, allocator as it is", "float32", {}, False),
        ]
        if threads > 1:
            shared = {"mode": "mesh", "cpu_devices": threads}
            ways.insert(1, (f"mesh of {threads} CPU devices", "float32", shared, True))
            if name == "lstm":  # a convolution inside a scan is slow on CPU
                words = f"scan, mesh of {threads} CPU devices"
                ways.insert(2, (words, "float32", shared | {"scan": True}, True))
        return ways[:-1] if quick else ways
    own: dict[str, Any] = {"scan": True}
    own |= {} if name == "cnn" else {"forms": {"lstm": "unrolled"}}  # what the package chooses
    forms = [("conv", form) for form in CONV_FORMS if name != "lstm"]
    forms += [("lstm", form) for form in LSTM_FORMS if name != "cnn"]
    ways = []
    for precision in PRECISIONS[quick:]:
        ways.append(("scan", precision, own, False))
        if quick:
            continue
        for part, form in forms:
            changed = own | {"forms": own.get("forms", {}) | {part: form}}
            ways.append((f"scan, {form} {NOUNS[part]}", precision, changed, False))
        ways.append(("jit", precision, own | {"scan": False}, False))
    return ways


def list_torch_ways(name: str, kind: str, quick: bool) -> list[Way]:
    """How PyTorch runs it; the quick list keeps those that have won or might."""
    list_ways = _list_torch_ways_on_cpu if kind == "cpu" else _list_torch_ways_on_gpu
    return list_ways(name, quick)


LAST, COMPILED = {"channels_last": True}, {"compile_mode": "default"}
FIRST = LAST | {"pool_first": True}


def _list_torch_ways_on_cpu(name: str, quick: bool) -> list[Way]:
    full: list[Way] = [
        ("eager, default Adam", "float32", {"adam": "default"}, False),
        ("eager, foreach Adam", "float32", {"adam": "foreach"}, False),
        ("eager", "float32", {}, False),
        ("eager, channels_last", "float32", LAST, False),
        ("compile", "float32", COMPILED, False),
        ("compile, channels_last", "float32", LAST | COMPILED, False),
        ("compile, max-autotune", "float32", {"compile_mode": "max-autotune"}, False),
        ("autocast", "bfloat16", {}, False),
        ("autocast, compile, channels_last", "bfloat16", LAST | COMPILED, False),
        ("autocast, channels_last, tuned allocator", "bfloat16", LAST, True),
    ]
    chosen: list[Way] = [
        ("eager, tuned allocator", "float32", {}, True),
        ("eager, channels_last, tuned allocator", "float32", LAST, True),
        ("eager, channels_last, pool before ELU, tuned allocator", "float32", FIRST, True),
        ("compile, tuned allocator", "float32", COMPILED, True),
        ("compile, channels_last, tuned allocator", "float32", LAST | COMPILED, True),
        ("compile, channels_last, pool before ELU, tuned allocator", "float32",
         FIRST | COMPILED, True),
    ]  # fmt: skip
    if quick and name != "lstm":  # each compiles for half a minute, and never won
        chosen = [way for way in chosen if "compile" not in way[0]]
    ways = chosen if quick else full + chosen
    # The LSTM has no channels.
    return [way for way in ways if name != "lstm" or "channels_last" not in way[2]]


def _list_torch_ways_on_gpu(name: str, quick: bool) -> list[Way]:
    last, first = ("", {}), ("", {})
    if name != "lstm":  # which has no channels and no pools
        last, first = (", channels_last", LAST), (", channels_last, pool before ELU", FIRST)
    graph, reduced = {"graph": True}, {"compile_mode": "reduce-overhead"}
    # All other losses are compared with float32's.
    ways: list[Way] = [(f"eager{last[0]}", "float32", last[1], False)]
    for precision in PRECISIONS[quick:]:
        entries = [
            (f"eager{last[0]}", last[1]),
            (f"CUDA graph of the step{first[0]}", first[1] | graph),
            (f"compile{first[0]}", first[1] | COMPILED),
        ]
        if not quick:
            entries += [
                ("eager", {}),
                ("eager, default Adam", {"adam": "default"}),
                ("compile, reduce-overhead", reduced),
                (f"compile, max-autotune{last[0]}", last[1] | {"compile_mode": "max-autotune"}),
                ("CUDA graph of the step", graph),
                (f"CUDA graph of the step{last[0]}", last[1] | graph),
            ]
        ways += [(words, precision, own, False) for words, own in entries]
    return list({way[:2]: way for way in ways}.values())


def list_ratio_keys(key: str, kind: str, precision: str, standard: bool) -> tuple[str, ...]:
    """List the ratios that a row counts in: at equal precision, and at any.

    On CPU the headline is float32 against float32. On a GPU both sides may use TF32 and bfloat16,
    and the headline is the best of each.
    """
    if not standard:
        return ()
    if kind == "cpu":
        return (key, f"{key}_any_precision")[precision != "float32" :]
    return (key, f"{key}_{precision}")


def list_contestants(
    name: str, shape: tuple[int, int, int], options: argparse.Namespace, steps: int
) -> list[Contestant]:
    """Both sides' contestants for one network and shape, with the same weights and clips."""
    import numpy as np

    n_frames, n_features, batch = shape
    kind, model = options.device["kind"], {"name": name}
    variables = harness.call(
        options, "benchmarks.ours:make_variables", model=model, n_frames=n_frames,
        n_features=n_features,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    arguments = {
        "model": model,
        "x_BTF": rng.standard_normal((N_CLIPS, n_frames, n_features), np.float32),
        "label_B": rng.integers(0, 8, N_CLIPS).astype(np.int32),
        "index_SB": rng.integers(0, N_CLIPS, (steps, batch)).astype(np.int32),
        "variables": variables,
    }
    layers = list_layers(override(ModelConfig(), model), 8, n_frames, n_features)
    entries = [("ser_jax", "benchmarks.ours:make_step", {}, way)
               for way in list_our_ways(name, kind, options.threads, options.quick)]  # fmt: skip
    entries += [("pytorch", "benchmarks.pytorch.training:make_step", {"kind": kind}, way)
                for way in list_torch_ways(name, kind, options.quick)]  # fmt: skip
    contestants = []
    for side, builder, more, (words, precision, own, tuned) in entries:
        keys = list_ratio_keys(name, kind, precision, shape == STANDARD)
        # One compile time per side that shares its cores with nothing.
        alone = kind != "cpu" and (name, precision) == LONE and words in LONE_WAYS
        work = count_step(layers, batch, BYTES[precision])
        contestants.append(Contestant(
            side, words, builder, arguments | more | own | {"precision": precision}, precision,
            tuned=tuned, alone=alone, steps=steps, clips=batch, work=work, ratio_keys=keys,
        ))  # fmt: skip
    return contestants


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of every network and shape."""
    on_cpu = options.device["kind"] == "cpu"
    turns = options.turns or (6 if options.quick else 30)
    shapes = [STANDARD] if options.quick else [STANDARD, SECOND]
    asked = getattr(options, "shape", STANDARD)
    if asked not in shapes:
        shapes = [asked]
    rows = []
    for shape in shapes:
        for name in getattr(options, "models", MODELS):
            contestants = list_contestants(name, shape, options, steps=4 if on_cpu else 20)
            n_frames, n_features, batch = shape
            place = {"benchmark": NAME, "case": name,
                     "shape": f"{batch} x {n_frames} x {n_features}"}  # fmt: skip
            equal = {"parameters": 0.0, "loss": 1e-4}
            rows += harness.race(place, contestants, options, turns=turns, equal=equal)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="networks, separated by commas")
    for name, number in zip(("frames", "features", "batch"), STANDARD, strict=True):
        parser.add_argument(f"--{name}", type=int, default=number, help=f"default {number}")
    options = parser.parse_args(arguments)
    options.models = tuple(options.models.split(","))
    options.shape = (options.frames, options.features, options.batch)
    harness.run(measure, options, NAME)


if __name__ == "__main__":
    main()
