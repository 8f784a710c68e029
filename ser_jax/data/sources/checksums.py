"""Checksums of files, cached: a file is read again only when its size, inode or times change."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ser_jax.errors import UserError
from ser_jax.files.atomic import write_atomic
from ser_jax.machine.cores import count_cores

_SETTLED_S = 2.0  # a file that changes twice within a tick of the clock would look unchanged

_known: dict[str, list[Any]] = {}  # by path: the signature, then the checksum
_signed: dict[str, list[int]] = {}  # by path: the signature when its checksum was asked for


def compute_checksums(paths: Sequence[Path], cache: Path) -> list[str]:
    """A checksum of each file's content, 32 hexadecimal digits; `cache` saves reading it again.

    A file that cannot be read has a text in place of one; loading it later gives the reason.
    """
    for path, values in _read_cache(cache).items():
        _known.setdefault(path, values)
    with ThreadPoolExecutor(count_cores()) as pool:
        return list(pool.map(_compute, paths))


def save_checksums(paths: Iterable[Path], cache: Path) -> None:
    """Write what `compute_checksums` found to `cache`; a failure to write is ignored."""
    known = {name: _known[name] for name in map(str, paths) if name in _known}
    with contextlib.suppress(UserError):
        if known != _read_cache(cache):
            write_atomic(cache, json.dumps(known))


def is_unchanged(path: Path) -> bool:
    """Whether a file is still the one whose checksum was computed."""
    signature = _sign(path)
    return _signed.get(str(path), signature) == signature


def _compute(path: Path) -> str:
    signature = _sign(path)
    if signature is None:
        return "missing"
    _signed[str(path)] = signature
    *known, checksum = _known.get(str(path), [""])
    if known == signature:
        return checksum
    try:
        checksum = _read_checksum(path)
    except OSError as error:
        return f"unreadable {error.errno} {signature}"
    age_s = time.time() - max(signature[1:3]) / 1e9
    if age_s > _SETTLED_S and _sign(path) == signature:
        _known[str(path)] = [*signature, checksum]
    return checksum


def _read_checksum(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _sign(path: Path) -> list[int] | None:
    """What changes with a file: size, times, inode. A program cannot set the ctime at will."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    """What the cache holds; nothing if it is missing or damaged."""
    try:
        known = json.loads(cache.read_text())
        return {path: values for path, values in known.items() if len(values) == 5}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
