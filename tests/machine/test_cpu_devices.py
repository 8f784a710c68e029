"""Each core is a device where batches are large enough to be shared out."""

import json
import os
import sys

import jax
import pytest

from ser_jax.config import ParallelConfig
from ser_jax.machine.cpu_devices import use_all_cores
from tests.new_process import run_in_new_process

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the cores")


def tell_devices(mode: str, batch_size: str) -> None:
    """How many CPU devices there are after a batch was shared out to the cores."""
    os.sched_getaffinity = lambda _: set(range(4))  # pyright: ignore
    parallel = ParallelConfig(mode=mode)  # pyright: ignore
    asked = use_all_cores(parallel, int(batch_size))
    print(json.dumps({"asked": asked, "found": len(jax.devices())}))


@pytest.mark.cpu_only("counts CPU cores as devices")
@linux
@pytest.mark.parametrize(
    ("mode", "batch_size", "flags", "expected"),
    [
        ("auto", 64, "", (4, 4)),
        ("mesh", 32, "", (2, 2)),
        ("auto", 31, "", (1, 1)),
        ("jit", 64, "", (1, 1)),
        ("auto", 64, "--xla_force_host_platform_device_count=3", (1, 3)),
    ],
)
def test_a_batch_is_shared_out_to_the_cores_unless_told_otherwise(
    mode, batch_size, flags, expected
):
    found = run_in_new_process(tell_devices, mode, str(batch_size), XLA_FLAGS=flags)
    assert (found["asked"], found["found"]) == expected
