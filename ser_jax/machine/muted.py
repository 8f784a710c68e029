"""What orbax' and tensorstore's threads print of errors that this process is told of anyway."""

import functools
import inspect
import logging
import sys
import traceback
import warnings
from typing import Any

_THREADS = ("orbax", "tensorstore", "array_serialization")
"""In the paths of the files whose threads are muted."""


@functools.cache
def mute_threads() -> None:
    """Let orbax' and tensorstore's threads print no tracebacks.

    When a write or a read fails, this process is told by an exception. The others that were going
    on at the same time find their event loop closed, or are never begun, and would tell the user as
    well. What other code of this process logs is left alone.
    """
    warnings.filterwarnings("ignore", r"coroutine '.*' was never awaited", RuntimeWarning)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_others)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        frames = traceback.walk_tb(unraisable.exc_traceback)
        codes = [frame.f_code for frame, _ in frames]
        if inspect.iscoroutine(unraisable.object):
            codes.append(unraisable.object.cr_code)
        ours = (*_THREADS, "asyncio")
        if not any(name in code.co_filename for code in codes for name in ours):
            before(unraisable)

    sys.unraisablehook = hook


def _is_others(record: logging.LogRecord) -> bool:
    """Whether a log's line comes neither from these libraries nor of an error in them."""
    trace = record.exc_info[2] if record.exc_info else None
    paths = [record.pathname, *(frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace))]
    paths.append(record.getMessage() if record.name == "asyncio" else "")  # names coroutines
    return not any(name in path for path in paths for name in _THREADS)
