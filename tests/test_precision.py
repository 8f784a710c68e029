"""A process in which JAX has 64-bit types trains and predicts the same bits."""

from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from ser_jax.ablation import ablate
from ser_jax.config import AblationConfig, override
from ser_jax.inference import evaluate, predict
from ser_jax.precision import in_32_bits
from ser_jax.run import train
from tests.tiny import Child, make_config, make_keys, read_run

AUGMENTED = {"augment.enabled": True, "augment.p": 1.0, "model.name": "cnn_lstm"}


def work(folder: Path, x64: bool) -> int:
    """Train, train together, evaluate and predict, with JAX' default types as given."""
    jax.config.update("jax_enable_x64", x64)
    train(make_config(folder / "run", AUGMENTED), observe=lambda event: None)
    grid = {"systems": {"a": {}}, "seeds": (0, 1), "batching": "vmap", "out": str(folder / "grid")}
    ablate(override(AblationConfig(), make_keys(grid | {"augment.enabled": True})))
    evaluate(folder / "run")
    soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 20), 16000)
    print(predict(folder / "run", [folder / "a.wav"])[0].probabilities)
    return 0 if jax.config.values["jax_enable_x64"] == x64 else 1


@pytest.mark.slow
def test_64_bit_types_of_the_caller_change_nothing(tmp_path):
    outputs = []
    for name in ("plain", "x64"):
        (tmp_path / name).mkdir()
        status, output = Child(work, tmp_path / name, name == "x64").wait(300)
        assert status == 0, output
        outputs.append(output.splitlines()[-1])
    assert outputs[0] == outputs[1]
    for run in ("run", "grid/cells/a-study-1-0", "grid/cells/a-study-1-1"):
        assert read_run(tmp_path / "x64" / run) == read_run(tmp_path / "plain" / run)


def test_the_callers_types_are_back_after_an_error():
    @in_32_bits
    def fail() -> None:
        raise ValueError(jax.numpy.zeros(1).dtype.name)

    with jax.enable_x64(True):
        with pytest.raises(ValueError, match="float32"):
            fail()
        assert jax.numpy.zeros(1).dtype.name == "float64"
