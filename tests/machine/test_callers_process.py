"""What is called from Python leaves its caller's process as it was, after an error as well."""

import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import ser_jax
from ser_jax.config import AblationConfig, override
from ser_jax.machine import allocator
from tests.tiny import make_config, make_keys

CALLS = ["train", "fail", "diverge", "ablate", "evaluate", "predict"]


def take_stock() -> dict[str, Any]:
    """What a process has one of."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {
        "jax.config": dict(jax.config.values),
        "environment": dict(os.environ),
        "signal handlers": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "logging": [
            (each.name, each.level, each.disabled, each.propagate, *each.handlers, *each.filters)
            for each in loggers if isinstance(each, logging.Logger)
        ],
        "logging.disable": logging.root.manager.disable,
        "warnings": (list(warnings.filters), warnings.showwarning),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook),
        "random": random.getstate(),
        "numpy.random": repr(np.random.get_state(legacy=False)),
        "numpy": (np.geterr(), np.get_printoptions()),
        "folder": os.getcwd(),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "streams": (sys.stdout, sys.stderr),
        "cores": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        "allocator": allocator._tuned,
    }  # fmt: skip


def call(name: str, folder: Path) -> None:
    run_dir, keys = folder / "run", {"parallel.cache_dir": str(folder / "compiled")}
    if name == "train":
        ser_jax.train(make_config(run_dir, keys))
    elif name == "fail":
        with pytest.raises(ser_jax.UserError, match="another run"):
            ser_jax.train(make_config(run_dir, keys | {"seed": 1}))
    elif name == "diverge":
        with pytest.raises(ser_jax.UserError, match="loss"):
            ser_jax.train(make_config(folder / "nan", keys | {"train.learning_rate": 1e30}))
    elif name == "ablate":
        grid = {"systems": {"a": {}}, "seeds": (0, 1), "batching": "vmap"}
        keys = make_keys(keys | grid | {"out": str(folder / "grid")})
        ser_jax.ablate(override(AblationConfig(), keys))
    elif name == "evaluate":
        ser_jax.evaluate(run_dir)
    elif name == "predict":
        import soundfile

        soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 20), 16000)
        ser_jax.predict(run_dir, [folder / "a.wav"])


def watch_calls(folder: Path) -> dict[str, list[str]]:
    """What each call leaves changed, and whether it kept compiled programs."""
    # What libraries do to a process as they are imported is their own.
    import librosa.filters
    import matplotlib.figure
    import orbax.checkpoint
    import sklearn.metrics
    import sklearn.model_selection
    import tensorflow_datasets

    del librosa, matplotlib, orbax, sklearn, tensorflow_datasets
    found = {}
    for name in CALLS:
        before = take_stock()
        call(name, folder)
        after = take_stock()
        names = {logger[0] for logger in before["logging"]}
        after["logging"] = [logger for logger in after["logging"] if logger[0] in names]
        found[name] = [what for what, value in before.items() if value != after[what]]
        for what in found[name]:
            print(name, what, before[what], after[what], sep="\n", file=sys.stderr)
    found["kept"] = [path.name for path in (folder / "compiled").rglob("*-cache")][:1]
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[str]]:
    """In a process of its own, since pytest sets such things itself."""
    folder = tmp_path_factory.mktemp("calls")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.machine.test_callers_process", folder], env=environ,
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CALLS)
def test_a_call_changes_nothing_of_its_callers_process(found, name):
    assert found[name] == [], found


def test_a_call_keeps_compiled_programs_all_the_same(found):
    assert found["kept"]


if __name__ == "__main__":
    print(json.dumps(watch_calls(Path(sys.argv[1]))))
