"""Writes that fail: every one that Python makes below a folder can be made to."""

import builtins
import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class FailingWrites:
    """Counts the writing calls below `folder`, and lets the `n`-th fail with `number`."""

    def __init__(self, folder: Path, n: int, number: int, counts: Callable[[str], bool]):
        self.folder, self.n, self.number, self.counts = str(folder), n, number, counts
        self.calls: list[str] = []
        self._lock = threading.Lock()

    @property
    def has_failed(self) -> bool:
        return len(self.calls) >= self.n

    def count(self, name: str, path: Any) -> None:
        if not isinstance(path, str | os.PathLike):
            return
        path = os.fspath(path)
        call = f"{name} {path.removeprefix(self.folder)}"
        if path.startswith(self.folder) and self.counts(call):
            with self._lock:
                self.calls.append(call)
                is_nth = len(self.calls) == self.n
            if is_nth:
                raise OSError(self.number, os.strerror(self.number), path)


@contextlib.contextmanager
def failing_writes(
    folder: Path, n: int, number: int, counts: Callable[[str], bool] = lambda call: True
) -> Iterator[FailingWrites]:
    """Inside, the `n`-th write below `folder` fails once with the error `number`.

    Writes are what changes the disk: making a folder, opening a file for writing, writing to it,
    flushing it to disk, renaming, deleting. Those count for which `counts("open /file")` holds.
    """
    faults = FailingWrites(folder, n, number, counts)
    paths: dict[int, str] = {}

    def by_path(name: str, real: Callable, place: int = 0) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            if name != "mkdir" or not os.path.isdir(arguments[0]):  # making it again is no write
                faults.count(name, arguments[place])
            return real(*arguments, **options)

        return call

    def by_handle(name: str, real: Callable) -> Callable:
        def call(handle: int, *arguments: Any) -> Any:
            faults.count(name, paths.get(handle))
            return real(handle, *arguments)

        return call

    def open_handle(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & WRITING:
            faults.count("open", path)
        handle = real_os_open(path, flags, *arguments, **options)
        paths[handle] = os.fspath(path)
        return handle

    def open_file(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        path = paths.get(file) if isinstance(file, int) else file
        if set(mode).isdisjoint("wax+"):
            return real_open(file, mode, *arguments, **options)
        if path is not file:  # os.open has counted it
            opened = real_open(file, mode, *arguments, **options)
        else:
            faults.count("open", path)
            opened = real_open(file, mode, *arguments, **options)
        return _File(opened, lambda name: faults.count(name, path))

    real_os_open, real_open = os.open, io.open
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mkdir", "unlink", "remove", "rmdir", "chmod"):
            patch.setattr(os, name, by_path(name, getattr(os, name)))
        for name in ("replace", "rename"):
            patch.setattr(os, name, by_path(name, getattr(os, name), 1))
        for name in ("write", "fsync"):
            patch.setattr(os, name, by_handle(name, getattr(os, name)))
        patch.setattr(os, "open", open_handle)
        patch.setattr(io, "open", open_file)
        patch.setattr(builtins, "open", open_file)
        yield faults


class _File:
    """An open file whose writing is counted."""

    def __init__(self, file: Any, count: Callable[[str], None]):
        self._file, self._count = file, count

    def write(self, data: Any) -> int:
        self._count("write")
        return self._file.write(data)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
