"""What a run is built of: how batches are taken, the forms of its network."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import pytest

from ser_jax.config import (
    AugmentConfig,
    BackboneConfig,
    FeaturesConfig,
    ModelConfig,
    TrainConfig,
)
from ser_jax.errors import UserError
from ser_jax.machine import accelerator
from ser_jax.systems import build
from ser_jax.wav2vec2.architecture import Architecture, BackboneSpec


@pytest.mark.cpu_only("is about a CPU")
def test_a_jaxlib_that_deadlocks_in_ffts_augments_on_no_cpu(monkeypatch):
    monkeypatch.setattr(build, "version", lambda package: "0.11.2")
    augment = AugmentConfig(enabled=True)
    with pytest.raises(UserError, match=r"^augment\.enabled=true: jaxlib 0\.11\.2 waits .*-U jax"):
        build.choose_take(augment, FeaturesConfig(), 16000)
    build.choose_take(dataclasses.replace(augment, backend="host"), FeaturesConfig(), 16000)
    monkeypatch.setattr(build, "on_accelerator", lambda: True)
    build.choose_take(augment, FeaturesConfig(), 16000)


def test_an_nvidia_gpu_has_forms_of_its_own(monkeypatch):
    monkeypatch.setattr(build, "has_cuda", lambda: False)
    assert build.choose_forms() == ("fast", "fast")
    monkeypatch.setattr(build, "has_cuda", lambda: True)
    assert build.choose_forms() == ("rows", "unrolled")


@pytest.mark.parametrize("changes", [{"path": "other"}, {"pretrained": False}, {"cache": False}])
def test_programs_do_not_depend_on_where_weights_are_from_and_whether_outputs_are_kept(changes):
    start: dict[str, Any] = {"path": "one"}
    built = []
    for settings in (start, start | changes):
        spec = BackboneSpec(Architecture(), BackboneConfig(**settings))
        built.append(build.build(ModelConfig(name="wav2vec2"), TrainConfig(), 8, spec=spec))
    assert built[0] is built[1]


SEARCHES = {"xla_gpu_enable_triton_gemm", "xla_gpu_experimental_enable_fusion_autotuner"}


def test_xla_searches_no_kernels_on_an_nvidia_gpu(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(accelerator, "has_cuda", lambda: False)
    assert accelerator.choose_compiler_options() == {}
    monkeypatch.setattr(accelerator, "has_cuda", lambda: True)
    assert accelerator.choose_compiler_options() == dict.fromkeys(SEARCHES, False)


def test_every_search_that_is_switched_off_is_known_to_this_jaxlib(monkeypatch):
    """XLA refuses names that it does not know, those of GPUs on a CPU too."""
    monkeypatch.setattr(accelerator, "has_cuda", lambda: True)
    assert accelerator.jit(lambda x: x + 1)(jnp.ones(3)).tolist() == [2, 2, 2]


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_a_search_that_xla_flags_names_is_the_users(name, monkeypatch):
    monkeypatch.setattr(accelerator, "has_cuda", lambda: True)
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=/nowhere --{name}_too=1 --{name}=true")
    assert set(accelerator.choose_compiler_options()) == SEARCHES - {name}
