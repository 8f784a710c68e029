"""A JAX without one of its private names: what falls back."""

import sys

import jax.numpy as jnp
import pytest

from ser_jax.machine import jax_private
from ser_jax.machine.jax_private import has_started, reset_compile_cache

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
    assert jax_private._find(CACHE, "reset_cache") is not None


def test_whether_jax_has_started_is_unknown_without_its_name(hide):
    hide("jax._src.xla_bridge", "backends_are_initialized")
    assert not has_started()


def test_cache_is_left_as_it_is_without_its_name(hide):
    hide(CACHE)
    reset_compile_cache()
