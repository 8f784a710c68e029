"""Right: what the device computes against the CPU in one process, each check a row.

References are computed on the CPU, in float32, by the plainest form there is; in a dry run the
device is the CPU too, and only the forms differ.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from benchmarks.sections.context import Context

NAME = "right"


def measure(context: Context) -> None:
    """All checks, several at a time: most of each is compiling."""
    if not context.dry:
        os.environ["JAX_PLATFORMS"] = "cuda,cpu"
        # Tuning takes turns on the device, some two minutes for all these programs. What tuned
        # programs compute is checked where they are timed: their loss must be float32's.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
    from benchmarks.sections.right import augmentation, features, networks, programs
    from benchmarks.sections.right.checks import find_places, run_checks

    places = find_places(context.dry)
    groups = [
        group
        for module in (features, augmentation, networks, programs)
        for group in module.list_checks(places)
    ]
    lock = threading.Lock()

    def put(row: dict) -> None:
        with lock:
            print(f"{row['case']}: {row['status']} {row.get('error')} {row.get('reason') or ''}")
            context.put({"benchmark": NAME, **row})

    with ThreadPoolExecutor(2 if context.dry else 24) as pool:
        list(pool.map(lambda group: run_checks(group, put), groups))
