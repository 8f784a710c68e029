"""Processes that train together: one result, shares of the clips, one writer, and their deaths."""

import dataclasses
import json
import os
import shlex
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import ser_jax.multihost.rendezvous
import ser_jax.multihost.watch
from ser_jax.api import train
from ser_jax.cli.arguments import parse
from ser_jax.config import ParallelConfig
from ser_jax.data.store import load_corpus, load_shard
from ser_jax.errors import UserError
from ser_jax.features.normaliser import fit_normaliser
from ser_jax.multihost.processes import find_place, initialize, is_writer, taking_part
from ser_jax.multihost.rendezvous import admit, present_oneself
from ser_jax.multihost.sharing import broadcast, gather
from ser_jax.multihost.watch import DIED, Peer, Watch
from ser_jax.run.run_dir import load_run_config
from ser_jax.training.checkpoint import Checkpoints
from tests.tiny import (
    Child,
    count_events,
    drop_progress,
    make_config,
    make_options,
    make_template,
    run_command,
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


def train_and_record(path: Path, *argv: str) -> int:
    """Train, and write which clips were decoded out of the store."""
    from ser_jax.data import store

    iterate_clips, read = store.iterate_clips, []

    def record(folder: Path, rows: Any = None, *, with_samples: bool = True, **named: Any) -> Any:
        read.extend([rows] if with_samples else [])
        return iterate_clips(folder, rows, with_samples=with_samples, **named)

    store.iterate_clips = record
    status = run_command(*argv) if "1" in path.name else train_without_figures(*argv)
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
    children = [
        Child(
            train_and_record, folder / f"read{process}.json",
            *make_argv(folder / f"run{process}", port, process),
        )
        for process in (1, 0)
    ]  # fmt: skip
    (status1, output1), (status0, output0) = (child.wait() for child in children)
    assert (status0, status1) == (0, 0), output0 + output1
    read = [json.loads((folder / f"read{process}.json").read_text()) for process in (0, 1)]
    return {"folder": folder, "run_dir": folder / "run0", "read": read, "printed": output1}


def assert_same_run(run_dir: Path, expected: Path) -> None:
    found, metrics = (json.loads((d / "metrics.json").read_text()) for d in (run_dir, expected))
    for name in found.keys() - {"seconds"}:
        assert found[name] == metrics[name], name
    epochs = sorted(path.name for path in (expected / "checkpoints").iterdir())
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == epochs
    for epoch in epochs:
        params = read_params(run_dir, int(epoch)), read_params(expected, int(epoch))
        for one, other in zip(*params, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(together, alone):
    assert_same_run(together["run_dir"], alone)


@pytest.mark.slow
def test_each_process_reads_its_share_of_the_clips_alone(together):
    (rows0,), (rows1,) = together["read"]
    assert rows0 == list(range(32))
    assert rows1 == list(range(32, 64))


@pytest.mark.slow
def test_process_0_alone_writes_and_prints(together):
    assert not (together["folder"] / "run1").exists()
    assert together["printed"] == ""
    assert (together["run_dir"] / "events.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "role"), [(0, "coordinator"), (1, "worker")])
def test_when_one_dies_the_other_says_so_and_the_run_goes_on_later(
    together, tmp_path, victim, role
):
    run_dir, port = tmp_path / "run", find_port()
    argv = [make_argv(run_dir, port, process) for process in (0, 1)]
    survivor = start_command(*argv[1 - victim])
    dying = Child(run_command, *argv[victim])
    wait_until(lambda: count_events(run_dir) >= 3, "epochs")
    os.kill(dying.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    _, errors = survivor.communicate(timeout=60)
    assert time.monotonic() - killed_s < 45
    assert survivor.returncode == DIED
    host = socket.gethostname()
    dead = f"ser-jax: error: process {victim} ({role}, pid {dying.pid} on {host}) died;"
    (line,) = drop_progress(errors)
    assert line.startswith(dead)
    assert line.endswith(shlex.join([sys.executable, "-m", "ser_jax", *argv[1 - victim]]))
    assert not (run_dir / "metrics.json").exists()
    dying.process.join()

    if victim == 1:
        log = (run_dir / "events.jsonl").read_bytes().splitlines(keepends=True)
        # An epoch is told before it is saved, and saved while the next one trains: a kill may
        # take the saves of the last two.
        saved = find_latest_epoch(run_dir)
        assert saved >= len(log) - 3
        children = [Child(train_without_figures, *one) for one in argv]
        outcomes = [child.wait() for child in children]
        assert [status for status, _ in outcomes] == [0, 0], outcomes
        kept = b"".join(log[: 1 + saved])
        assert (run_dir / "events.jsonl").read_bytes().startswith(kept)
        assert_same_run(run_dir, together["run_dir"])


# The watch alone, without JAX.


def keep_watch(port: int, process: int, then: str) -> int:
    """Three processes meet; then this one waits, or ends in one way or another."""
    me = Peer(process, 3, f"host{process}", os.getpid())
    if process == 0:
        with socket.create_server(("127.0.0.1", port)) as listener:
            links, peers = admit(listener, me, {}, start_s=30, counted_by="three", remedy="")
    else:
        link, _, peers = present_oneself(("127.0.0.1", port), me, start_s=30)
        links = {0: link}
    ser_jax.multihost.watch.GRACE_S = 0.2
    watch = Watch(me, links, peers, 2.0)
    if then == "finish":
        watch.leave(0, "")
        return 0
    if then == "fail":
        watch.leave(2, "stopped: data.root=x: no such folder")
        return 2
    if then != "wait":
        os.kill(os.getpid(), getattr(signal, then))
    time.sleep(30)
    return 99


@pytest.mark.parametrize(
    ("then", "status", "words"),
    [
        ("SIGKILL", DIED, "died; to go on from the last finished epoch, start all"),
        ("SIGSTOP", DIED, "was silent for 2 s; to go on from the last finished epoch"),
        ("fail", 2, "stopped: data.root=x: no such folder\n"),
    ],
)
@pytest.mark.parametrize("victim", [0, 2])
def test_all_others_end_in_one_line_that_names_who_and_why(then, status, words, victim):
    port = find_port()
    children = [Child(keep_watch, port, i, then if i == victim else "wait") for i in range(3)]
    for i in {0, 1, 2} - {victim}:
        found, output = children[i].wait(20)
        assert found == status, output
        assert output.startswith(f"ser-jax: error: process {victim} (")
        assert f"pid {children[victim].pid} on host{victim}) {words}" in output
        assert output.count("\n") == 1
    children[victim].process.kill()


def test_process_that_ends_well_alarms_nobody():
    port = find_port()
    children = [Child(keep_watch, port, i, "finish" if i else "wait") for i in range(3)]
    assert [child.wait(20)[0] for child in children[1:]] == [0, 0]
    time.sleep(0.5)
    assert children[0].process.is_alive()
    children[0].process.kill()


# Bad input.


def run_initialize(changes: dict[str, Any], start_s: float) -> int:
    try:
        with taking_part_within(ParallelConfig(**changes), start_s):
            return 0
    except UserError as error:
        print(error, flush=True)
        return 2


def taking_part_within(parallel: ParallelConfig, start_s: float) -> Any:
    initialize(parallel, start_s=start_s)
    return taking_part(parallel)


def test_coordinator_that_is_not_there_is_named_with_the_remedy():
    port = find_port()
    settings = {"coordinator": f"127.0.0.1:{port}", "num_processes": 2, "process_id": 1}
    status, output = Child(run_initialize, settings, 1.0).wait()
    assert status == 2
    assert output.startswith(f"parallel.coordinator=127.0.0.1:{port}: no answer from process 0")
    assert "start process 0 there" in output


def test_worker_that_does_not_come_is_named():
    settings = {"coordinator": f"127.0.0.1:{find_port()}", "num_processes": 3, "process_id": 0}
    status, output = Child(run_initialize, settings, 1.0).wait()
    assert status == 2
    assert output.startswith("parallel.num_processes=3: no process 1 2 within 1 s; start one")


def run_once_of_four(notice_s: float) -> int:
    """What srun says to the first of four tasks, of which no other starts."""
    host = socket.gethostname()
    os.environ |= {
        "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": host, "SLURM_NTASKS": "4",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    }  # fmt: skip
    ser_jax.multihost.rendezvous.NOTICE_S = notice_s
    return run_initialize({}, 1.0)


def test_slurm_is_named_where_its_other_tasks_do_not_come():
    status, output = Child(run_once_of_four, 0.2).wait()
    assert status == 2
    notice, error = output.splitlines()
    assert notice.startswith("SLURM_NTASKS=4: waiting up to 1 s for process 1 2 3; if none is to")
    assert error.startswith("SLURM_NTASKS=4: no process 1 2 3 within 1 s; start ser-jax itself by")
    assert "--parallel.num_processes 1" in notice
    assert "--parallel.num_processes 1" in error


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ((3, 1), "parallel.num_processes=2 on process 0, but 3 on process 1 ("),
        ((2, 0), "process 0 cannot listen there: Address already in use"),
    ],
)
def test_processes_that_do_not_agree_are_told(other, words):
    address = f"127.0.0.1:{find_port()}"
    first = {"coordinator": address, "num_processes": 2, "process_id": 0}
    second = {"coordinator": address, "num_processes": other[0], "process_id": other[1]}
    children = [Child(run_initialize, one, 3.0) for one in (first, second)]
    outputs = [child.wait() for child in children]
    assert [status for status, _ in outputs] == [2, 2]
    assert words in outputs[1][1] or words in outputs[0][1]


def test_process_id_given_twice_is_refused():
    port = find_port()
    children = [Child(keep_watch, port, i, "wait") for i in (0, 1, 1)]
    outputs = [child.wait(20)[1] for child in children]
    assert all("UserError: parallel.process_id=1: given twice, to pid" in x for x in outputs)


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
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        initialize(ParallelConfig(**settings))


def test_slurm_says_who_takes_part(monkeypatch):
    keys = {
        "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[003-004]", "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    }  # fmt: skip
    for key, value in keys.items():
        monkeypatch.setenv(key, value)
    place = find_place(ParallelConfig())
    assert place is not None
    assert place.address[0] == "node003"
    assert place[1:] == (4, 3, [1], "SLURM_NTASKS=4")
    assert find_place(ParallelConfig(num_processes=1)) is None
    by_hand = find_place(ParallelConfig(coordinator="[::1]:80", num_processes=9, process_id=8))
    assert by_hand == (("::1", 80), 9, 8, [1], "parallel.num_processes=9")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert find_place(ParallelConfig()) is None


def test_one_process_needs_nothing():
    cases: list[dict[str, Any]] = [{}, {"num_processes": 1}]
    for settings in cases:
        with taking_part(ParallelConfig(**settings)) as processes:
            assert processes == (0, 1)
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
