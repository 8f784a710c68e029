"""What all tests share: the CPU, strict numerics, the real recordings where they are at hand."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def compile_quickly() -> Iterator[None]:
    """Compile with hardly any optimisation, which suits small programs that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # others compile the same functions with optimisation


@pytest.fixture(scope="session")
def ravdess_root() -> Path:
    """The real recordings: $SER_JAX_RAVDESS, or a folder beside the checkout; else skip."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "ravdess"
    root = Path(os.environ.get("SER_JAX_RAVDESS", beside))
    if not root.is_dir():
        pytest.skip("no RAVDESS recordings; set SER_JAX_RAVDESS to their folder")
    return root
