"""The exception that means bad input, not a bug, and warnings to the user."""

import functools
import sys
import threading

SHOWN_WARNINGS = 10
"""Number of warnings of one kind that are printed; any others are only counted."""


class UserError(ValueError):
    """Bad input, described in one line: the key or file, its value, and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


def check(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def warn(message: str) -> None:
    """Print on standard error what the user should know but need not fix."""
    print(f"warning: {message}", file=sys.stderr)


@functools.cache
def warn_once(message: str) -> None:
    """`warn`, but only once per process, since a run lists its corpus several times."""
    warn(message)


class FewWarnings:
    """Warnings of one kind, each printed once, and of many only the first ten."""

    def __init__(self, before: str = "", after: str = ""):
        """
        Args:
          before: prefix of each warning.
          after: printed once instead of the eleventh; '': nothing.
        """
        self._before, self._after = before, after
        self._given: dict[str, None] = {}
        self._lock = threading.Lock()  # files are read by several threads

    def add(self, message: str) -> None:
        with self._lock:
            is_new = message not in self._given
            self._given[message] = None
            if is_new and len(self._given) <= SHOWN_WARNINGS:
                warn(self._before + message)
            elif is_new and self._after and self.n_unsaid == 1:
                warn(self._after)

    @property
    def first(self) -> str:
        """The first warning, without the prefix; '' if there is none."""
        return next(iter(self._given), "")

    @property
    def n_unsaid(self) -> int:
        return max(0, len(self._given) - SHOWN_WARNINGS)


def one_line(text: object, most: int | None = None) -> str:
    """Foreign text for a message: without line breaks, at most `most` characters."""
    return " ".join(str(text).split())[:most]


def count_noun(n: int, noun: str) -> str:
    """`1 run`, `5 runs`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
