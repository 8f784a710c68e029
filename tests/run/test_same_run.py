"""A run ends with the same bits by `train` and as a cell of a grid on CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ser_jax.machine.cores import count_cores
from tests.tiny import make_keys, make_options, read_run

SYSTEMS = {"lstm": {}, "cnn_lstm": {"model.name": "cnn_lstm"}, "large": {"train.batch_size": 64}}
"""A batch of 64 may have more devices than one of 32 on a machine of four cores."""
SHARED = {"train.batch_size": 32}


def run_alone(*argv: str) -> None:
    """A command as users run it: compiled with optimisation, CPU devices by its own choice."""
    done = subprocess.run(
        [sys.executable, "-m", "ser_jax", *argv], capture_output=True, text=True, check=False,
        env=os.environ | {
            "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "false", "JAX_PLATFORMS": "cpu",
        }, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The three systems, each by a command of its own."""
    folder = tmp_path_factory.mktemp("alone")
    for name, changes in SYSTEMS.items():
        options = make_options(SHARED | {"seed": 3} | changes)
        run_alone("train", *options, "--run_dir", str(folder / name))
    return folder


@pytest.mark.cpu_only("counts CPU cores as devices")
@pytest.mark.skipif(count_cores() < 2, reason="one core is one device, alone and in a grid")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--workers", "1"], SYSTEMS),
        (["--workers", "2"], SYSTEMS),
        (["--only", '["lstm-*"]'], ["lstm"]),  # one alone, which needs but one worker
    ],
)
def test_a_cell_of_a_grid_has_the_bits_of_the_run_alone(options, names, alone, tmp_path):
    keys = {k: list(v) if isinstance(v, tuple) else v for k, v in make_keys(SHARED).items()}
    grid = keys | {"systems": SYSTEMS, "seeds": [3], "out": str(tmp_path / "grid")}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    run_alone("ablate", "--config", str(tmp_path / "grid.yaml"), *options)
    for name in names:
        cell = tmp_path / "grid" / "cells" / f"{name}-study-1-3"
        assert read_run(cell) == read_run(alone / name)
