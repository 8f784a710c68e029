"""Writing files so that a kill or a full disk leaves the old content or the new, never half."""

import contextlib
import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ser_jax.errors import UserError

_UNFINISHED = ".unfinished"
"""Suffix of files and folders that are not yet in their place."""

_NOT_OF_SPACE = (
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG,
    errno.EACCES, errno.EPERM, errno.EROFS,
)  # fmt: skip
"""Why a write may fail although there is space."""

MOVED = (
    "was moved or deleted while it was written to; move it back and run the same command again, or "
    "give its new place"
)
"""What is said of a run directory that is no longer there."""


def expand(path: str | Path) -> Path:
    """A path with ~ replaced by the home folder, where one is known."""
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def saving(path: str | Path, remedy: str | None = None) -> Iterator:
    """Turn an `OSError` inside into a `UserError` that names file, reason and remedy.

    A file that is missing elsewhere, such as one of a library, is no failure to write: it passes.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT and not _is_near(error.filename, Path(path)):
            raise
        reason = error.strerror or str(error)
        if remedy is None:
            freeing = "" if error.errno in _NOT_OF_SPACE else "free some space or "
            remedy = f"{freeing}choose another folder"
        raise UserError(f"{error.filename or path}: cannot write: {reason}; {remedy}") from error


def _is_near(file: str | None, path: Path) -> bool:
    """Whether `file` lies in the folder of `path`, or `path` below it; so if it is unknown."""
    if file is None:
        return True
    here, there = Path(os.path.abspath(path)), Path(os.path.abspath(file))
    return there.is_relative_to(here.parent) or here.is_relative_to(there)


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Write `data` beside `path`, flush it to disk, and rename it into place.

    Raises:
      UserError: the file cannot be written; what stood at `path` before is still there.
    """
    path = Path(path)
    raw = data.encode() if isinstance(data, str) else data
    with saving(path), _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(_UNFINISHED, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an `OSError` name the file that the user knows, not the temporary one."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def is_unfinished(path: Path) -> bool:
    """Whether `path` was left by a killed `write_atomic` or `new_folder`."""
    return path.name.startswith(".") and path.name.endswith(_UNFINISHED)


def clear_unfinished(folder: str | Path) -> None:
    """Delete what killed writes left in `folder` and below it."""
    for path in list(filter(is_unfinished, Path(folder).rglob(f".*{_UNFINISHED}"))):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with saving(path):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces it when the block ends without an error.

    Raises:
      UserError: a write inside failed; `path` is as it was, and the temporary folder is gone.
    """
    path = Path(path)
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(_UNFINISHED, f".{path.name}.", path.parent))
        try:
            yield beside
            os.chmod(beside, 0o755)
            if path.exists():
                shutil.rmtree(path)
            os.replace(beside, path)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


@contextlib.contextmanager
def plainly_named(folder: Path) -> Iterator[Path]:
    """A path of `folder` in UTF-8, as orbax writes it down; not all names of folders are."""
    if str(folder).isprintable():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ser_jax-") as place:
        link = Path(place) / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time make `folder`; delete what a killed one left beside it."""
    import fcntl

    path = folder.with_name(f".{folder.name}.lock")
    with saving(path, "free some space, or set data.store_dir to a folder that can be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        # Some network drives have no locks: two at once then waste time, and checksums catch a
        # spoilt download.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
            for left in folder.parent.glob(f".{folder.name}.*"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
        yield


@contextlib.contextmanager
def held(folder: Path, remedy: str, share: str = "") -> Iterator[None]:
    """Hold `folder` for this process; the system releases it however the process ends.

    Args:
      folder: need not exist; the lock lies beside it, and is deleted afterwards.
      remedy: what to do where another process holds it.
      share: of `folder`; different ones may be held at the same time.

    Raises:
      UserError: another process holds it, as its name says.
    """
    real = Path(os.path.realpath(folder))  # by whatever link or spelling it is named
    path = real.with_name(f".{real.name}{share}.lock")
    handle = _take(path, f"{folder}: is in use by", remedy)
    try:
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                path.unlink()  # while it is held, so that nobody else's is deleted
            os.close(handle)


def _take(path: Path, whose: str, remedy: str) -> int | None:
    """The handle of the locked file; `None` where the file system has no locks or is read-only."""
    import fcntl

    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 1000).decode(errors="replace") or "another process"
            os.close(handle)
            raise UserError(f"{whose} {holder}; {remedy}") from error
        except OSError:  # some network drives have no locks
            os.close(handle)
            return None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                with contextlib.suppress(OSError):  # a full disk
                    os.truncate(handle, 0)
                    os.write(handle, f"pid {os.getpid()} on {socket.gethostname()}".encode())
                return handle
        os.close(handle)  # deleted by its previous holder
