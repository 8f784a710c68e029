"""A checkpoint is written while training goes on, one at a time, and its failure is told."""

import contextlib
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax.errors import UserError
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.saved_state import copy_to_host


class Disk:
    """The disk below every `Checkpoints`: it takes nothing while `open` is not set.

    Attributes:
      begun: the epochs whose writing has begun, in order.
      most: the greatest number that were being written at the same time.
      full_at: the epoch for which there is no space.
    """

    def __init__(self, write: Any):
        self.write = write
        self.open = threading.Event()
        self.open.set()
        self.begun: list[int] = []
        self.now = self.most = self.full_at = 0

    def take(self, checkpoints: Checkpoints, epoch: int, *arguments: Any) -> None:
        self.begun.append(epoch)
        self.now += 1
        self.most = max(self.most, self.now)
        assert self.open.wait(60)
        try:
            if epoch == self.full_at:
                raise OSError(28, "No space left on device")
            self.write(checkpoints, epoch, *arguments)
        finally:
            self.now -= 1


@pytest.fixture
def disk(monkeypatch) -> Iterator[Disk]:
    disk = Disk(Checkpoints._write)
    monkeypatch.setattr(Checkpoints, "_write", lambda *arguments: disk.take(*arguments))
    yield disk
    disk.open.set()  # let threads end


def make_state(n: int = 1 << 16) -> dict[str, Any]:
    return {"w": jnp.arange(n, dtype=jnp.float32), "key": jax.random.key(7), "step": jnp.int32(0)}


def save_older(folder: Path, epoch: int, state: Any, facts: dict[str, Any]) -> None:
    """A checkpoint as earlier versions wrote it, in orbax's own format."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder, options=options) as manager:
        manager.save(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(copy_to_host(state)), facts=ocp.args.JsonSave(facts)
            ),
        )


def list_epochs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.device
def test_what_is_saved_is_not_touched_by_the_steps_that_take_its_buffers(disk, tmp_path):
    @jax.jit
    def advance(state):
        return {**state, "w": -2 * state["w"], "step": state["step"] + 1}

    step = jax.jit(advance, donate_argnums=0)
    state = step(make_state())
    expected = jax.tree.map(np.array, {name: state[name] for name in ("w", "step")})
    address = state["w"].unsafe_buffer_pointer()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    disk.open.clear()
    checkpoints.save(1, state, {}, best_epoch=1)
    for _ in range(5):
        state = step(state)
    jax.block_until_ready(state)
    assert state["w"].unsafe_buffer_pointer() == address  # taken over, or this would prove nothing
    assert (np.asarray(state["w"])[1:] != expected["w"][1:]).all()
    disk.open.set()
    saved = checkpoints.load_state(1, make_state())
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, {k: saved[k] for k in expected}, expected)
    assert saved["key"] == make_state()["key"]


def test_save_returns_before_the_disk_has_taken_it_and_reading_waits(disk, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    disk.open.clear()
    checkpoints.save(1, make_state(), {"epoch": 1}, best_epoch=1)
    assert list_epochs(folder) == []
    threading.Timer(0.1, disk.open.set).start()
    assert checkpoints.latest_epoch() == 1
    assert checkpoints.load_facts(1) == {"epoch": 1}
    checkpoints.close()


def test_one_save_is_under_way_at_a_time_and_the_best_one_outlives_them(disk, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    for epoch in range(1, 7):
        checkpoints.save(epoch, make_state(), {}, best_epoch=min(epoch, 2))
    checkpoints.close()
    assert disk.begun == [1, 2, 3, 4, 5, 6]
    assert disk.most == 1
    assert list_epochs(folder) == ["2", "6"]


def test_the_ones_before_are_there_until_the_new_one_is_whole(disk, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    for epoch in (1, 2):
        checkpoints.save(epoch, make_state(), {}, best_epoch=1)
    checkpoints.wait()
    disk.open.clear()
    checkpoints.save(3, make_state(), {}, best_epoch=3)
    assert list_epochs(folder) == ["1", "2"]
    disk.open.set()
    checkpoints.close()
    assert list_epochs(folder) == ["3"]


@pytest.mark.parametrize("when", ["save", "wait", "close", "latest_epoch"])
def test_failed_save_is_told_once_by_whatever_comes_next(when, disk, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, make_state(), {}, best_epoch=1)
    disk.full_at = 2
    checkpoints.save(2, make_state(), {}, best_epoch=2)
    calls: dict[str, Any] = {
        "save": lambda: checkpoints.save(3, make_state(), {}, best_epoch=3),
        "wait": checkpoints.wait, "close": checkpoints.close,
        "latest_epoch": checkpoints.latest_epoch,
    }  # fmt: skip
    with pytest.raises(UserError) as caught:
        calls[when]()
    assert str(caught.value) == (
        f"{folder}: cannot write the checkpoint of epoch 2: No space left on device; make room, "
        "or the folder writable, and run the same command again to resume"
    )
    if when != "close":
        checkpoints.close()
    assert disk.begun == [1, 2]  # epoch 3 would have lost nobody knows what
    assert list_epochs(folder) == ["1"]


def test_closed_its_thread_has_ended(tmp_path):
    def list_threads() -> list[str]:
        names = [thread.name for thread in threading.enumerate()]
        return [name for name in names if name.startswith("checkpoint")]

    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, make_state(), {}, best_epoch=1)
    assert list_threads() == ["checkpoint_0"]
    checkpoints.close()
    assert list_threads() == []


def test_a_checkpoint_in_orbax_own_format_is_read_and_resumed(tmp_path):
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    params = {"out": {"kernel": jnp.arange(6.0).reshape(2, 3)}}
    state = make_state(8) | {"params": params, "opt_state": tx.init(params)}
    save_older(tmp_path, 3, state, {"best_epoch": 3})
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        assert checkpoints.latest_epoch() == 3
        assert checkpoints.load_facts(3) == {"best_epoch": 3}
        loaded = checkpoints.load_state(3, jax.eval_shape(lambda: state))
        assert jax.tree.structure(loaded) == jax.tree.structure(state)
        jax.tree.map(assert_same, loaded, state)
        checkpoints.save(4, loaded, {}, best_epoch=4)
    assert list_epochs(tmp_path) == ["4"]


def assert_same(here: jax.Array, there: jax.Array) -> None:
    assert here.dtype == there.dtype
    assert (here == there).all()


def test_half_precision_is_saved_as_it_is(tmp_path):
    state = {"x": jnp.array([1.5, -2.0], jnp.bfloat16)}
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, state, {}, best_epoch=1)
        assert_same(checkpoints.load_state(1, state)["x"], state["x"])


def test_a_single_changed_byte_is_damage(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, make_state(), {}, best_epoch=1)
        checkpoints.wait()
        path = tmp_path / "1" / "state.npz"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"/1: damaged checkpoint: .* is cut short or changed"):
            checkpoints.load_state(1, make_state())


def test_what_does_not_fit_the_network_is_named(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, make_state(4), {}, best_epoch=1)
        with pytest.raises(UserError, match=r"/1: w of shape \(4,\), not \(5,\), does not match"):
            checkpoints.load_state(1, make_state(5))
        with pytest.raises(UserError, match=r"/1: v does not match config.yaml"):
            checkpoints.load_state(1, make_state(4) | {"v": jnp.ones(1)})
        with pytest.raises(UserError, match=r"/1: key does not match config.yaml"):
            checkpoints.load_state(1, {"w": jnp.ones(4)})


def test_a_failed_save_prints_nothing(tmp_path, capfd):
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, make_state(), {}, best_epoch=1)
        checkpoints.wait()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            checkpoints.save(2, make_state(), {}, best_epoch=2)
            with pytest.raises(UserError, match="epoch 2: File too large"):
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list_epochs(tmp_path) == ["1"]
    assert capfd.readouterr() == ("", "")
