"""A run so small that tests can train it many times over, and processes to train it in."""

import atexit
import functools
import json
import multiprocessing
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ser_jax.config import Config, override
from ser_jax.run.events import load_events
from ser_jax.run.run_dir import load_run_config
from ser_jax.systems.build import build
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.state import init_state, list_numbers

KEYS: dict[str, Any] = {
    "data.corpus": "synthetic", "data.synthetic_actors": 4, "data.synthetic_clips": 16,
    "data.clip_s": 1.0, "features.n_fft": 1024, "features.hop_length": 1024,
    "features.n_mels": 16, "features.n_mfcc": 8, "model.name": "lstm", "model.channels": (4, 4),
    "model.hidden": 8, "model.dense": (8,), "train.batch_size": 16, "train.epochs": 2,
}  # fmt: skip
"""64 clips of 16 frames: an epoch takes some hundredths of a second."""


@functools.cache
def make_folder(name: str) -> str:
    """A folder that lasts as long as the tests."""
    folder = tempfile.mkdtemp(prefix=f"ser_jax-{name}-")
    atexit.register(shutil.rmtree, folder, True)
    return folder


def make_keys(changes: dict[str, Any]) -> dict[str, Any]:
    folders = {"data.store_dir": "store", "parallel.cache_dir": "compiled"}
    return KEYS | {key: make_folder(name) for key, name in folders.items()} | changes


def make_config(run_dir: Path | None, changes: dict[str, Any] | None = None) -> Config:
    keys = make_keys(changes or {})
    return override(Config(), keys | {"run_dir": None if run_dir is None else str(run_dir)})


def make_options(changes: dict[str, Any]) -> list[str]:
    """The same settings on a command line."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in make_keys(changes).items()}
    return [f"--{key}={value}" for key, value in values.items()]


# What a run leaves, for comparison to the bit.


def read_run(run_dir: Path) -> dict[str, Any]:
    """All that a run wrote, but for wall times and where it ran."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    where = ("seconds", "device", "versions")
    epochs = sorted(int(path.name) for path in (run_dir / "checkpoints").iterdir())
    return {
        "metrics": {key: value for key, value in metrics.items() if key not in where},
        "events": drop_seconds(load_events(run_dir)),
        "scalars": read_scalars(run_dir / "tensorboard"),
        "predictions": (run_dir / "predictions.csv").read_text(),
        "states": {epoch: read_state(run_dir, epoch) for epoch in epochs},
    }


def drop_seconds(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k != "seconds"} for event in events]


def read_scalars(folder: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) in the order of the one file of TensorBoard records."""
    from tensorboardX.proto import event_pb2

    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = event_pb2.Event.FromString(data[12 : 12 + size])  # pyright: ignore
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        data = data[16 + size :]
    return [scalar for scalar in found if scalar[1] != "seconds"]


def read_state(run_dir: Path, epoch: int) -> list[bytes]:
    """The arrays of a checkpoint, as bytes."""
    config = load_run_config(run_dir)
    checkpoints = Checkpoints(run_dir / "checkpoints", read_only=True)
    state = checkpoints.load_state(epoch, make_template(config))
    checkpoints.close()
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(plain(state))]


def plain(state: Any) -> Any:
    """The state with its typed key as numbers."""
    return state.replace(key=jax.random.key_data(state.key))


def make_template(config: Config, n_frames: int = 16) -> Any:
    """Shapes and types of the state of a tiny run."""
    model, tx, _ = build(config.model, config.train, 8, n_steps=1)
    n_features = config.features.n_mfcc
    dropout = config.model.dropout
    return jax.eval_shape(
        lambda: init_state(
            model,
            tx,
            seed=0,
            n_frames=n_frames,
            n_features=n_features,
            dropout=dropout,
            numbers=list_numbers(config.train, config.augment),
        )
    )


# Processes. A forkserver that has imported everything starts one in some milliseconds.

_HEAVY = [
    "orbax.checkpoint", "librosa", "librosa.filters", "tensorflow_datasets",
    "sklearn.metrics", "sklearn.model_selection", "matplotlib.figure", "audiomentations",
    "ser_jax.data.store", "ser_jax.grid.ablate", "ser_jax.cli.commands",
]  # fmt: skip


@functools.cache
def _get_context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_HEAVY)
    return context


class Child:
    """A process group that runs `function(*arguments)`; its exit status and what it printed."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        context = _get_context()
        self._reader, writer = context.Pipe(duplex=False)
        cache = make_folder("compiled")
        self.process = context.Process(target=_run, args=(writer, cache, function, arguments))
        self.process.start()
        writer.close()
        self.pid: int = self.process.pid

    def wait(self, timeout_s: float = 120) -> tuple[int, str]:
        """Exit status and output, once it and all processes that it started are gone."""
        self.process.join(timeout_s)
        assert self.process.exitcode is not None, "still running"
        wait_until(lambda: not list_group(self.pid), "processes are left")
        chunks = []
        while chunk := os.read(self._reader.fileno(), 65536):
            chunks.append(chunk)
        return self.process.exitcode, b"".join(chunks).decode()


def _run(writer: Any, cache: str, function: Callable[..., Any], arguments: tuple) -> None:
    os.setsid()
    os.dup2(writer.fileno(), 1)
    os.dup2(writer.fileno(), 2)
    for key, value in list_cache_settings(cache).items():
        jax.config.update(key.lower(), value)
        os.environ[key] = str(value)
    sys.exit(function(*arguments))


def list_cache_settings(cache: str) -> dict[str, Any]:
    """JAX' settings to compile a program once for all processes."""
    return {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0,
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
    }


def run_command(*argv: str) -> int:
    """The command line, in a child."""
    from ser_jax.cli.commands import main

    return main(list(argv))


def start_command(*argv: str) -> subprocess.Popen:
    """The command line as a user starts it, a new interpreter in a process group of its own."""
    settings = {k: str(v) for k, v in list_cache_settings(make_folder("compiled")).items()}
    return subprocess.Popen(
        [sys.executable, "-m", "ser_jax", *argv], env=os.environ | settings, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def drop_progress(errors: str) -> list[str]:
    """Lines of standard error but those that say, every ten seconds, how far it is."""
    return [x for x in errors.splitlines() if x and not re.search(r": \d+/\d+ \w+(, .*)?$", x)]


def list_group(group: int) -> list[int]:
    """The living processes of a process group, by Linux' /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # gone meanwhile
            continue
        if int(pgrp) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def wait_until(
    condition: Callable[[], Any], what: str, timeout_s: float = 60, *, pause_s: float = 0.01
) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, what
        time.sleep(pause_s)


def count_events(run_dir: Path) -> int:
    path = run_dir / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
