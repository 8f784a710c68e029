"""Contestants that only write down that they had a turn; light, since processes import them."""

import os

from benchmarks.worker import Job


def make_sleeper(log, name, fails_at=None):
    """A contestant that appends its name to the file `log`."""
    calls = []

    def turn():
        calls.append(name)
        with open(log, "a") as file:
            file.write(name)
        if len(calls) == fails_at:
            raise RuntimeError("no compiler\nmore of it")

    return Job(turn, lambda: {"process": os.getpid(), "loss": 2.0})
