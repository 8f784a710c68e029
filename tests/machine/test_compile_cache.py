"""Compiled programs are kept, and nothing is compiled twice."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.api import train
from ser_jax.machine import compile_cache
from ser_jax.machine.compile_cache import compile_cache_scope, use_compile_cache
from ser_jax.machine.jax_private import reset_compile_cache
from tests.counted_work import count_work
from tests.tiny import Child, make_config


@pytest.fixture
def no_cache():
    """JAX without a folder for compiled programs, and afterwards with what it had."""
    keys = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {key: getattr(jax.config, key) for key in keys}
    jax.config.update("jax_compilation_cache_dir", None)
    reset_compile_cache()
    yield
    for key, value in before.items():
        jax.config.update(key, value)
    reset_compile_cache()


def test_programs_are_kept_by_kind_of_machine(no_cache, tmp_path):
    folder = use_compile_cache(str(tmp_path))
    assert folder is not None
    assert folder.parent == tmp_path
    jax.jit(lambda x: x * 7 + 1)(jnp.ones(3)).block_until_ready()
    assert list(folder.glob("*-cache"))


def test_the_folder_is_given_back_by_the_outermost_scope(no_cache, tmp_path):
    with compile_cache_scope():
        with compile_cache_scope():
            folder = use_compile_cache(str(tmp_path))
        assert jax.config.values["jax_compilation_cache_dir"] == str(folder)
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_folder_set_before_stays(no_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert use_compile_cache(str(tmp_path / "other")) == tmp_path / "own"
    assert not (tmp_path / "other").exists()


def test_folder_that_cannot_be_made_is_done_without(no_cache, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert use_compile_cache(str(tmp_path / "file" / "cache")) is None
    assert use_compile_cache(None) is None
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert capfd.readouterr().err == ""


def test_oldest_programs_are_deleted_beyond_the_limit(tmp_path):
    for age, name in enumerate(["a-cache", "b-cache", "c-cache"]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "empty-cache").write_bytes(b"")
    compile_cache._cut_back(tmp_path, 200)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-cache", "b-cache"]


def test_work_is_counted():
    with count_work() as outer:
        f = jax.jit(lambda x: x - 5)
        f(np.ones(3, np.float32))
        with count_work() as inner:
            f(np.ones(3, np.float32))
        f(np.ones(4, np.float32))
    assert (inner.traces, inner.compilations) == (0, 0)
    assert outer.traces >= 2
    assert outer.compilations >= 2


@pytest.mark.device
@pytest.mark.parametrize("system", ["lstm", "cnn"])
def test_a_second_seed_traces_and_compiles_nothing(tmp_path, system):
    def run(seed: int, epochs: int) -> None:
        changes = {"model.name": system, "seed": seed, "train.epochs": epochs}
        train(make_config(tmp_path / str(seed), changes), observe=lambda event: None)

    run(0, 2)
    with count_work() as work:
        run(1, 3)
    assert (work.traces, work.compilations) == (0, 0)


WAVES = {"features.kind": "wave", "model.name": "wav2vec2", "backbone.projector": 5}


@pytest.mark.parametrize(
    "changes",
    [
        {"model.hidden": 5},
        {"model.name": "cnn", "model.channels": (3, 5), "parallel.scan": "on"},
        {"model.hidden": 6, "features.normalise": "speaker", "augment.enabled": True},
        {"model.hidden": 7, "train.average_decay": 0.9, "train.mixup": 0.2},
        WAVES,
        WAVES | {"backbone.freeze": "none", "model.mask_padding": True},
        WAVES | {"backbone.freeze": "all"},
    ],
)  # fmt: skip
def test_what_is_compiled_before_training_is_what_training_runs(tmp_path, changes):
    """The networks are of no other test, whose programs would be at hand."""
    if "features.kind" in changes:
        changes = changes | {"backbone.path": save_network(tmp_path / "pretrained")}
    seen = {}
    with count_work() as work:
        train(make_config(tmp_path / "run", changes), observe=lambda event: seen.update({
            event["event"]: work.compilations
        }))  # fmt: skip
    assert seen["epoch"] == seen["start"] > 0


def save_network(folder: Path) -> str:
    from transformers import Wav2Vec2ForPreTraining  # here, for children import this file

    from tests.tiny_wav2vec2 import SHALLOW, make_architecture, make_torch

    architecture = make_architecture("base", **SHALLOW)
    make_torch(architecture, Wav2Vec2ForPreTraining).save_pretrained(folder)
    return str(folder)


def train_tiny(run_dir: Path) -> int:
    with count_work() as work:
        train(make_config(run_dir), observe=lambda event: None)
    print(json.dumps({"hits": work.hits, "misses": work.misses}))
    return 0


def test_a_new_process_finds_all_programs_kept(tmp_path):
    found = []
    for name in ("first", "second"):
        status, output = Child(train_tiny, tmp_path / name).wait()
        assert status == 0, output
        found.append(json.loads(output))  # nothing else is said either
    first, second = found
    assert second["misses"] == 0
    assert second["hits"] == first["hits"] + first["misses"] > 0
