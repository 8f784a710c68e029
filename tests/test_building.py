"""What a run is built of: how batches are taken, the forms of its network."""

import dataclasses

import pytest

from ser_jax import building
from ser_jax.config import AugmentConfig, FeaturesConfig
from ser_jax.errors import UserError


@pytest.mark.cpu_only("is about a CPU")
def test_a_jaxlib_that_deadlocks_in_ffts_augments_on_no_cpu(monkeypatch):
    monkeypatch.setattr(building, "version", lambda package: "0.11.2")
    augment = AugmentConfig(enabled=True)
    with pytest.raises(UserError, match=r"^augment\.enabled=true: jaxlib 0\.11\.2 waits .*-U jax"):
        building.choose_take(augment, FeaturesConfig(), 16000)
    building.choose_take(dataclasses.replace(augment, backend="host"), FeaturesConfig(), 16000)
    monkeypatch.setattr(building, "on_accelerator", lambda: True)
    building.choose_take(augment, FeaturesConfig(), 16000)


def test_an_lstm_is_unrolled_on_an_nvidia_gpu_alone(monkeypatch):
    monkeypatch.setattr(building, "has_cuda", lambda: False)
    assert building.choose_forms().lstm == "fast"
    monkeypatch.setattr(building, "has_cuda", lambda: True)
    assert building.choose_forms().lstm == "unrolled"
