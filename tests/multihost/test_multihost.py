"""Processes that train together: one result, shares of the clips, one writer, and their deaths."""

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ser_jax.api import train
from ser_jax.cli.arguments import parse
from ser_jax.config import Config, ParallelConfig
from ser_jax.data.store import load_corpus, load_shard
from ser_jax.errors import UserError
from ser_jax.features.normaliser import fit_normaliser
from ser_jax.multihost.processes import is_writer, taking_part
from ser_jax.multihost.sharing import broadcast, gather, share
from ser_jax.multihost.supervisor import DIED
from ser_jax.run.run_dir import load_run_config
from ser_jax.training.checkpoint import Checkpoints
from tests.tiny import (
    Child,
    count_events,
    drop_progress,
    list_cache_settings,
    make_config,
    make_folder,
    make_options,
    make_template,
    start_command,
    wait_until,
)

pytestmark = pytest.mark.cpu_only("several processes cannot share one device")

CHANGES = {
    "train.optimizer": "sgd", "train.learning_rate": 0.1, "model.dropout": 0.0, "train.epochs": 6,
    "parallel.heartbeat_s": 5,
}  # fmt: skip


def find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def make_argv(run_dir: Path, port: int = 0, process: int = 0) -> list[str]:
    together = {
        "parallel.coordinator": f"127.0.0.1:{port}", "parallel.num_processes": 2,
        "parallel.process_id": process,
    }  # fmt: skip
    return ["train", *make_options(CHANGES | (together if port else {})), f"--run_dir={run_dir}"]


def train_without_figures(*argv: str) -> int:
    """The command, but for the figures, which take seconds to draw."""
    config: Any = parse(list(argv)).config
    with taking_part(config.parallel):
        train(config, observe=lambda event: None)
    return 0


def train_by_own_start(config: Config, port: int) -> int:
    """What a program does that has called `jax.distributed.initialize` itself, as process 0."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, 0, cluster_detection_method="deactivate")
    train(config, observe=lambda event: None)
    jax.distributed.shutdown()
    return 0


def train_and_record(path: Path, train_run: Any, *arguments: Any) -> int:
    """Train, and write which clips were decoded out of the store."""
    from ser_jax.data import store

    iterate_clips, read = store.iterate_clips, []

    def record(folder: Path, rows: Any = None, *, with_samples: bool = True, **named: Any) -> Any:
        read.extend([rows] if with_samples else [])
        return iterate_clips(folder, rows, with_samples=with_samples, **named)

    store.iterate_clips = record
    status = train_run(*arguments)
    path.write_text(json.dumps(read))
    return status


def read_params(run_dir: Path, epoch: int) -> list[np.ndarray]:
    checkpoints = Checkpoints(run_dir / "checkpoints", read_only=True)
    state = checkpoints.load_state(epoch, make_template(load_run_config(run_dir)))
    checkpoints.close()
    assert jax.numpy.issubdtype(state.key.dtype, jax.dtypes.prng_key)
    return jax.tree.leaves(jax.tree.map(np.asarray, state.params))


def find_latest_epoch(run_dir: Path) -> int:
    """The latest epoch whose checkpoint is whole; 0: none."""
    checkpoints = Checkpoints(run_dir / "checkpoints", read_only=True)
    epoch = checkpoints.latest_epoch() or 0
    checkpoints.close()
    return epoch


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A run of one process."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    status, output = Child(train_without_figures, *make_argv(run_dir)).wait()
    assert status == 0, output
    return run_dir


@pytest.fixture(scope="module")
def together(tmp_path_factory, alone) -> dict[str, Any]:
    """The same run of two processes: where they wrote, what they read and printed."""
    folder, port = tmp_path_factory.mktemp("together"), find_port()
    run0, run1 = (folder / f"run{process}" for process in (0, 1))
    children = [
        Child(train_and_record, folder / "0.json", train_by_own_start,
              make_config(run0, CHANGES), port),
        Child(train_and_record, folder / "1.json", train_without_figures,
              *make_argv(run1, port, 1)),
    ]  # fmt: skip
    (status0, output0), (status1, output1) = (child.wait() for child in children)
    assert (status0, status1) == (0, 0), output0 + output1
    read = [json.loads((folder / f"{process}.json").read_text()) for process in (0, 1)]
    printed = [x for x in output1.splitlines() if not x.startswith("[Gloo]")]
    return {"run_dir": run0, "other": run1, "read": read, "printed": printed}


def assert_same_run(run_dir: Path, expected: Path, tolerance: float) -> None:
    found, metrics = (json.loads((d / "metrics.json").read_text()) for d in (run_dir, expected))
    for name in found.keys() - {"seconds"}:
        assert found[name] == metrics[name], name
    epochs = sorted(path.name for path in (expected / "checkpoints").iterdir())
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == epochs
    for epoch in epochs:
        params = read_params(run_dir, int(epoch)), read_params(expected, int(epoch))
        for one, other in zip(*params, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(together, alone):
    assert_same_run(together["run_dir"], alone, 1e-5)


@pytest.mark.slow
def test_each_process_reads_its_share_of_the_clips_alone(together):
    (rows0,), (rows1,) = together["read"]
    assert rows0 == list(range(32))
    assert rows1 == list(range(32, 64))


@pytest.mark.slow
def test_process_0_alone_writes_and_prints(together):
    assert not together["other"].exists()
    assert together["printed"] == []
    assert (together["run_dir"] / "events.jsonl").exists()


def test_an_error_in_what_process_0_shares_is_raised_on_all():
    settings = {"coordinator": f"127.0.0.1:{find_port()}", "num_processes": 2, "heartbeat_s": 5}
    children = [Child(take_part, settings | {"process_id": process}) for process in (0, 1)]
    for child in children:
        status, output = child.wait()
        assert status == 2
        assert output.splitlines()[-1] == "process 0 failed"


def find_worker(supervisor: int) -> int:
    """The process that `supervisor` has started."""

    def find() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # gone meanwhile
                if int(path.read_text().rpartition(")")[2].split()[1]) == supervisor:
                    found.append(int(path.parent.name))
        return found

    wait_until(find, "no worker")
    return find()[0]


DEAD = {0: "process 0 (the coordinator)", 1: "process 1"}


@pytest.fixture(scope="module")
def deaths(together, tmp_path_factory) -> Iterator[dict[int, Future[None]]]:
    """Runs of which a process is killed, by its number: side by side, since they mostly wait."""
    with ThreadPoolExecutor() as pool:
        yield {
            victim: pool.submit(
                kill_and_resume,
                tmp_path_factory.mktemp("killed"),
                together["run_dir"],
                victim,
                dead,
            )
            for victim, dead in DEAD.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize("victim", DEAD)
def test_when_one_dies_the_other_says_so_and_the_run_resumes(deaths, victim):
    deaths[victim].result()


def kill_and_resume(folder: Path, expected: Path, victim: int, dead: str) -> None:
    run_dir, port = folder / "run", find_port()
    argv = [make_argv(run_dir, port, process) for process in (0, 1)]
    commands = [start_command(*one) for one in argv]
    dying, survivor = commands[victim], commands[1 - victim]
    worker = find_worker(dying.pid)
    wait_until(lambda: count_events(run_dir) >= 3, "epochs")
    # Whoever kills the supervisor ends its worker too.
    os.kill(dying.pid if victim == 0 else worker, signal.SIGKILL)
    killed_s = time.monotonic()
    _, errors = survivor.communicate(timeout=60)
    assert time.monotonic() - killed_s < 45
    assert survivor.returncode == DIED
    (line,) = drop_progress(errors)
    assert line.startswith(f"ser-jax: error: {dead} ended, or could not be reached for 5 s")
    command = shlex.join([sys.executable, "-m", "ser_jax", *argv[1 - victim]])
    assert line.endswith(f"start all processes again, this one by: {command}")
    assert not (run_dir / "metrics.json").exists()
    _, errors = dying.communicate(timeout=60)
    if victim == 1:
        assert dying.returncode == 128 + signal.SIGKILL
        (line,) = drop_progress(errors)
        assert line.startswith("ser-jax: error: the worker was ended by SIGKILL; to resume")

    log = (run_dir / "events.jsonl").read_bytes().splitlines(keepends=True)
    # An epoch is told before it is saved, and saved while the next one trains: a kill may take
    # the saves of the last two.
    saved = find_latest_epoch(run_dir)
    assert saved >= len(log) - 3
    other = Child(train_without_figures, *argv[1])
    supervised = start_command(*argv[0])
    printed, errors = supervised.communicate(timeout=120)
    assert supervised.returncode == 0, errors
    assert other.wait()[0] == 0
    assert printed.rstrip().endswith(f"{run_dir}: metrics.json, figures, checkpoints")
    assert "Gloo" not in printed + errors
    kept = b"".join(log[: 1 + saved])
    assert (run_dir / "events.jsonl").read_bytes().startswith(kept)
    assert_same_run(run_dir, expected, 0)


# How processes meet, or do not.


def start_train(run_dir: Path, port: int, *, start_s: int = 2, **parallel: Any) -> subprocess.Popen:
    """The command line, with less patience."""
    keys = {"coordinator": f"127.0.0.1:{port}", "num_processes": 2, "process_id": 0}
    keys |= {"heartbeat_s": 5} | parallel
    changes = {f"parallel.{key}": value for key, value in keys.items() if value is not None}
    code = (
        "from ser_jax.multihost import supervisor; "
        f"supervisor.START_S, notice_s = {start_s}, 0.2; "
        "from ser_jax.multihost import processes; "
        "processes.NOTICE_S = notice_s; from ser_jax.__main__ import run; run()"
    )
    settings = {k: str(v) for k, v in list_cache_settings(make_folder("compiled")).items()}
    argv = ["train", *make_options(changes), f"--run_dir={run_dir}"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv], env=os.environ | settings, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(command: subprocess.Popen) -> tuple[int, list[str]]:
    """Exit status, lines of standard error."""
    errors = command.communicate(timeout=90)[1]
    return command.returncode, errors.splitlines()


@pytest.fixture(scope="module")
def meetings(tmp_path_factory) -> dict[str, Any]:
    """Exit status and errors of processes that do not meet: side by side, since they mostly wait;
    and the port that was in use."""
    folder, port = tmp_path_factory.mktemp("meetings"), find_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        used = listener.getsockname()[1]
        commands = {
            "first of two": start_train(folder / "count", port, start_s=60),
            "second of three": start_train(
                folder / "count", port, start_s=60, num_processes=3, process_id=1
            ),
            "port in use": start_train(folder / "port", used, start_s=30),
            "process 0 alone": start_train(folder / "alone", find_port(), process_id=0),
            "process 1 alone": start_train(folder / "alone", find_port(), process_id=1),
            "wrong key": start_train(folder / "key", find_port(), heartbeat_s=1),
        }
        return {name: end(command) for name, command in commands.items()} | {"used": used}


def test_process_that_waits_in_vain_says_how_to_start_all(meetings):
    remedy = (
        "start one with each --parallel.process_id, all with one --parallel.coordinator, whose "
        "port must be open to them"
    )
    expected = [
        f"parallel.num_processes=2: waiting up to 2 s for the other processes; if none is to come, "
        f"{remedy}",
        f"ser-jax: error: parallel.num_processes=2: not all processes came within 2 s; {remedy}",
    ]
    assert meetings["process 0 alone"] == (2, expected)
    assert meetings["process 1 alone"] == (2, expected)


def test_wrong_key_of_one_process_is_reported_at_once(meetings):
    status, (line,) = meetings["wrong key"]
    assert status == 2
    assert line == "ser-jax: error: parallel.heartbeat_s=1: must lie between 5 and 120 seconds"


def test_port_that_is_in_use_is_named(meetings):
    status, lines = meetings["port in use"]
    assert status == 2
    assert lines[-1].startswith(
        f"ser-jax: error: parallel.coordinator=127.0.0.1:{meetings['used']}: process 0 cannot "
        "listen there: Address already in use"
    )
    assert lines[-1].endswith("; choose another port")


@pytest.mark.slow
def test_processes_that_count_differently_do_not_train(meetings):
    status, lines = meetings["second of three"]
    assert status == 2
    assert lines[-1] == (
        "ser-jax: error: parallel.num_processes=3: the other processes count 2; give the same "
        "number to all"
    )
    status, lines = meetings["first of two"]
    assert status == DIED
    assert lines[-1].startswith("ser-jax: error: process 1 ended, or could not be reached for 5 s")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"coordinator": "a:1", "num_processes": 2},
            "parallel.process_id: missing beside parallel.coordinator=a:1 parallel.num_processes=2",
        ),
        ({"coordinator": "a:1", "process_id": 0}, "parallel.num_processes: missing beside"),
        ({"num_processes": 2, "process_id": 0}, "parallel.coordinator: missing beside"),
    ],
)
def test_settings_that_are_not_complete_are_refused(settings, message):
    status, output = Child(take_part, settings).wait()
    assert status == 2
    assert output.startswith(message)


def take_part(settings: dict[str, Any]) -> int:
    def fail() -> None:
        raise UserError(f"process {jax.process_index()} failed")

    try:
        with taking_part(ParallelConfig(**settings)):
            share(fail)
            return 0
    except UserError as error:
        print(error, flush=True)
        return 2


def take_part_and_terminate(settings: dict[str, Any]) -> int:
    with taking_part(ParallelConfig(**settings)):
        gather(np.ones(1))
        if jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    return 0


def test_a_process_that_takes_part_still_ends_by_sigterm():
    settings = {"coordinator": f"127.0.0.1:{find_port()}", "num_processes": 2, "heartbeat_s": 5}
    other, terminated = (
        Child(take_part_and_terminate, settings | {"process_id": process}) for process in (0, 1)
    )
    assert terminated.wait()[0] == -signal.SIGTERM
    other.process.kill()
    other.wait()


def test_one_process_needs_nothing():
    cases: list[dict[str, Any]] = [{}, {"num_processes": 1}]
    for settings in cases:
        with taking_part(ParallelConfig(**settings)):
            assert is_writer()


# Parts.


def test_shared_arrays_keep_every_bit():
    tree = {"float64": np.array([1e-300, -0.0]), "bool": np.array([True, False])}
    found = broadcast(tree) | {"gathered": gather(tree["float64"])[0]}
    for name, expected in (tree | {"gathered": tree["float64"]}).items():
        assert found[name].dtype == expected.dtype
        assert found[name].tobytes() == expected.tobytes()


@pytest.mark.parametrize("trim_db", [None, 20.0])
def test_share_of_a_corpus_is_the_corpus_with_silence_elsewhere(trim_db):
    data = dataclasses.replace(make_config(None).data, trim_db=trim_db, trim_margin_s=0.0)
    whole, rows = load_corpus(data), np.array([3, 4, 40])
    part = load_shard(data, lambda n_clips: rows)
    np.testing.assert_array_equal(part.wave_BN[rows], whole.wave_BN[rows])
    assert part.wave_BN.shape == whole.wave_BN.shape
    assert not np.delete(part.wave_BN, rows, axis=0).any()
    assert part.checksum == whole.checksum
    assert part.file_names == whole.file_names
    np.testing.assert_array_equal(part.emotion_B, whole.emotion_B)
    np.testing.assert_array_equal(part.length_B, whole.length_B)


@pytest.mark.parametrize("kind", ["coefficient", "global"])
def test_normaliser_of_shares_is_that_of_the_whole(kind):
    x_BTF = np.random.default_rng(0).normal(5, 3, (6, 4, 3)).astype(np.float32)
    whole = fit_normaliser(x_BTF, None, kind)
    others: list[np.ndarray] = []
    count = np.array(2 * 4 * (1.0 if kind == "coefficient" else 3))
    axis = 0 if kind == "coefficient" else None
    rest_RF = x_BTF[4:].reshape(-1, 3).astype(np.float64)
    others = [count, rest_RF.sum(axis=axis, keepdims=True)]
    mean = x_BTF.reshape(-1, 3).astype(np.float64).mean(axis=axis, keepdims=True)
    others.append(np.square(rest_RF - mean).sum(axis=axis, keepdims=True))
    part = fit_normaliser(x_BTF[:4], None, kind, total=lambda own: own + others.pop(0))
    np.testing.assert_allclose(part.mean_F, whole.mean_F, rtol=1e-6)
    np.testing.assert_allclose(part.std_F, whole.std_F, rtol=1e-6)
