"""Every layout of the training step on eight simulated devices; run as a program by its tests."""

import functools
import json
import sys
from typing import Any

import jax
import jax.export
import numpy as np

from ser_jax.config import ModelConfig, TrainConfig, override
from ser_jax.features.batching import PADDING, Dataset
from ser_jax.features.normaliser import Normaliser
from ser_jax.metrics import Sums
from ser_jax.systems.networks import make_model
from ser_jax.training.compiled_step import compile_step
from ser_jax.training.layouts import BATCH_AXIS, Layout
from ser_jax.training.optimizer import make_optimizer
from ser_jax.training.programs import Programs, make_programs
from ser_jax.training.state import TrainState, init_state
from ser_jax.training.step import make_steps
from tests.counted_work import count_work

N_CLASSES, T, F, N_CLIPS, N_STEPS = 4, 16, 8, 24, 3
TX = make_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.01))

CASES = {
    "full": [16, 16, 16],
    "ragged": [16, 16, 11],
    "one shard all padding": [14, 9, 13],
}
"""Real clips in each of three batches of 16 rows: eight shards of two."""
IN_PARTS = "ragged in two parts"


Models = dict[str | None, Any]
"""One network for each axis of devices that it may be mapped over."""


@functools.cache
def make_dataset() -> Dataset:
    rng = np.random.default_rng(0)
    frames_B = rng.integers(T // 2, T + 1, N_CLIPS)
    mask_BT = np.arange(T)[None, :] < frames_B[:, None]
    x_BTF = (rng.standard_normal((N_CLIPS, T, F)) * mask_BT[..., None]).astype(np.float32)
    label_B = rng.integers(0, N_CLASSES, N_CLIPS).astype(np.int32)
    mean_F, std_F = np.full(F, 0.1, np.float32), np.full(F, 1.5, np.float32)
    normaliser: Any = Normaliser(mean_F, std_F)  # pyright: ignore[reportArgumentType]
    return jax.device_put(
        Dataset(x_BTF, frames_B.astype(np.int32), label_B, normaliser, np.ones((), np.int32))  # pyright: ignore[reportArgumentType]
    )


def make_index(counts: list[int]) -> np.ndarray:
    rng = np.random.default_rng(1)
    index_SB = np.full((N_STEPS, 16), PADDING, np.int32)
    for row_B, count in zip(index_SB, counts, strict=True):
        row_B[:count] = rng.permutation(N_CLIPS)[:count]
    return index_SB


def init(models: Models) -> TrainState:
    return init_state(models[None], TX, seed=0, n_frames=T, n_features=F, dropout=0.0)


def train(state: TrainState, chosen: Programs, programs: Programs, index_SB: np.ndarray) -> Any:
    """The state after three steps by `chosen`; the sums of training, and of evaluation by
    `programs`, since how many parts a batch is trained in does not enter into it."""
    dataset = make_dataset()
    state, sums = chosen.train_epoch(state, dataset, index_SB)
    scores = programs.evaluate(state.variables, dataset, index_SB)
    return jax.device_get((state.variables, (sums, scores)))


def find_gap(a: Any, b: Any, *, relative: bool = False) -> float:
    """Greatest difference between two trees."""
    gaps = jax.tree.map(
        lambda x, y: np.max(np.abs(x - y) / (np.maximum(np.abs(y), 1) if relative else 1)), a, b
    )
    return float(max(jax.tree.leaves(gaps)))


def name_layout(layout: Layout) -> str:
    return f"{layout.mode}{', scanned' if layout.scan else ''}"


def compare(models: Models) -> dict[str, Any]:
    """How far each layout is from one device, by case; how far training moved the parameters; how
    many programs each layout compiles."""
    devices = tuple(jax.devices())
    assert len(devices) == 8
    layouts = [
        Layout(mode, scan, devices if mode != "jit" else ())
        for mode in ("jit", "mesh", "pmap")
        for scan in (False, True)
    ]
    start = jax.device_get(init(models).params)
    make_dataset()
    found, expected, compiled = {}, {}, {}
    for layout in layouts:
        model = models[layout.axis_name]
        programs, in_parts = (
            make_programs(model, TX, n_classes=N_CLASSES, layout=layout, accumulate=n)
            for n in (1, 2)
        )
        with count_work() as work:
            trained = {}
            for case, counts in (CASES | {IN_PARTS: CASES["ragged"]}).items():
                chosen = in_parts if case == IN_PARTS else programs
                trained[case] = train(init(models), chosen, programs, make_index(counts))
        compiled[name_layout(layout)] = work.compilations
        if layout == Layout():
            expected = trained
            found |= {
                f"moved, {case}": find_gap(variables["params"], start)
                for case, (variables, _) in trained.items()
            }
            continue
        for case, (variables, sums) in trained.items():
            found[f"{name_layout(layout)}, {case}"] = max(
                find_gap(variables, expected[case][0]),
                find_gap(sums, expected[case][1], relative=True),
            )
    return {"gaps": found, "compiled": compiled}


def lower(models: Models) -> dict[str, list[str]]:
    """The platforms that the training step was lowered for, by layout."""
    devices = tuple(jax.devices())
    found = {}
    for mode in ("jit", "mesh", "pmap"):
        layout = Layout(mode, devices=devices if mode != "jit" else ())
        steps = make_steps(models[layout.axis_name], TX, axis_name=layout.axis_name)
        for scan in (False, True):
            index = make_index(CASES["ragged"])
            layout = layout._replace(scan=scan)
            program = compile_step(steps.train, layout)
            carry = init(models), Sums.zeros(N_CLASSES)
            exported = jax.export.export(jax.jit(program), platforms=("tpu", "cuda"))(
                carry, make_dataset(), index if scan else index[0]
            )
            found[name_layout(layout)] = list(exported.platforms)
    return found


def describe(network: str) -> dict[str, Any]:
    """All that is found of one network, such as 'lstm masked'."""
    name, kind = network.split()
    sizes = {"channels": (4, 6), "hidden": 8, "dense": (5,)}
    changes = {"name": name, "mask_padding": kind == "masked"} | sizes
    config = override(ModelConfig(), changes)
    models: Models = {
        axis: make_model(config, N_CLASSES, axis_name=axis) for axis in (None, BATCH_AXIS)
    }
    return compare(models) | {"lowered": lower(models)}


if __name__ == "__main__":
    json.dump({network: describe(network) for network in sys.argv[1:]}, sys.stdout)
