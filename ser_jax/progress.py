"""Progress bars on standard error, or plain lines where it is not a terminal."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

_PLAIN_INTERVAL_S = 10.0
_silent = False


def be_silent() -> None:
    """Show nothing from now on, since another process of the same run does."""
    global _silent
    _silent = True


class Advance(Protocol):
    """Report progress.

    Args:
      n: number of units that are newly done.
      note: position within a unit, such as `step 3/45`.
      earlier: these units were done before this job began, so they do not count for its speed.
    """

    def __call__(self, n: float = 1, /, note: str = "", *, earlier: bool = False) -> None: ...


def _say_nothing(n: float = 1, /, note: str = "", *, earlier: bool = False) -> None:
    del n, note, earlier


@contextlib.contextmanager
def progress(description: str, total: int, unit: str = "") -> Iterator[Advance]:
    """Show the progress of a long job and the time left; yields an `Advance`.

    On a terminal this is a bar; elsewhere (a log file, CI) a line every ten seconds, so that short
    jobs stay silent.
    """
    if _silent:
        yield _say_nothing
    elif sys.stderr.isatty():
        with _bar(description, total, unit) as advance:
            yield advance
    else:
        yield _make_lines(description, total, unit)


@contextlib.contextmanager
def _bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TextColumn("left:"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, note="")
        done = 0.0

        def advance(n: float = 1, /, note: str = "", *, earlier: bool = False) -> None:
            nonlocal done
            done += n
            if earlier:
                bar.reset(task)
            bar.update(task, completed=done, note=note)

        yield advance


def _make_lines(description: str, total: int, unit: str) -> Advance:
    done, before = 0.0, 0.0
    start_s = shown_s = time.monotonic()

    def advance(n: float = 1, /, note: str = "", *, earlier: bool = False) -> None:
        nonlocal done, before, shown_s
        done += n
        before += n if earlier else 0
        now_s = time.monotonic()
        if now_s - shown_s <= _PLAIN_INTERVAL_S:
            return
        shown_s = now_s
        parts = [f"{description}: {int(done + 1e-9)}/{total} {unit}".rstrip(), note]
        if before < done < total:
            left_s = (now_s - start_s) * max(total - done, 0) / (done - before)
            parts.append(f"about {_format_time(left_s)} left")
        print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)

    return advance


def _format_time(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
