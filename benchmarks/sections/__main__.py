"""One section, as `gpu.py` starts it: python -m benchmarks.sections NAME CONTEXT."""

import importlib
import os
import signal
import sys
import threading

from benchmarks.sections.context import Context


def end_with_parent() -> None:
    """Kill the whole group when the orchestrator, at the other end of stdin, is gone."""
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def stop(signum: int, frame: object) -> None:
    """Leave by an exception, so that a section can still write what it knows."""
    del frame
    sys.exit(128 + signum)


def main() -> None:
    """Run the section."""
    module, text = sys.argv[1:]
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=end_with_parent, daemon=True).start()
    importlib.import_module(module).measure(Context.loads(text))


if __name__ == "__main__":
    main()
