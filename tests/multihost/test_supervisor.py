"""The supervisor of a worker, without JAX: what it hides, says, forwards, and exits with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ser_jax.config import ParallelConfig
from ser_jax.multihost.launchers import find_process_count
from ser_jax.multihost.supervisor import DIED
from tests.tiny import wait_until

CODE = """
import os, signal, sys, time
from ser_jax.config import ParallelConfig
from ser_jax.multihost.supervisor import supervise
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
try:
    status = supervise(ParallelConfig(coordinator="a:1", num_processes=2, process_id=1))
except KeyboardInterrupt:
    print("the supervisor was interrupted", flush=True)
    sys.exit(130)
if status is None:
    os.write(1, b"C++ 1\\n")
    os.write(2, b"C++ 2\\n")
    print(os.getpid(), flush=True)
    exec(sys.argv[1])
sys.exit(status)
"""
FATAL = "] Terminating process because the JAX distributed service detected fatal errors. This"
HEARTBEATS = f"""{FATAL} The following tasks are unhealthy (stopped sending heartbeats):
%s
The tasks have crashed. Check the task logs for an earlier error.

RPC: /xla.coordination.CoordinationService/PollForError
*** Check failure stack trace: ***
    @     0x7f0176740634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
"""
LEADER = f"""{FATAL} UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task
was preempted/died/restarted unexpectedly or this task is experiencing network issues.
"""
REGISTER = f"""{FATAL} absl::Status: %s

RPC: /xla.coordination.CoordinationService/RegisterTask
"""


def start(worker: str) -> subprocess.Popen:
    """A supervisor whose worker runs the code `worker`."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, worker],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(supervisor: subprocess.Popen) -> tuple[int, str, str]:
    output, errors = supervisor.communicate(timeout=60)
    return supervisor.returncode, output, errors


def abort_with(log: str) -> str:
    return f"os.write(2, {log.encode()!r}); os.abort()"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (HEARTBEATS % "1", "process 1 ended, or could not be reached for 12 s"),
        (HEARTBEATS % "1\n12", "processes 1 12 ended, or could not"),
        (HEARTBEATS % "/job:jax_worker/replica:0/task:3", "process 3 ended, or could not"),
        (LEADER, "process 0 (the coordinator) ended, or could not be reached for 12 s"),
    ],
)
def test_death_of_another_process_is_one_line_and_not_a_stack(log, words):
    status, output, errors = end(start(abort_with(log)))
    assert status == DIED
    assert errors.startswith(f"ser-jax: error: {words}")
    assert "; to resume from the last finished epoch, start all processes again" in errors
    assert errors.count("\n") == CODE.count("\n") + 1  # of the command that it repeats
    assert "C++" not in output + errors.partition(";")[0]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("DEADLINE_EXCEEDED: Deadline Exceeded", "2: not all processes came within 120 s; start"),
        ("ALREADY_EXISTS: Aborted connect attempt", "1: given to two processes; number them from"),
    ],
)
def test_processes_that_do_not_meet_are_bad_input(reason, words):
    status, _, errors = end(start(abort_with(REGISTER % reason)))
    assert status == 2
    (line,) = errors.splitlines()
    assert line.startswith("ser-jax: error: parallel.")
    assert f"={words}" in line


def test_another_abort_shows_what_cplusplus_said():
    status, _, errors = end(start(abort_with("out of memory\n")))
    assert status == 128 + signal.SIGABRT
    assert errors.startswith("C++ 1\nC++ 2\nout of memory\nser-jax: error: the worker was ended by")


def test_worker_that_ends_by_itself_has_the_last_word():
    status, output, errors = end(start("print('bad key', file=sys.stderr); sys.exit(2)"))
    assert (status, errors) == (2, "bad key\n")
    assert output.strip().isdecimal()


def test_one_interrupt_reaches_the_worker_which_ends_by_itself():
    code = "try: time.sleep(60)\nexcept KeyboardInterrupt: print('saved'); sys.exit(130)"
    supervisor = start(code)
    assert supervisor.stdout
    supervisor.stdout.readline()
    supervisor.send_signal(signal.SIGINT)
    assert end(supervisor) == (130, "saved\n", "")


def test_worker_that_hangs_does_not_survive_an_interrupt():
    supervisor = start("signal.signal(signal.SIGINT, signal.SIG_IGN); print(); time.sleep(60)")
    assert supervisor.stdout
    pid = int(supervisor.stdout.readline())
    supervisor.stdout.readline()
    supervisor.send_signal(signal.SIGINT)
    time.sleep(0.5)
    supervisor.send_signal(signal.SIGINT)  # again, since nothing happens
    assert end(supervisor)[:2] == (130, "the supervisor was interrupted\n")
    assert not is_alive(pid)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_worker_ends_with_its_supervisor(signal_number):
    supervisor = start("time.sleep(60)")
    assert supervisor.stdout
    pid = int(supervisor.stdout.readline())
    supervisor.send_signal(signal_number)
    status, _, errors = end(supervisor)
    if signal_number == signal.SIGTERM:
        assert status == 128 + signal.SIGTERM
        assert errors.startswith("ser-jax: error: received SIGTERM; to resume")
    wait_until(lambda: not is_alive(pid), "the worker lives", 20)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# Who takes part.


@pytest.mark.parametrize(
    ("settings", "environment", "count"),
    [
        ({}, {}, None),
        ({"num_processes": 1}, {"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "a"}, None),
        ({}, {"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "a"}, "SLURM_NTASKS=4"),
        ({}, {"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "a"}, None),
        ({}, {"SLURM_NTASKS": "4"}, None),  # in a job, but not started by srun
        ({}, {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_SIZE=2"),
        ({"num_processes": 4}, {}, "parallel.num_processes=4"),
        ({"coordinator": "a:1"}, {}, "parallel.coordinator=a:1"),
    ],
)
def test_settings_and_launchers_say_how_many_take_part(settings, environment, count, monkeypatch):
    for key in [key for key in os.environ if key.startswith(("SLURM_", "OMPI_"))]:
        monkeypatch.delenv(key)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert find_process_count(ParallelConfig(**settings)) == count
