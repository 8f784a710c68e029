"""A real SLURM of one node, started here: a grid of two jobs, and a run of two tasks."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from ser_jax.run.run_dir import load_run_config
from tests.tiny import make_keys, make_options, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cpu_only("several processes cannot share one device"),
]

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge/socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4
PartitionName=test Nodes=ALL Default=YES
"""


def find_ports(n: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """munged, slurmctld and slurmd of this test alone; the environment for srun and sbatch."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    programs = {name: shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd")}
    if missing := [name for name, found in programs.items() if found is None]:
        pytest.skip(f"no {' '.join(missing)}; apt-get install slurm-wlm munge")
    host = socket.gethostname().partition(".")[0]
    try:
        socket.gethostbyname(host)
    except OSError:
        pytest.skip(f"SLURM and gloo need a name of this host that resolves, and {host} does not")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    conf = folder / "slurm.conf"
    user = os.environ.get("USER") or subprocess.check_output(["id", "-un"], text=True).strip()
    conf.write_text(CONF.format(host=host, ports=find_ports(2), folder=folder, user=user))
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
    options = [f"--{option}={folder}/munge/{name}" for option, name in files.items()]
    environment = os.environ | {"SLURM_CONF": str(conf)}
    commands = [
        [programs["munged"], "--foreground", "--force", *options],
        [programs["slurmctld"], "-D"],
        [programs["slurmd"], "-D", "-N", host],
    ]
    with (folder / "log").open("wb") as log:
        daemons = [
            subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # pyright: ignore
            for command in commands
        ]
    try:
        wait_until(lambda: "idle" in call(environment, "sinfo").stdout, "no idle node", pause_s=0.2)
        yield environment
    finally:
        call(environment, "scancel", "--state=RUNNING", "--signal=KILL", "--full")
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)


def call(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture(scope="module")
def together(slurm, tmp_path_factory) -> Iterator[dict[str, Any]]:
    """The run of two tasks, which begins before the grid is submitted: both mostly wait."""
    run_dir = tmp_path_factory.mktemp("together") / "run"
    argv = ["train", *make_options({}), f"--run_dir={run_dir}"]
    with ThreadPoolExecutor() as pool:
        command = ["srun", "--ntasks=2", sys.executable, "-m", "ser_jax", *argv]
        yield {"run_dir": run_dir, "done": pool.submit(call, slurm, *command)}


@pytest.mark.usefixtures("together")
def test_grid_is_run_by_one_job_per_shard(slurm, tmp_path):
    pytest.importorskip("submitit")
    keys = make_keys({"train.epochs": 1, "seeds": (0, 1), "systems": {"lstm": {}}, "workers": 1})
    config, out = tmp_path / "grid.yaml", tmp_path / "grid"
    config.write_text(yaml.safe_dump(
        {k: list(v) if isinstance(v, tuple) else v for k, v in keys.items()}
    ))  # fmt: skip
    launched = call(
        slurm, sys.executable, "-m", "ser_jax", "ablate", "--config", str(config), "--out",
        str(out), "--launch", "slurm", "--shards", "2", "--slurm", "{timeout_min: 5}",
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.startswith("slurm: jobs ")
    wait_until(
        lambda: not call(slurm, "squeue", "--noheader").stdout, "jobs do not end", 300, pause_s=0.2
    )
    logs = [path.read_text() for path in (out / "jobs").glob("*_log.err")]
    cells = json.loads((out / "results.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["done", "done"], logs
    assert len(logs) == 2


def test_tasks_of_srun_train_one_run_together(together):
    run_dir, done = together["run_dir"], together["done"].result()
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"{run_dir}: metrics.json, figures, checkpoints")
    assert done.stdout.count("epoch 1/2") == 1  # process 0 alone prints
    assert load_run_config(run_dir).parallel.num_processes is None
