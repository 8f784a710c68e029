"""The one exception that means bad input, not a bug."""


class UserError(ValueError):
    """Bad input, said in one line: the key or file, its value, and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


def check(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)
