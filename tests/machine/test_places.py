"""A run's folders: ~ in every path, another working directory, one process at a time in each."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ser_jax.api import ablate, train
from ser_jax.cli.commands import main
from ser_jax.config import (
    AblationConfig,
    Config,
    DataConfig,
    ParallelConfig,
    PretrainConfig,
    UnlabelledConfig,
    compute_identity,
    override,
)
from ser_jax.errors import UserError
from ser_jax.files.atomic import held
from ser_jax.grid.cells import list_cells
from ser_jax.run.run_dir import load_run_config, open_run_dir
from tests.tiny import make_config, make_keys, make_options

UNLABELLED = UnlabelledConfig(root="~/clips")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda path: Config(run_dir=path), "run_dir"),
        (lambda path: AblationConfig(out=path), "out"),
        (lambda path: DataConfig(root=path), "root"),
        (lambda path: DataConfig(store_dir=path), "store_dir"),
        (lambda path: ParallelConfig(cache_dir=path), "cache_dir"),
        (lambda path: UnlabelledConfig(root=path), "root"),
        (lambda path: PretrainConfig(data=UNLABELLED, run_dir=path), "run_dir"),
    ],
)
def test_a_tilde_is_the_home_folder_in_every_path(home, make, key):
    assert getattr(make("~/x"), key) == f"{home}/x"


def test_a_tilde_is_the_home_folder_in_the_roots_of_joined_corpora(home):
    data = DataConfig(corpus="joined", roots={"savee": "~/savee", "emodb": "/emodb"})
    assert data.roots == {"savee": f"{home}/savee", "emodb": "/emodb"}


def test_a_tilde_without_a_home_is_refused_by_its_key(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UserError, match=r"run_dir=~/x: no home folder is known; set HOME"):
        Config(run_dir="~/x")


def test_a_command_reads_and_writes_below_the_home_folder(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    (home / "c.yaml").write_text("run_dir: ~/run\n")
    assert main(["train", "--config=~/c.yaml", *make_options({})]) == 0
    for command in (["evaluate", "~/run"], ["report", "~/run"]):
        assert main(command) == 0
    assert (home / "run" / "metrics.json").exists()
    assert not (home / "~").exists()


def test_a_configuration_finds_its_recordings_from_another_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(data=DataConfig(root="clips", store_dir="store"))
    open_run_dir(tmp_path / "run", config)
    monkeypatch.chdir("/")
    data = load_run_config(tmp_path / "run").data
    assert (data.root, data.store_dir) == (f"{tmp_path}/clips", f"{tmp_path}/store")
    tree = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert compute_identity(tree) == compute_identity(config)


HOLD = """if True:
    import sys
    from pathlib import Path
    from ser_jax.files.atomic import held
    with held(Path(sys.argv[1]), "wait"):
        print("held", flush=True)
        sys.stdin.read()
    """


@pytest.fixture
def other(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds tmp_path / 'run'."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_training_in_a_run_directory_is_told_who_is_at_work(tmp_path, other):
    config = make_config(tmp_path / "run")
    with pytest.raises(UserError, match=rf"run: is in use by pid {other.pid} on .*; wait until"):
        train(config, observe=lambda event: None)
    assert not (tmp_path / "run").exists()


def test_a_grid_whose_cell_is_being_trained_is_told_who_is_at_work(tmp_path):
    changes = {
        "systems": {"lstm": {}}, "protocols": ("study",), "seeds": (0, 1), "batching": "vmap",
        "out": str(tmp_path / "grid"),
    }  # fmt: skip
    keys = {key: value for key, value in make_keys({}).items() if key != "seed"}
    grid = override(AblationConfig(), keys | changes)
    cell = list_cells(grid)[1].run_dir
    with held(cell, "wait"), pytest.raises(UserError, match=rf"{cell.name}: is in use by pid"):
        ablate(grid)
    assert {cell["status"] for cell in ablate(grid)["cells"]} == {"done"}


def test_a_finished_run_is_read_while_another_process_holds_it(tmp_path, other):
    config = make_config(tmp_path / "elsewhere")
    before = train(config, observe=lambda event: None)
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "run")
    config = dataclasses.replace(config, run_dir=str(tmp_path / "run"))
    assert train(config, observe=lambda event: None) == before


def test_a_killed_process_holds_nothing(tmp_path, other):
    other.kill()
    other.wait(60)
    with held(tmp_path / "run", "wait"):
        pass
    assert os.listdir(tmp_path) == []


def test_shares_of_a_folder_are_held_side_by_side(tmp_path):
    folder = tmp_path / "out"
    with (
        held(folder, "wait", "0"),
        held(folder, "wait", "1"),
        pytest.raises(UserError, match="out: is in use by"),
        held(folder, "wait", "1"),
    ):
        pass


def test_a_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    with held(tmp_path / "run", "wait"), held(tmp_path / "run", "wait"):
        pass
