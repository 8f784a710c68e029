"""Page faults of large blocks; light, since a process of its own imports it."""

import json
import resource

import numpy as np

from ser_jax.machine.allocator import tune_allocator


def touch_blocks(tuned: str) -> None:
    """Page faults of 20 rounds of four 8 MB blocks, after the first rounds."""
    done = tune_allocator() if tuned == "tuned" else False
    for number in range(24):
        if number == 4:
            before = resource.getrusage(resource.RUSAGE_SELF)
        blocks = [np.ones(1 << 20) for _ in range(4)]
        del blocks
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({
        "done": done, "faults": after.ru_minflt - before.ru_minflt, "mb": after.ru_maxrss / 1024
    }))  # fmt: skip
