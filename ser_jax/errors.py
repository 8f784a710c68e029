"""The one exception that means bad input, not a bug, and what is only warned of."""

import functools
import sys


class UserError(ValueError):
    """Bad input, said in one line: the key or file, its value, and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


def check(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def warn(message: str) -> None:
    """Say on standard error what the user should know, but need not mend."""
    print(f"warning: {message}", file=sys.stderr)


@functools.cache
def warn_once(message: str) -> None:
    """`warn`, but once in a process: of corpora, which are listed several times in a run."""
    warn(message)
