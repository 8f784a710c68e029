"""The allocator keeps its memory, compiled programs are kept, and nothing is compiled twice."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.api import train
from ser_jax.config import ParallelConfig
from ser_jax.machine import runtime
from ser_jax.machine.jax_private import reset_compile_cache
from ser_jax.machine.runtime import (
    count_work,
    tune_allocator,
    tune_for_cpu,
    use_all_cores,
    use_compile_cache,
)
from tests.tiny import Child, make_config, make_options, run_command

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


def run_here(function: str, *arguments: str, **environment: str) -> dict:
    """What a function of this module prints as JSON in a new process."""
    call = f"import sys, tests.test_runtime as t; t.{function}(*sys.argv[1:])"
    settings = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", call, *arguments], capture_output=True, text=True, check=False,
        env=os.environ | settings | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"errors": done.stderr}


# The allocator.


def touch_blocks(tuned: str) -> None:
    """Page faults of 20 rounds of four 8 MB blocks, after the first rounds."""
    done = tune_allocator() if tuned == "tuned" else False
    for number in range(24):
        if number == 4:
            before = resource.getrusage(resource.RUSAGE_SELF)
        blocks = [np.ones(1 << 20) for _ in range(4)]
        del blocks
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({
        "done": done, "faults": after.ru_minflt - before.ru_minflt, "mb": after.ru_maxrss / 1024
    }))  # fmt: skip


@pytest.mark.cpu_only("touches the CPU's allocator")
@linux
def test_tuned_allocator_faults_no_page_in_twice():
    plain, tuned = run_here("touch_blocks", "plain"), run_here("touch_blocks", "tuned")
    assert tuned["done"]
    assert tuned["faults"] < 100
    assert plain["faults"] > 10 * tuned["faults"] + 1000
    assert tuned["mb"] < plain["mb"] + 64


@pytest.mark.cpu_only("touches the CPU's allocator")
@linux
def test_users_own_settings_of_the_allocator_stay():
    assert not run_here("touch_blocks", "tuned", MALLOC_ARENA_MAX="2")["done"]


@pytest.mark.cpu_only("touches the CPU's allocator")
def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(runtime.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: pytest.fail("was called"))
    assert not runtime._tune()


@pytest.mark.cpu_only("touches the CPU's allocator")
@pytest.mark.parametrize(
    ("platforms", "plugins", "expected"),
    [
        ("cpu", True, True),
        ("cuda,cpu", False, False),
        ("tpu", False, False),
        (None, False, True),
        (None, True, "asked"),
    ],
)
def test_jax_is_asked_for_its_devices_only_where_they_are_uncertain(
    platforms, plugins, expected, monkeypatch
):
    before = jax.config.values["jax_platforms"]
    monkeypatch.setattr(runtime, "find_spec", lambda name: plugins or None)
    monkeypatch.setattr(runtime, "entry_points", lambda group: ())
    asked = []
    monkeypatch.setattr(jax, "default_backend", lambda: asked.append(True) or "gpu")
    jax.config.update("jax_platforms", platforms)
    try:
        found = runtime._computes_on_cpu()
    finally:
        jax.config.update("jax_platforms", before)
    assert found is (False if expected == "asked" else expected)
    assert bool(asked) == (expected == "asked")


def test_where_a_gpu_computes_the_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(runtime, "_computes_on_cpu", lambda: False)
    monkeypatch.setattr(runtime, "tune_allocator", lambda: pytest.fail("was called"))
    assert not tune_for_cpu()


def train_from(caller: str, run_dir: Path) -> int:
    """Train a run from Python or by the command line; say what came of the allocator."""
    if caller == "python":
        train(make_config(run_dir), observe=lambda event: None)
    else:
        run_command("train", *make_options({}), f"--run_dir={run_dir}")
    print(json.dumps({"tuned": runtime._tuned}))
    return 0


@pytest.mark.cpu_only("touches the CPU's allocator")
@linux
def test_the_allocator_is_tuned_for_the_command_line_and_not_for_a_program_that_calls_train(
    tmp_path,
):
    told = {}
    for caller in ("python", "command"):
        status, output = Child(train_from, caller, tmp_path / caller).wait()
        assert status == 0, output
        told[caller] = json.loads(output.splitlines()[-1])["tuned"]
    assert told == {"python": None, "command": True}


def share_out_and_tune() -> None:
    """How many CPU devices there are where the allocator is tuned after the batch was shared."""
    os.sched_getaffinity = lambda _: set(range(4))  # pyright: ignore
    use_all_cores(ParallelConfig(), 64)
    print(json.dumps({"tuned": tune_for_cpu(), "devices": len(jax.devices())}))


@pytest.mark.cpu_only("touches the CPU's allocator")
@linux
def test_tuning_leaves_the_cores_their_devices():
    found = run_here("share_out_and_tune")
    assert (found["tuned"], found["devices"]) == (True, 4)


# Kept programs.


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
    runtime._cut_back(tmp_path, 200)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-cache", "b-cache"]


# Compile once.


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


# Cores.


def tell_devices(mode: str, batch_size: str) -> None:
    """How many CPU devices there are after a batch was shared out to the cores."""
    os.sched_getaffinity = lambda _: set(range(4))  # pyright: ignore
    parallel = ParallelConfig(mode=mode)  # pyright: ignore
    asked = use_all_cores(parallel, int(batch_size))
    print(json.dumps({"asked": asked, "found": len(jax.devices())}))


@pytest.mark.cpu_only("counts CPU cores as devices")
@linux
@pytest.mark.parametrize(
    ("mode", "batch_size", "flags", "expected"),
    [
        ("auto", 64, "", (4, 4)),
        ("mesh", 32, "", (2, 2)),
        ("auto", 31, "", (1, 1)),
        ("jit", 64, "", (1, 1)),
        ("auto", 64, "--xla_force_host_platform_device_count=3", (1, 3)),
    ],
)
def test_a_batch_is_shared_out_to_the_cores_unless_told_otherwise(
    mode, batch_size, flags, expected
):
    found = run_here("tell_devices", mode, str(batch_size), XLA_FLAGS=flags)
    assert (found["asked"], found["found"]) == expected
