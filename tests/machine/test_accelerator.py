"""A run compiles few programs, each once, and before it needs them."""

import contextlib
import threading
from typing import Any

import jax
import numpy as np
import pytest

from ser_jax.api import train
from ser_jax.config import Config, ModelConfig, TrainConfig
from ser_jax.features.batching import cut_batches
from ser_jax.features.corpus_features import (
    describe_dataset,
    fit_to_training,
    load_inputs,
    make_dataset,
)
from ser_jax.features.frontend import count_features
from ser_jax.systems.networks import make_model
from ser_jax.systems.precompile import compiling
from ser_jax.training.layouts import Layout, place
from ser_jax.training.optimizer import make_optimizer
from ser_jax.training.programs import make_programs
from ser_jax.training.state import describe_state, init_state, list_numbers
from tests.counted_work import count_work
from tests.tiny import make_config

pytestmark = pytest.mark.cpu_only("counts what a CPU compiles")

MODEL = make_model(ModelConfig(channels=(4,), hidden=8, dense=(4,)), 8)
TX = make_optimizer(TrainConfig())
AUGMENTED = {"augment.enabled": True, "augment.backend": "device"}
RUNS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "cnn step by step": {"model.name": "cnn"},
    "scanned": {"parallel.scan": "on"},
    "augmented": AUGMENTED,
    "averaged": {"train.average_decay": 0.9, "train.mixup": 0.2, "train.label_smoothing": 0.1},
}


_hearing: list[list[str]] = []


def _hear(event: str, duration_secs: float, **facts: Any) -> None:
    del duration_secs
    if event == "/jax/core/compile/backend_compile_duration":
        for names in _hearing:
            names.append(facts["fun_name"].removeprefix("jit(").rstrip(")"))


@contextlib.contextmanager
def compiled():
    """Names of the programs that are compiled in the block, or found among the kept ones."""
    if not _hearing:  # JAX has no public way to take a listener back
        jax.monitoring.register_event_duration_secs_listener(_hear)
        _hearing.append([])
    names: list[str] = []
    _hearing.append(names)
    try:
        yield names
    finally:
        _hearing.remove(names)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_compiles_each_of_its_programs_once_and_no_others(name, tmp_path):
    jax.clear_caches()
    config = make_config(tmp_path / "run", RUNS[name])
    with compiled() as names:
        train(config, observe=lambda event: None)
    trained = ["epoch", "epoch"] if name != "cnn step by step" else ["evaluate", "train"]
    found = [one for one in names if one != "extract"]  # features may be at hand already
    assert sorted(found) == sorted(["_init", "compute_log_mel", "predict", *trained])


def make_shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


@pytest.mark.parametrize("with_waves", [False, True])
def test_described_corpus_is_the_one_that_is_made(with_waves):
    config = make_config(None)
    inputs = load_inputs(config.data, config.features)
    index = np.arange(len(inputs.frames_B))
    normaliser = fit_to_training(inputs, index, config.features, masked=False)
    made = make_dataset(inputs, normaliser, with_waves=with_waves)
    n_samples = inputs.corpus.wave_BN.shape[1] if with_waves else None
    shape = (*inputs.x_BTF.shape[:2], count_features(config.features))
    described = describe_dataset(jax.ShapeDtypeStruct(shape, np.float32), n_samples)
    assert make_shapes(described) == make_shapes(made)


@pytest.mark.parametrize("settings", [{}, {"average_decay": 0.9, "mixup": 0.2}])
def test_described_state_is_the_one_that_is_made(settings):
    numbers = list_numbers(TrainConfig(**settings), Config().augment)
    sizes: Any = {"n_frames": 16, "n_features": 8, "numbers": numbers}
    described = describe_state(MODEL, TX, **sizes)
    made = init_state(MODEL, TX, seed=3, dropout=0.1, learning_rate=0.5, **sizes)
    assert make_shapes(described) == make_shapes(made)


def test_a_state_is_made_without_compiling_for_another_seed_or_other_numbers():
    sizes = {"n_frames": 16, "n_features": 8, "dropout": 0.1}
    first = init_state(MODEL, TX, seed=0, learning_rate=0.5, **sizes)
    with count_work() as work:
        second = init_state(MODEL, TX, seed=np.uint32(2**32 - 1), learning_rate=1, **sizes)
    assert work.compilations == 0
    differ = jax.tree.map(
        lambda a, b: (np.asarray(a) != np.asarray(b)).any(), first.params, second.params
    )
    assert any(jax.tree.leaves(differ))


@pytest.mark.parametrize("mode", ["jit", "mesh"])
@pytest.mark.parametrize("scan", [False, True])
def test_programs_compiled_ahead_are_those_that_run(mode, scan):
    layout = Layout(mode, scan, tuple(jax.devices()) if mode == "mesh" else ())
    programs = make_programs(MODEL, TX, n_classes=8, layout=layout)
    sizes: Any = {"n_frames": 16, "n_features": 8}
    index = cut_batches(np.arange(24), 8)
    described = describe_dataset(jax.ShapeDtypeStruct((24, 16, 8), np.float32))
    state = init_state(MODEL, TX, seed=0, dropout=0.1, **sizes)
    dataset = place(make_arrays(described), layout)
    tasks = programs.list_compilations(
        describe_state(MODEL, TX, **sizes), described, index, index, index
    )
    with compiling(tasks):
        pass
    with count_work() as work:
        state, _ = programs.train_epoch(state, dataset, index)
        state, _ = programs.train_epoch(state, dataset, index)
        programs.evaluate(state.variables, dataset, index)
        programs.predict(state.variables, dataset, index)
    assert work.compilations == 0


def make_arrays(shapes: Any) -> Any:
    return jax.tree.map(lambda x: jax.device_put(np.ones(x.shape, x.dtype)), shapes)


def test_a_compilation_that_fails_ahead_stops_nothing():
    def fail() -> None:
        raise ValueError("no memory")

    done = threading.Event()
    with compiling([fail, done.set]):
        pass
    assert done.is_set()


def test_an_error_does_not_wait_for_compilations():
    hold = threading.Event()

    def compile_slowly() -> None:
        hold.wait()

    try:
        with pytest.raises(ValueError, match="bad input"), compiling([compile_slowly]):
            raise ValueError("bad input")
    finally:
        hold.set()
