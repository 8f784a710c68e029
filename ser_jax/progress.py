"""Progress bars on standard error; plain lines where it is no terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_PLAIN_INTERVAL_S = 10.0
_silent = False


def be_silent() -> None:
    """Show nothing from now on, where another process of the same run does."""
    global _silent
    _silent = True


@contextlib.contextmanager
def progress(description: str, total: int, unit: str = "") -> Iterator[Callable[[float], None]]:
    """Show how far a long job is; yields `advance(n)`.

    On a terminal this is a bar. Elsewhere (a log file, CI) it is a line every ten seconds, so that
    short jobs stay silent.
    """
    if _silent:
        yield lambda n=1: None
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn(unit), TimeElapsedColumn(),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda n=1: bar.advance(task, n)
        return
    done, shown_s = 0.0, time.monotonic()

    def advance(n: float = 1) -> None:
        nonlocal done, shown_s
        done += n
        if time.monotonic() - shown_s > _PLAIN_INTERVAL_S:
            shown_s = time.monotonic()
            print(f"{description}: {done:.0f}/{total} {unit}".rstrip(), file=sys.stderr, flush=True)

    yield advance
