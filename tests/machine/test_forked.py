"""Processes of others: forks of JAX, daemons, machines that let no worker start, callers' logs."""

import logging
import multiprocessing
import os
import subprocess
import sys

import pytest

from ser_jax.augment.host import HostAugmenter
from ser_jax.config import AugmentConfig
from ser_jax.errors import UserError
from ser_jax.machine import spawning
from ser_jax.training.checkpoint import Checkpoints
from tests.tiny import make_keys

FORK = """
import os
import sys
import ser_jax
from ser_jax.config import Config, override

config = override(Config(), {keys!r})
if sys.argv[1] == "late":
    import jax
    jax.numpy.zeros(1).block_until_ready()
ser_jax.train  # as a server that imports before it forks
pid = os.fork()
if pid == 0:
    try:
        ser_jax.train(config)
    except ser_jax.UserError as error:
        print(error)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
"""

TRAIN = """
import sys
import ser_jax
from ser_jax.config import Config, override

ser_jax.train(override(Config(), {keys!r}), observe=lambda event: None)
print(sorted(sys.modules.keys() & {{"torch", "tensorflow"}}))
"""


def test_training_imports_no_other_framework_where_one_is_installed(tmp_path):
    keys = make_keys({"train.epochs": 1, "run_dir": str(tmp_path / "run")})
    code = TRAIN.format(keys=keys)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["[]"]), done.stderr


@pytest.mark.cpu_only("forks")
@pytest.mark.slow
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_fork_of_a_process_that_used_jax_is_told_so_and_others_train(when, tmp_path):
    keys = make_keys({"train.epochs": 1, "run_dir": str(tmp_path / "run")})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK.format(keys=keys), when],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("was forked off one that had used JAX" in done.stdout) == (when == "late")
    assert (tmp_path / "run" / "metrics.json").exists() == (when == "early")


def test_a_daemon_is_told_that_it_may_start_no_workers(monkeypatch):
    monkeypatch.setattr(type(multiprocessing.current_process()), "daemon", True)
    with pytest.raises(UserError, match=r"is a daemon, which may start none; set augment\.backend"):
        HostAugmenter(AugmentConfig(), 16000, seed=0)


@pytest.mark.parametrize("error", [OSError(38, "Function not implemented"), OSError(30, "x")])
def test_a_machine_without_semaphores_is_told_what_to_do(monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("ser_jax.augment.host.ProcessPoolExecutor", refuse)
    with pytest.raises(UserError, match=r"worker processes: cannot be started.*/dev/shm.*or set"):
        HostAugmenter(AugmentConfig(), 16000, seed=0)


def test_the_main_module_is_back_where_no_worker_could_be_started():
    before = sys.modules["__main__"]
    with pytest.raises(UserError, match="or do without"), spawning.starting_workers("do without"):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    assert sys.modules["__main__"] is before


@pytest.mark.parametrize("name", ["absl", "asyncio"])
def test_the_callers_own_log_is_left_alone(name, tmp_path, caplog):
    caplog.set_level(logging.WARNING)  # the command line switches it off for its process
    Checkpoints(tmp_path).close()
    logger = logging.getLogger(name)
    assert logger.level == logging.NOTSET
    logger.warning("mine")
    assert [record.message for record in caplog.records] == ["mine"]


def test_caches_have_a_place_where_no_home_is_known(tmp_path):
    code = """if True:
        import os
        os.path.expanduser = lambda path: path
        import ser_jax
        print(os.environ["XDG_CACHE_HOME"], ser_jax.DataConfig().store_dir)
        """
    environment = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    place = tmp_path / f"cache-{os.getuid()}"
    assert done.stdout.split() == [str(place), str(place / "ser_jax")]
