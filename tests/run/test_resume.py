"""A run that was killed or interrupted goes on, and ends as if nothing had happened."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ser_jax.run.results
from ser_jax.api import train
from ser_jax.errors import UserError
from ser_jax.training.checkpoint import Checkpoints
from tests.tiny import (
    Child,
    count_events,
    drop_progress,
    list_group,
    make_config,
    make_options,
    read_run,
    run_command,
    start_command,
    wait_until,
)

CHANGES = {
    "model.name": "cnn", "train.epochs": 20, "augment.enabled": True,
    "augment.backend": "host", "augment.workers": 1,
}  # fmt: skip


def make_argv(run_dir: Path) -> list[str]:
    return ["train", *make_options(CHANGES), f"--run_dir={run_dir}"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    status, output = Child(run_command, *make_argv(run_dir)).wait()
    assert status == 0, output
    return run_dir


def train_until_save(epoch: int, *argv: str) -> int:
    """Train, but die by SIGKILL when the checkpoint of `epoch` is about to get its name."""

    def watch(event: str, arguments: tuple) -> None:
        if event == "os.rename" and str(arguments[1]).endswith(f"checkpoints/{epoch}"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return run_command(*argv)


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_as_one_never_killed(uninterrupted, tmp_path):
    run_dir = tmp_path / "run"
    argv = make_argv(run_dir)
    rng = np.random.default_rng(2)
    expected = read_run(uninterrupted)
    start_s, epoch_s = 3.0, 0.15
    kinds = rng.permutation(["starting"] * 2 + ["training"] * 7 + ["saving"] + ["terminated"])
    for kind in kinds:
        before = count_events(run_dir)
        if kind == "saving":
            child = Child(train_until_save, max(1, before) + 1, *argv)
        else:
            child = Child(run_command, *argv)
            if kind == "starting":
                time.sleep(rng.uniform(0, start_s))
            else:
                until = max(1, before) + int(rng.integers(1, 3))
                wait_until(lambda until=until: count_events(run_dir) >= until, "no progress")
                time.sleep(rng.uniform(0, epoch_s))
            os.kill(child.pid, signal.SIGTERM if kind == "terminated" else signal.SIGKILL)
        status, output = child.wait()
        assert status == (-signal.SIGTERM if kind == "terminated" else -signal.SIGKILL), output
    status, output = Child(run_command, *argv).wait()
    assert status == 0, output
    assert "resumed after epoch" in output
    assert read_run(run_dir) == expected
    assert len(expected["states"]) in (1, 2)
    assert not list(run_dir.rglob("*.unfinished"))


def train_with_saves_held_up(held: int, *argv: str) -> int:
    """Train, with a disk that never takes the checkpoint of epoch `held`."""
    write = Checkpoints._write

    def hold_up(self: Checkpoints, epoch: int, *arguments: Any) -> None:
        if epoch == held:
            time.sleep(1000)
        write(self, epoch, *arguments)

    Checkpoints._write = hold_up  # pyright: ignore[reportAttributeAccessIssue]
    return run_command(*argv)


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 4])
def test_killed_ahead_of_its_checkpoints_a_run_ends_as_one_never_killed(
    epoch, uninterrupted, tmp_path
):
    run_dir = tmp_path / "run"
    argv = make_argv(run_dir)
    child = Child(train_with_saves_held_up, epoch, *argv)
    # The start, and every epoch up to the one that is trained while the save is held up.
    wait_until(lambda: count_events(run_dir) == 2 + epoch, "no progress", 120)
    time.sleep(0.3)  # longer than an epoch
    assert count_events(run_dir) == 2 + epoch  # its own save waits
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    status, output = Child(run_command, *argv).wait()
    assert status == 0, output
    assert ("resumed after epoch 3" in output) == (epoch == 4)
    assert read_run(run_dir) == read_run(uninterrupted)


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(uninterrupted, tmp_path):
    run_dir = tmp_path / "run"
    argv = make_argv(run_dir)
    process = start_command(*argv)
    wait_until(lambda: count_events(run_dir) >= 3, "no progress", 120)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert drop_progress(errors) == [
        "ser-jax: interrupted; the same command resumes from the last finished epoch"
    ]
    wait_until(lambda: not list_group(process.pid), "processes are left", 10)
    status, output = Child(run_command, *argv).wait()
    assert status == 0, output
    assert read_run(run_dir) == read_run(uninterrupted)


# One save, killed at each of its steps.


def stop_in_epoch_2(event: dict[str, Any]) -> None:
    if event.get("epoch") == 2:
        raise InterruptedError


CHANGED = {
    "recordings": {"checksum": "0123"},
    "split": {"split": "0123"},
    "version": {"split": None},  # which kept none
}


@pytest.mark.parametrize(
    ("kind", "protocol", "reason"),
    [
        ("recordings", "study", "trained on other recordings .*; give the same data.root"),
        ("split", "study", "was trained on another split than data.protocol=study makes now"),
        ("version", "speakers", "was trained on another split than data.protocol=speakers makes"),
        ("version", "study", None),
    ],
)
def test_a_run_is_never_resumed_on_other_clips(tmp_path, monkeypatch, kind, protocol, reason):
    config = make_config(tmp_path / "run", {"data.protocol": protocol, "train.epochs": 3})

    def describe(*arguments: Any) -> dict[str, Any]:
        facts = ser_jax.run.results.describe_run(*arguments) | CHANGED[kind]
        return {key: value for key, value in facts.items() if value is not None}

    with monkeypatch.context() as patch:
        patch.setattr("ser_jax.run.train.describe_run", describe)
        with pytest.raises(InterruptedError):
            train(config, observe=stop_in_epoch_2)
    if reason is None:
        assert train(config, observe=lambda event: None)["epochs"] == 3
        return
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=reason):
        train(config, observe=lambda event: None)
    assert sorted(tmp_path.rglob("*")) == before


def make_state(epoch: int) -> dict[str, jax.Array]:
    return {"w": jnp.full((3, 4), epoch, jnp.float32), "key": jax.random.key(epoch)}


def save(checkpoints: Checkpoints, epoch: int) -> None:
    best_epoch = {1: 1, 2: 2, 3: 2, 4: 4, 5: 4}[epoch]
    checkpoints.save(epoch, make_state(epoch), {"epoch": epoch}, best_epoch=best_epoch)


def save_until(folder: Path, call: int) -> int:
    """Save epoch 4 beside the others; die at the `call`-th system call that changes the folder.

    Returns:
      0: the save has fewer calls than that.
    """
    checkpoints = Checkpoints(folder)
    changing = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event == "open" and isinstance(arguments[0], str):
            counts = arguments[2] & (os.O_WRONLY | os.O_RDWR) and str(folder) in arguments[0]
        else:  # rmtree names files by their folder's handle
            counts = event in changing and (str(folder) in str(arguments[0]) or arguments[-1] >= 0)
        seen += bool(counts)
        if counts and seen == call:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    save(checkpoints, 4)
    checkpoints.wait()
    return 0


@pytest.mark.slow
def test_killed_anywhere_in_a_save_the_last_checkpoint_is_whole(tmp_path):
    checkpoints = Checkpoints(tmp_path / "0")
    for epoch in (1, 2, 3):
        save(checkpoints, epoch)
    checkpoints.close()
    call, latest = 0, []
    while True:
        call += 1
        folder = tmp_path / str(call)
        shutil.copytree(tmp_path / "0", folder)
        status, output = Child(save_until, folder, call).wait()
        if status == 0:
            break
        assert status == -signal.SIGKILL, output
        checkpoints = Checkpoints(folder)
        epoch = checkpoints.latest_epoch()
        assert epoch in (3, 4)
        latest.append(epoch)
        for kept in (epoch, {3: 2, 4: 4}[epoch]):
            state = checkpoints.load_state(kept, make_state(0))
            assert (state["w"] == kept).all()
            assert jax.random.key_data(state["key"])[1] == kept
            assert checkpoints.load_facts(kept) == {"epoch": kept}
        for later in range(epoch + 1, 6):
            save(checkpoints, later)
        checkpoints.close()
        assert sorted(path.name for path in folder.iterdir()) == ["4", "5"]
    assert len(latest) > 15
    assert latest == sorted(latest)
    assert set(latest) == {3, 4}
