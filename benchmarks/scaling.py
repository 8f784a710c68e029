"""How time grows with runs in a grid, batch size, clip length and (simulated) devices.

Command: python benchmarks/scaling.py [--quick] [--only runs,batch]; draws FILE-scaling.png.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import harness, results
from benchmarks.flops import BYTES, count_step, list_layers
from benchmarks.worker import Contestant
from ser_jax.config import ModelConfig, override

NAME = "scaling"
MODEL: dict[str, Any] = {"name": "cnn_lstm"}
SHAPE = (83, 20, 32)
SIZES: dict[str, tuple[int, ...]] = {
    "runs": (1, 2, 4, 8, 16, 32), "batch": (8, 16, 32, 64, 128), "frames": (83, 165, 330, 660),
    "devices": (1, 2, 4, 8),
}  # fmt: skip


def make_arguments(options: argparse.Namespace, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Make the arguments of both sides' builders, for one step per turn."""
    import numpy as np

    n_frames, n_features, batch = shape
    rng = np.random.default_rng(0)
    variables = harness.call(
        options, "benchmarks.ours:make_variables", model=MODEL, n_frames=n_frames,
        n_features=n_features,
    )  # fmt: skip
    return {
        "model": MODEL,
        "x_BTF": rng.standard_normal((batch, n_frames, n_features), np.float32),
        "label_B": rng.integers(0, 8, batch).astype(np.int32),
        "index_SB": rng.permutation(batch).astype(np.int32)[None],
        "variables": variables,
    }


def list_contestants(
    axis: str, size: int, options: argparse.Namespace
) -> tuple[list[Contestant], tuple[int, int, int]]:
    """Both sides at one point of an axis; a step trains all its runs or devices once."""
    kind = options.device["kind"]
    n_frames, n_features, batch = SHAPE
    shape = (
        size if axis == "frames" else n_frames, n_features, size if axis == "batch" else batch
    )  # fmt: skip
    arguments = make_arguments(options, shape)
    precision = "float32" if kind == "cpu" else "bfloat16"
    arguments["precision"] = precision
    runs = size if axis == "runs" else 1
    layers = list_layers(override(ModelConfig(), MODEL), 8, *shape[:2])
    work = count_step(layers, shape[2], BYTES[precision])
    work = work._replace(flop=work.flop * runs, n_bytes=work.n_bytes * runs)
    shared: dict[str, Any] = {
        "precision": precision, "clips": shape[2] * runs, "work": work, "tuned": kind == "cpu",
    }  # fmt: skip
    if axis == "runs":
        builder = "benchmarks.ours:make_runs_step"
        ours = [
            Contestant("ser_jax", how, builder, arguments | {"runs": runs, "how": how}, **shared)
            for how in ("im2col", "grouped", "map")
        ]
    else:
        own: dict[str, Any] = {}
        if axis == "devices" and size > 1:
            own = {"mode": "mesh"} | ({"cpu_devices": size} if kind == "cpu" else {})
        name = "jit" if not own else "mesh of simulated devices" if kind == "cpu" else "mesh"
        ours = [Contestant("ser_jax", name, "benchmarks.ours:make_step", arguments | own, **shared)]
    theirs = Contestant(
        "pytorch", "eager, channels_last" + (", one run after another" if runs > 1 else ""),
        "benchmarks.pytorch.training:make_step",
        arguments | {"kind": kind, "channels_last": True,
                     "index_SB": arguments["index_SB"].repeat(runs, 0)},
        **shared,
    )  # fmt: skip
    return ([*ours, theirs] if axis != "devices" else ours), shape


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of every point of every axis."""
    rows: list[dict[str, Any]] = []
    turns = options.turns or (3 if options.quick else 10)
    axes = getattr(options, "axes", None) or list(SIZES)
    for axis in axes:
        sizes = SIZES[axis][: 3 if options.quick else None]
        if axis == "devices" and options.device["kind"] != "cpu":
            sizes = tuple(size for size in sizes if size <= options.device["devices"])
        for size in sizes:
            contestants, (n_frames, n_features, batch) = list_contestants(axis, size, options)
            place = {
                "benchmark": NAME, "case": axis, "size": size,
                "shape": f"{axis} {size}: {batch} x {n_frames} x {n_features}",
            }  # fmt: skip
            rows += harness.race(place, contestants, options, turns=turns)
    return rows


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw a panel per axis, on logarithmic scales, with a line for linear growth."""
    from matplotlib.figure import Figure

    rows = [r for r in document["rows"] if r["benchmark"] == NAME and r["status"] == "ok"]
    axes_of = list(dict.fromkeys(row["case"] for row in rows))
    if not axes_of:
        return
    figure = Figure(figsize=(3.6 * len(axes_of), 3.4), layout="constrained")
    for ax, axis in zip(figure.subplots(1, len(axes_of), squeeze=False)[0], axes_of, strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in rows:
            if row["case"] == axis:
                words = row["configuration"].removesuffix(", one run after another")
                words = "jit, mesh" if axis == "devices" else words
                point = row["size"], row["median_s"] * 1e3
                lines.setdefault(f"{row['side']}: {words}", []).append(point)
        for words, points in lines.items():
            ax.plot(*zip(*points, strict=True), marker="o", label=words)
        first = next(iter(lines.values()))
        ends = [first[0][0], first[-1][0]]
        ax.plot(ends, [first[0][1] * end / ends[0] for end in ends], "k:", label="linear")
        ax.set(xscale="log", yscale="log", ylabel="ms a step")
        simulated = axis == "devices" and any("simulated" in r["configuration"] for r in rows)
        ax.set_xlabel(f"{axis} (simulated)" if simulated else axis)
        ax.legend(fontsize=6)
    figure.suptitle(document["device"], fontsize=9)
    figure.savefig(path, dpi=130)


def plot_path(out: Path) -> Path:
    """The plot's path, beside the results file."""
    return out.with_name(f"{out.stem}-scaling.png")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--only", help=f"some of {', '.join(SIZES)}, separated by commas")
    options = parser.parse_args(arguments)
    options.axes = options.only.split(",") if options.only else None
    harness.run(measure, options, NAME)
    draw(results.load(options.out), plot_path(options.out))


if __name__ == "__main__":
    main()
