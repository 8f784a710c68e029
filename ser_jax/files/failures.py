"""Why a file could not be read or written, in one line, from the errors of libraries."""

import errno
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

from ser_jax.errors import UserError, one_line

_MISSING = ("NOT_FOUND", "not found", "does not exist", "No such file")
_BROKEN = ("DATA_LOSS", "OUT_OF_RANGE", "checksum", "truncat", "corrupt", "decode")
"""In what tensorstore says of checkpoints in orbax's own format."""


def explain_failure(folder: Path, error: Exception, others: Sequence[int] = ()) -> Exception:
    """What to raise for an `error` met while reading a checkpoint.

    Only what is known to be damaged is called so, since people delete what is. Other errors keep
    the words of their library.

    Args:
      folder: of the checkpoint.
      error: as NumPy, orbax or the system raised it; a `KeyError` names what does not match.
      others: epochs that lie beside it.
    """
    if (told := tell_system_error(folder, error)) is not None:
        return told
    texts = [one_line(one) for one in _list_causes(error)]
    number = find_errno(error)
    if any("RESOURCE_EXHAUSTED" in text for text in texts):
        return UserError(f"{folder}: not enough memory to read it; use a device with more")
    if not os.access(folder, os.R_OK | os.X_OK) and folder.exists():
        return UserError(f"{folder}: cannot read: {os.strerror(errno.EACCES)}; change permissions")
    if isinstance(error, KeyError):
        return UserError(
            f"{folder}: {error.args[0]} does not match config.yaml, or was saved by another "
            "version of ser-jax; undo the change of config.yaml, or use that version"
        )
    reason = find_reason(error)
    is_missing = number == errno.ENOENT or any(w in text for text in texts for w in _MISSING)
    is_broken = isinstance(error, BadZipFile | EOFError | json.JSONDecodeError)
    if is_missing or is_broken or any(word in text for text in texts for word in _BROKEN):
        what = "a file of it is missing" if is_missing else "a file of it is cut short or changed"
        return UserError(f"{folder}: damaged checkpoint: {what}; {_advise(folder, others)}")
    return UserError(f"{folder}: cannot be read: {type(error).__name__}: {reason}")


def tell_system_error(path: Path, error: Exception) -> Exception | None:
    """What to raise where the system is at fault, and what lies at `path` may be whole.

    `None` otherwise: the file is missing, or its content is wrong.
    """
    if isinstance(error, UserError | MemoryError):
        return error
    number = find_errno(error)
    if number in (None, errno.ENOENT):
        return None
    return UserError(f"{path}: cannot read: {os.strerror(number)}; it may be whole; try again")


def _advise(folder: Path, others: Sequence[int]) -> str:
    copy = "copy it again from where it is whole"
    if others:
        return f"{copy}, or delete this folder to use epoch {max(others)}"
    return f"{copy}, or choose another run_dir"


def find_reason(error: BaseException) -> str:
    """What the system said, in one line."""
    number = find_errno(error)
    if number is not None:
        return os.strerror(number)
    return one_line(error, 200) or type(error).__name__


def find_errno(error: BaseException) -> int | None:
    """The errno of `error` or of one that caused it."""
    for one in _list_causes(error):
        if isinstance(one, OSError) and one.errno:
            return one.errno
        if code := re.search(r"os_error_code='(\d+)'", str(one)):
            return int(code[1])
    return None


def _list_causes(error: BaseException) -> list[BaseException]:
    seen: list[BaseException] = [error]
    for one in seen:  # grows meanwhile
        inner = [*getattr(one, "exceptions", ()), one.__cause__, one.__context__]
        seen += [other for other in inner if other is not None and other not in seen]
    return seen
