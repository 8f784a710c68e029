"""What libraries take for granted: folders that can be written, a backend that is installed."""

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path


def give_numba_a_cache() -> None:
    """Name a folder for what numba compiles, where neither of its own can be written.

    Otherwise importing librosa fails. Call it before that; what the user has set stays.
    """
    if "NUMBA_CACHE_DIR" in os.environ or "numba" in sys.modules:
        return
    librosa = find_spec("librosa")
    beside = Path(librosa.origin).parent if librosa and librosa.origin else None
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = Path(os.path.expanduser(cache)) / "numba"
    if (beside and _is_writable(beside)) or (home.is_absolute() and _is_writable(home)):
        return
    try:
        # Not one for all processes: numba executes what it finds, and others may write there.
        folder = tempfile.mkdtemp(prefix="ser_jax-numba-")
    except OSError:  # librosa then says what is missing
        return
    os.environ["NUMBA_CACHE_DIR"] = folder
    atexit.register(_delete, folder, os.getpid())


def give_caches_a_place() -> None:
    """Name a folder for caches where no home is known, as in a container run under any user id.

    Otherwise importing librosa fails. What the user has set stays.
    """
    if os.path.expanduser("~").startswith("~") and "XDG_CACHE_HOME" not in os.environ:
        os.environ["XDG_CACHE_HOME"] = os.path.join(tempfile.gettempdir(), f"cache-{os.getuid()}")


def _delete(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)


def _is_writable(folder: Path) -> bool:
    """Whether `folder`, or else its nearest parent, can be written."""
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return os.access(there, os.W_OK | os.X_OK)


def import_matplotlib() -> None:
    """Import matplotlib, even where MPLBACKEND names a backend that is not installed.

    Programs that a notebook starts inherit its kernel's. Figures here need none.
    """
    try:
        import matplotlib
    except ValueError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # half imported
        named = os.environ.pop("MPLBACKEND")
        try:
            import matplotlib  # noqa: F401
        finally:
            os.environ["MPLBACKEND"] = named


def mend_streams() -> None:
    """Let any text be printed: escape what a stream cannot encode, and replace closed streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError):  # a file below that has become a pipe
                stream.reconfigure(errors="backslashreplace")
