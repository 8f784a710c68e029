"""The allocator keeps its memory, unless it is the user's own or another process owner's."""

import json
import os
import sys
from pathlib import Path

import jax
import pytest

from ser_jax import api
from ser_jax.config import ParallelConfig
from ser_jax.machine import allocator
from ser_jax.machine.allocator import tune_for_cpu
from ser_jax.machine.cpu_devices import use_all_cores
from tests.machine.touched_blocks import touch_blocks
from tests.new_process import run_in_new_process
from tests.tiny import Child, make_config, make_options, run_command

linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


@pytest.mark.cpu_only("touches the CPU's allocator")
@linux
def test_tuned_allocator_faults_no_page_in_twice():
    plain, tuned = (
        run_in_new_process(touch_blocks, "plain"),
        run_in_new_process(touch_blocks, "tuned"),
    )
    assert tuned["done"]
    assert tuned["faults"] < 100
    assert plain["faults"] > 10 * tuned["faults"] + 1000
    assert tuned["mb"] < plain["mb"] + 64


@pytest.mark.cpu_only("touches the CPU's allocator")
@linux
def test_users_own_settings_of_the_allocator_stay():
    assert not run_in_new_process(touch_blocks, "tuned", MALLOC_ARENA_MAX="2")["done"]


@pytest.mark.cpu_only("touches the CPU's allocator")
def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("was called"))
    assert not allocator._tune()


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
    monkeypatch.setattr(allocator, "find_spec", lambda name: plugins or None)
    monkeypatch.setattr(allocator, "entry_points", lambda group: ())
    asked = []
    monkeypatch.setattr(jax, "default_backend", lambda: asked.append(True) or "gpu")
    jax.config.update("jax_platforms", platforms)
    try:
        found = allocator._computes_on_cpu()
    finally:
        jax.config.update("jax_platforms", before)
    assert found is (False if expected == "asked" else expected)
    assert bool(asked) == (expected == "asked")


def test_where_a_gpu_computes_the_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_computes_on_cpu", lambda: False)
    monkeypatch.setattr(allocator, "tune_allocator", lambda: pytest.fail("was called"))
    assert not tune_for_cpu()


def train_from(caller: str, run_dir: Path) -> int:
    """Train a run from Python or by the command line; say what came of the allocator."""
    if caller == "python":
        api.train(make_config(run_dir), observe=lambda event: None)
    else:
        api.write_run_report = None  # pyright: ignore[reportAttributeAccessIssue] - takes seconds
        run_command("train", *make_options({}), f"--run_dir={run_dir}")
    print(json.dumps({"tuned": allocator._tuned}))
    return 0


@pytest.mark.cpu_only("touches the CPU's allocator")
@linux
def test_the_allocator_is_tuned_for_the_command_line_and_not_for_a_program_that_calls_train(
    tmp_path,
):
    told = {}
    callers = ("python", "command")
    children = {caller: Child(train_from, caller, tmp_path / caller) for caller in callers}
    for caller, child in children.items():
        status, output = child.wait()
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
    found = run_in_new_process(share_out_and_tune)
    assert (found["tuned"], found["devices"]) == (True, 4)
