"""A function of a test file, called in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def simulate_devices(n_devices: int) -> dict[str, str]:
    """The environment of a process with so many CPU devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def run_in_new_process(
    function: Callable[..., None], *arguments: str, **environment: str
) -> dict[str, Any]:
    """What `function`, of a file in tests/machine, prints as JSON."""
    module = f"tests.machine.{function.__module__.rpartition('.')[2]}"
    call = f"import sys, {module} as t; t.{function.__name__}(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", call, *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
