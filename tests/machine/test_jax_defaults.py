"""A process in which JAX has other settings trains and predicts the same bits."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile

from ser_jax.api import ablate, train
from ser_jax.config import AblationConfig, override
from ser_jax.inference.evaluate import evaluate
from ser_jax.inference.predict import predict
from ser_jax.machine.jax_defaults import with_jax_defaults
from tests.tiny import Child, drop_progress, make_config, make_keys, make_options, read_run

AUGMENTED = {"augment.enabled": True, "augment.p": 1.0, "model.name": "cnn_lstm"}


OTHER = {
    "jax_enable_x64": True, "jax_numpy_dtype_promotion": "strict",
    "jax_default_prng_impl": "unsafe_rbg", "jax_threefry_partitionable": False,
    "jax_transfer_guard": "disallow",
}  # fmt: skip


def work(folder: Path, settings: dict[str, Any]) -> int:
    """Train, train together, evaluate and predict, with JAX's settings as given."""
    for name, value in settings.items():
        jax.config.update(name, value)
    train(make_config(folder / "run", AUGMENTED), observe=lambda event: None)
    grid = {"systems": {"a": {}}, "seeds": (0, 1), "batching": "vmap", "out": str(folder / "grid")}
    ablate(override(AblationConfig(), make_keys(grid | {"augment.enabled": True})))
    evaluate(folder / "run")
    soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 20), 16000)
    print(predict(folder / "run", [folder / "a.wav"])[0].probabilities)
    return 0 if settings.items() <= jax.config.values.items() else 1


@pytest.mark.slow
def test_settings_of_the_caller_change_nothing(tmp_path):
    outputs = []
    for name, settings in (("plain", {}), ("other", OTHER)):
        (tmp_path / name).mkdir()
        status, output = Child(work, tmp_path / name, settings).wait(300)
        assert status == 0, output
        outputs.append(output.splitlines()[-1])
    assert outputs[0] == outputs[1]
    for run in ("run", "grid/cells/a-study-1-0", "grid/cells/a-study-1-1"):
        assert read_run(tmp_path / "other" / run) == read_run(tmp_path / "plain" / run)


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line(tmp_path):
    options = [*make_options({}), f"--run_dir={tmp_path / 'run'}"]
    argv = [sys.executable, "-m", "ser_jax", "train", *options]
    env = os.environ | {"JAX_PLATFORMS": "nonsense"}
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    (line,) = drop_progress(ended.stderr)
    assert line.startswith("ser-jax: error: JAX_PLATFORMS=nonsense: no such device can be used (")
    assert line.endswith("; unset JAX_PLATFORMS, or install JAX for the device, such as by pip "
                         "install 'ser-jax[cuda]'")  # fmt: skip
    assert ended.returncode == 2
    assert not (tmp_path / "run").exists()


def test_an_error_that_no_device_is_to_blame_for_stays():
    @with_jax_defaults
    def fail() -> None:
        raise RuntimeError("another")

    with pytest.raises(RuntimeError, match="another"):
        fail()


def test_the_callers_types_are_back_after_an_error():
    @with_jax_defaults
    def fail() -> None:
        raise ValueError(jax.numpy.zeros(1).dtype.name)

    with jax.enable_x64(True):
        with pytest.raises(ValueError, match="float32"):
            fail()
        assert jax.numpy.zeros(1).dtype.name == "float64"
