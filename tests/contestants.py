"""Contestants that only write down that they had a turn; light, since processes import them."""

import os
import time

from benchmarks.worker import Job


def make_sleeper(log, name, fails_at=None, sleep_s=0.0, loss=2.0):
    """A contestant that appends its name to the file `log`; its first turn takes `sleep_s`."""
    calls = []

    def turn():
        calls.append(name)
        if len(calls) == 1:
            time.sleep(sleep_s)
        with open(log, "a") as file:
            file.write(name)
        if len(calls) == fails_at:
            raise RuntimeError("no compiler\nmore of it")

    return Job(turn, lambda: {"process": os.getpid(), "loss": loss})


def make_waiter(folder, name, others):
    """A contestant whose first turn ends when those of `others` have begun."""

    def turn():
        (folder / name).touch()
        while not all((folder / other).exists() for other in others):
            time.sleep(0.01)

    return Job(turn)


def find_package(name):
    """Where a package comes from, here and in a process started from here."""
    import importlib
    import subprocess
    import sys

    code = f"import {name}; print({name}.__file__)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return importlib.import_module(name).__file__, child.stdout.strip()
