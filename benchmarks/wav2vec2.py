"""wav2vec 2.0 of base size, forward and training step: ser_jax against PyTorch's transformers.

Command: python benchmarks/wav2vec2.py [--quick] [--batch 8 --seconds 5.27] [--layers 12]

Same weights, clips and settings on both sides: the study's head, convolutions frozen, dropouts of
0.1, SpecAugment, Adam, and no layer drop, whose luck would be measured.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import harness
from benchmarks.flops import Work
from benchmarks.worker import Contestant

if TYPE_CHECKING:  # imports JAX, which a process must not do before it is pinned
    from ser_jax.wav2vec2.architecture import Architecture

NAME = "wav2vec2"
Way = tuple[str, str, str, dict[str, Any]]  # side, words, precision, arguments


def list_ways(kind: str, train: bool, quick: bool) -> list[Way]:
    """Both sides' ways to run it."""
    if kind == "cpu":
        ways: list[Way] = [("ser_jax", "jit", "float32", {})]
        if train:
            ways.append(("ser_jax", "jit, features computed once", "float32", {"cached": True}))
        ways.append(("pytorch", "eager", "float32", {}))
        if not quick:
            ways.append(("pytorch", "eager, plain attention", "float32", {"attention": "eager"}))
        return ways
    ways = [("ser_jax", "jit", precision, {}) for precision in ("tf32", "bfloat16")]
    if train:
        ways.append(("ser_jax", "jit, features computed once", "bfloat16", {"cached": True}))
    compiled = {"compile_mode": "default"}
    return [
        *ways,
        ("pytorch", "eager", "tf32", {}),
        ("pytorch", "autocast, SDPA", "bfloat16", {}),
        ("pytorch", "autocast, SDPA, compile", "bfloat16", compiled),
    ]


def count_work(architecture: "Architecture", batch: int, n_samples: int, train: bool) -> Work:
    """Count products and convolutions; a training step passes the unfrozen part three times."""
    encoder, frames, channels = 0, n_samples, 1
    sizes = (architecture.conv_kernel, architecture.conv_stride, architecture.conv_dim)
    for kernel, stride, dim in zip(*sizes, strict=True):
        frames = (frames - kernel) // stride + 1
        encoder += 2 * frames * kernel * channels * dim
        channels = dim
    H, inner = architecture.hidden_size, architecture.intermediate_size
    groups, taps = (
        architecture.num_conv_pos_embedding_groups, architecture.num_conv_pos_embeddings
    )  # fmt: skip
    layer = 2 * frames * (4 * H * H + 2 * H * inner) + 4 * frames * frames * H
    upper = architecture.num_hidden_layers * layer
    upper += 2 * frames * (channels * H + taps * H * H // groups)
    return Work(batch * (encoder + (3 if train else 1) * upper), 0)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the forward pass and of the training step."""
    import numpy as np

    from ser_jax.wav2vec2.architecture import Architecture

    kind = options.device["kind"]
    on_cpu = kind == "cpu"
    batch = getattr(options, "batch", None) or (8 if on_cpu else 32)
    seconds = getattr(options, "seconds", None) or 5.27
    layers = getattr(options, "layers", None) or 12
    if options.quick and on_cpu:
        batch, seconds = 2, 2.0
    turns = options.turns or (5 if options.quick or on_cpu else 20)
    sizes = {"num_hidden_layers": layers, "layerdrop": 0.0}
    architecture = Architecture(**sizes)  # pyright: ignore
    rng, n_samples = np.random.default_rng(0), round(seconds * 16000)
    x_BN = rng.standard_normal((batch, n_samples), np.float32)
    x_BN = (x_BN - x_BN.mean(1, keepdims=True)) / x_BN.std(1, keepdims=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        harness.call(options, "benchmarks.pytorch.wav2vec2:save_weights", folder=folder,
                     sizes=sizes)  # fmt: skip
        common = {"folder": folder, "x_BN": x_BN, "steps": 1 if on_cpu else 10,
                  "label_B": rng.integers(0, 8, batch).astype(np.int32)}  # fmt: skip
        for train in (False, True):
            contestants = []
            for side, words, precision, own in list_ways(kind, train, options.quick):
                ours = side == "ser_jax"
                builder = "benchmarks.ours_wav2vec2" if ours else "benchmarks.pytorch.wav2vec2"
                more = {} if ours else {"kind": kind}
                case = "wav2vec2_step" if train else "wav2vec2_forward"
                keys = () if "cached" in own else (case,)
                arguments = common | more | own | {"train": train, "precision": precision}
                contestants.append(Contestant(
                    side, words, f"{builder}:make_job", arguments, precision, tuned=on_cpu,
                    steps=common["steps"], clips=batch, ratio_keys=keys,
                    work=count_work(architecture, batch, n_samples, train),
                ))  # fmt: skip
            place = {"benchmark": NAME, "case": "step" if train else "forward",
                     "shape": f"{batch} x {seconds} s, {layers} layers"}  # fmt: skip
            equal = {} if train else {"output": 2e-4}
            rows += harness.race(place, contestants, options, turns=turns, warm=1, equal=equal)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--batch", type=int, help="clips; default 8 on CPU, else 32")
    parser.add_argument("--seconds", type=float, help="of each clip; default 5.27")
    parser.add_argument("--layers", type=int, help="transformer layers; default 12, base's")
    options = parser.parse_args(arguments)
    harness.run(measure, options, NAME)


if __name__ == "__main__":
    main()
