"""A JAX without one of its private names: what falls back, and what says so in one line."""

import sys

import jax.numpy as jnp
import pytest

from ser_jax.config import ParallelConfig
from ser_jax.errors import UserError
from ser_jax.machine import jax_private
from ser_jax.machine.jax_private import detect_processes, has_started, reset_compile_cache
from ser_jax.multihost.processes import find_place

SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node003", "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
}  # fmt: skip
CLUSTERS = "jax._src.clusters"
CACHE = "jax.experimental.compilation_cache.compilation_cache"


@pytest.fixture
def hide(monkeypatch):
    """Take a module of JAX away, or one name of it."""

    def hide(module: str, name: str | None = None) -> None:
        if name is None:
            monkeypatch.setitem(sys.modules, module, None)
        else:
            monkeypatch.delattr(f"{module}.{name}")

    return hide


def test_each_name_is_there_in_this_jax():
    jnp.zeros(1).block_until_ready()
    assert has_started()
    assert jax_private._find(CLUSTERS, "ClusterEnv") is not None
    assert jax_private._find(CACHE, "reset_cache") is not None


def test_whether_jax_has_started_is_unknown_without_its_name(hide):
    hide("jax._src.xla_bridge", "backends_are_initialized")
    assert not has_started()


def test_cache_is_left_as_it_is_without_its_name(hide):
    hide(CACHE)
    reset_compile_cache()


@pytest.fixture(params=["no module", "no class", "no method", "other arguments"])
def other_detection(request, hide, monkeypatch):
    match request.param:
        case "no module":
            hide(CLUSTERS)
        case "no class":
            hide(CLUSTERS, "ClusterEnv")
        case "no method":
            hide(f"{CLUSTERS}.ClusterEnv", "auto_detect_unset_distributed_params")
        case _:
            name = f"{CLUSTERS}.ClusterEnv.auto_detect_unset_distributed_params"
            monkeypatch.setattr(name, lambda: None)


@pytest.mark.usefixtures("other_detection")
def test_without_detection_the_keys_to_give_are_named(monkeypatch):
    for key, value in SLURM.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match=r"^parallel\.coordinator=None: JAX .* give parallel\.coo"):
        find_place(ParallelConfig())


@pytest.mark.usefixtures("other_detection")
def test_without_detection_what_is_given_by_hand_holds(monkeypatch):
    assert detect_processes("a:1", 4, 3, timeout_s=1) == ("a:1", 4, 3, None)
    expected = find_place_on_slurm(monkeypatch)
    assert expected == (("a", 1), 4, 3, [1], "parallel.num_processes=4")


def test_detection_by_jax_leaves_what_is_given_by_hand_too(monkeypatch):
    assert find_place_on_slurm(monkeypatch) == (("a", 1), 4, 3, [1], "parallel.num_processes=4")


def find_place_on_slurm(monkeypatch):
    for key, value in SLURM.items():
        monkeypatch.setenv(key, value)
    return find_place(ParallelConfig(coordinator="a:1", num_processes=4, process_id=3))
