"""A disk that is full or read-only: one line says so, nothing is half-written, the run goes on."""

import contextlib
import errno
import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ser_jax import api
from ser_jax.api import ablate, train
from ser_jax.config import AblationConfig, override
from ser_jax.data.store import prepare
from ser_jax.errors import UserError
from ser_jax.run.run_dir import load_run_config
from ser_jax.training.checkpoint import Checkpoints
from tests.faults import failing_writes
from tests.tiny import (
    Child,
    make_config,
    make_keys,
    make_options,
    make_template,
    read_run,
    run_command,
)

pytestmark = pytest.mark.cpu_only("what fails is the disk")

REASONS = {
    errno.ENOSPC: "No space left on device",
    errno.EROFS: "Read-only file system",
    errno.EFBIG: "File too large",
}


def keep_quiet(event: dict[str, Any]) -> None:
    """An observer, so that `train` neither prints nor draws."""


@pytest.fixture(scope="module")
def untroubled(tmp_path_factory) -> dict[str, Any]:
    """What a run leaves that met no fault."""
    run_dir = tmp_path_factory.mktemp("untroubled") / "run"
    train(make_config(run_dir), observe=keep_quiet)
    return read_run(run_dir)


def check_message(error: UserError | None, folder: Path, *numbers: int) -> None:
    """One line: a file below `folder`, the system's reason, a remedy."""
    assert error is not None
    message = str(error)
    assert "\n" not in message
    assert message.startswith(str(folder)), message
    assert any(REASONS[number] in message for number in numbers), message
    assert "; " in message, message
    assert len(message) < 400
    assert ".unfinished" not in message


def check_whole(run_dir: Path) -> None:
    """Whatever lies in a run directory is complete."""
    if not run_dir.exists():
        return
    assert not list(run_dir.rglob("*.unfinished"))
    if not (run_dir / "config.yaml").exists():
        assert not list(run_dir.iterdir())
        return
    config = load_run_config(run_dir)
    if (run_dir / "metrics.json").exists():
        json.loads((run_dir / "metrics.json").read_text())
    if (run_dir / "checkpoints").exists():
        checkpoints = Checkpoints(run_dir / "checkpoints", read_only=True)
        latest = checkpoints.latest_epoch()
        for epoch in {latest, checkpoints.load_facts(latest)["best_epoch"]} if latest else ():
            checkpoints.load_state(epoch, make_template(config))
        checkpoints.close()


def is_own_file(call: str) -> bool:
    """Writing to a file of a run that is no checkpoint; files/test_files.py has the other calls."""
    return call.startswith("write") and "/checkpoints/" not in call


@pytest.mark.slow
def test_whichever_write_of_a_run_fails_the_same_call_ends_as_if_it_had_not(untroubled, tmp_path):
    n, calls = 0, []
    while len(calls) >= n:
        n += 1
        number = (errno.ENOSPC, errno.EROFS)[n % 2]
        run_dir = tmp_path / str(n)
        config = make_config(run_dir)
        with failing_writes(run_dir, n, number, is_own_file) as faults:
            error = get_error(lambda config=config: train(config, observe=keep_quiet))
        calls = faults.calls
        if len(calls) >= n:
            check_message(error, run_dir, number)
            check_whole(run_dir)
            train(config, observe=keep_quiet)
        assert read_run(run_dir) == untroubled
    names = " ".join(calls)
    for what in ("config.yaml", "events.jsonl", "tfevents", "metrics.json", "spectrogram.npz"):
        assert what in names
    assert n > 10


def get_error(call: Callable[[], Any]) -> UserError | None:
    try:
        call()
    except UserError as error:
        return error
    return None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_whichever_write_of_a_checkpoint_fails_the_one_before_is_whole(number, tmp_path):
    def make_state(epoch: int) -> dict[str, jax.Array]:
        return {"w": jnp.full((3, 4), epoch, jnp.float32)}

    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, make_state(1), {}, best_epoch=1)
    checkpoints.wait()
    latest, n, failed = 1, 0, []
    while True:
        epoch, n = latest + 1, n + 1
        with failing_writes(folder, n, number) as faults:
            checkpoints.save(epoch, make_state(epoch), {}, best_epoch=epoch)
            error = get_error(checkpoints.close)
        checkpoints = Checkpoints(folder)
        latest = checkpoints.latest_epoch()
        assert latest is not None
        assert (checkpoints.load_state(latest, make_state(0))["w"] == latest).all()
        if error is None:
            assert latest == epoch
        else:
            check_message(error, folder, number)
            assert f"cannot write the checkpoint of epoch {epoch}: " in str(error)
            assert latest in (epoch - 1, epoch)
            failed.append(faults.calls[n - 1])
        if len(faults.calls) < n:
            break
    assert sorted(path.name for path in folder.iterdir()) == [str(epoch)]
    assert len(failed) > 15
    checkpoints.close()


# The limit on the size of a file, as `ulimit -f` sets it. It reaches what C++ writes, too.


@contextlib.contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_whatever_file_outgrows_the_limit_the_same_call_goes_on(untroubled, tmp_path):
    run_dir, n_bytes, named = tmp_path / "run", 0, set()
    config = make_config(run_dir)
    while True:
        with file_size_limit(n_bytes):
            error = get_error(lambda: train(config, observe=keep_quiet))
        if error is None:
            break
        check_message(error, run_dir, errno.EFBIG)
        check_whole(run_dir)
        named.add(str(error).partition(":")[0].removeprefix(str(run_dir)))
        n_bytes = max(100, round(n_bytes * 1.5))
    assert read_run(run_dir) == untroubled
    assert {"/config.yaml", "/checkpoints"} <= named


def train_with_limit(n_bytes: int, *argv: str) -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))
    return run_command(*argv)


@pytest.mark.slow
def test_the_command_says_in_one_line_that_the_disk_is_full(untroubled, tmp_path):
    argv = ["train", *make_options({}), f"--run_dir={tmp_path / 'run'}"]
    status, output = Child(train_with_limit, 600, *argv).wait()
    assert status == 2
    (line,) = output.splitlines()
    check_message(UserError(line.removeprefix("ser-jax: error: ")), tmp_path, errno.EFBIG)
    # 20 kB: enough for the run, not for its figures.
    status, output = Child(train_with_limit, 20_000, *argv).wait()
    assert status == 2
    line = output.splitlines()[-1].removeprefix("ser-jax: error: ")
    check_message(UserError(line), tmp_path / "run" / "figures", errno.EFBIG)
    assert "Traceback" not in output
    assert read_run(tmp_path / "run") == untroubled
    status, output = Child(run_command, *argv).wait()
    assert status == 0
    assert {path.name for path in (tmp_path / "run" / "figures").glob("*.png")} == {
        "confusion.png", "curves.png", "groups.png", "spectrogram.png"
    }  # fmt: skip


# A file system of its own, really full and really read-only.


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system with the options given, or mounts it anew with others."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        again = "remount," if mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
        mounted = True
        return folder

    try:
        yield mount
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(not Path("/proc/mounts").exists(), reason="mounts a tmpfs, which is Linux'")
def test_on_a_disk_too_small_each_attempt_is_whole_and_a_greater_one_ends_it(
    untroubled, small_disk
):
    n_kib, attempts = 4, 0
    folder = small_disk(f"size={n_kib}k")
    config = make_config(folder / "run")
    while error := get_error(lambda: train(config, observe=keep_quiet)):
        check_message(error, folder, errno.ENOSPC)
        check_whole(folder / "run")
        attempts += 1
        n_kib = round(1.4 * n_kib)
        small_disk(f"size={n_kib}k")
    assert attempts > 3
    assert read_run(folder / "run") == untroubled


def test_a_disk_that_becomes_read_only_stops_a_run_that_goes_on_later(untroubled, small_disk):
    folder = small_disk("size=8m,ro")
    config = make_config(folder / "run")
    error = get_error(lambda: train(config, observe=keep_quiet))
    check_message(error, folder, errno.EROFS)
    small_disk("rw")

    def lock_at_the_last_step(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["epoch"] == 2:
            small_disk("ro")

    error = get_error(lambda: train(config, observe=lock_at_the_last_step))
    check_message(error, folder, errno.EROFS)
    error = get_error(lambda: train(config, observe=keep_quiet))  # it is still read-only
    check_message(error, folder, errno.EROFS)
    small_disk("rw")
    train(config, observe=keep_quiet)
    assert read_run(folder / "run") == untroubled


def test_a_store_needs_room_and_is_built_when_there_is_some(small_disk):
    folder = small_disk("size=64k")
    data = make_config(None, {"data.store_dir": str(folder / "store")}).data
    error = get_error(lambda: prepare(data))
    check_message(error, folder, errno.ENOSPC)
    assert not list((folder / "store").glob("[!.]*"))
    small_disk("size=16m")
    assert prepare(data).clips == 64


# Grids.


def make_grid(out: Path) -> AblationConfig:
    changes = {k: v for k, v in make_keys({}).items() if k != "train.epochs"}
    return override(
        AblationConfig(),
        changes | {"out": str(out), "train.epochs": 1, "workers": 1, "seeds": (0, 1),
                   "systems": {"lstm": {}}},
    )  # fmt: skip


def test_whichever_write_of_a_grid_fails_the_same_call_ends_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(api, "write_ablation_report", drawn.append)
    expected = ablate(make_grid(tmp_path / "untroubled"))
    n, calls = 0, []
    while len(calls) >= n:
        n += 1
        out = tmp_path / "grid"
        with failing_writes(out, n, errno.ENOSPC, lambda call: "/cells/" not in call) as faults:
            error = get_error(lambda out=out: ablate(make_grid(out)))
        calls = faults.calls
        if len(calls) >= n:
            check_message(error, out, errno.ENOSPC)
            if (out / "results.json").exists():
                json.loads((out / "results.json").read_text())
    results = json.loads((tmp_path / "grid" / "results.json").read_text())
    for cell, other in zip(results["cells"], expected["cells"], strict=True):
        assert {**cell, "seconds": 0} == {**other, "seconds": 0}
    assert n > 8


@pytest.mark.parametrize("batching", ["one", "vmap"])
def test_a_grid_stops_in_one_line_when_a_cell_cannot_write(batching, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "write_ablation_report", lambda folder: None)
    out = tmp_path / "grid"
    config = override(make_grid(out), {"batching": batching})
    with (
        failing_writes(out, 1, errno.EROFS, lambda call: call.endswith("/events.jsonl")),
        pytest.raises(UserError) as caught,
    ):
        ablate(config)
    check_message(caught.value, out / "cells", errno.EROFS)
    for run_dir in (out / "cells").iterdir():
        check_whole(run_dir)
    statuses = {cell["status"] for cell in ablate(config)["cells"]}
    assert statuses == {"done"}
