"""What all tests share: where they compute, strict numerics, real recordings where at hand."""

import gc
import os
import resource
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.heap import trim_heap

PLATFORM = os.environ.setdefault("SER_JAX_TEST_PLATFORM", "cpu")

SETTINGS: dict[str, Any] = {"jax_platforms": "cpu"}
if PLATFORM != "cpu":
    SETTINGS = {
        "jax_platforms": f"{PLATFORM},cpu",  # a device that is missing is an error
        # Products and convolutions in float32: by default a GPU has TF32, a TPU bfloat16.
        "jax_default_matmul_precision": "highest",
    }
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # tests start processes
elif "SER_JAX_TEST_OPTIMISED" not in os.environ:
    # Most programs here are small and run once: half of the time went into optimising them.
    SETTINGS["jax_disable_most_optimizations"] = True
    if jax.__version_info__ < (0, 11):  # XLA aborts at a flag that it no longer knows
        quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
for _key, _value in SETTINGS.items():
    jax.config.update(_key, _value)
    os.environ[_key.upper()] = str(_value)  # for those processes
jax.config.update("jax_numpy_rank_promotion", "raise")
os.environ.setdefault("MPLBACKEND", "Agg")


CACHES = {
    "ser_jax.systems.build": ["_build_cached"],
    "ser_jax.features.corpus_features": ["_load_inputs"],
}


LARGE_BYTES, HUGE_BYTES = 1.5 * 2**30, 2.2 * 2**30
"""Memory of a worker above which compiled programs are dropped: after a file, and within one."""
GROWTH_BYTES = 2**29
"""How far it must have grown since they were last dropped: much of it is none of theirs, and a
worker that stays large would compile everything again for every test."""
LEFT = pytest.StashKey[int]()
"""Memory once they were dropped."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on a device what says something of a CPU alone."""
    for item in items:
        if mark := item.get_closest_marker("cpu_only"):
            (reason,) = mark.args
            if PLATFORM != "cpu":
                item.add_marker(pytest.mark.skip(reason=f"CPU only: {reason}"))


def _forget_programs() -> None:
    jax.clear_caches()
    for module, names in CACHES.items():
        for name in names if module in sys.modules else ():
            getattr(sys.modules[module], name).cache_clear()


@pytest.hookimpl(trylast=True)  # once the fixtures are torn down
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Drop what was compiled where this process has grown large."""
    ends_file = nextitem is None or nextitem.path != item.path
    left = item.config.stash.get(LEFT, 0)
    if _read_memory() > max(LARGE_BYTES if ends_file else HUGE_BYTES, left + GROWTH_BYTES):
        _forget_programs()
        gc.collect()
        trim_heap()
        item.config.stash[LEFT] = _read_memory()


def _read_memory() -> int:
    """Resident bytes of this process; 0 where they are not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no Linux
        return 0
    return pages * resource.getpagesize()


@pytest.fixture(scope="session")
def ravdess_root() -> Path:
    """The real recordings: $SER_JAX_RAVDESS, or a folder beside the checkout; else skip."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "ravdess"
    root = Path(os.environ.get("SER_JAX_RAVDESS", beside))
    if not root.is_dir():
        pytest.skip("no RAVDESS recordings; set SER_JAX_RAVDESS to their folder")
    return root
