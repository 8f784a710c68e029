"""What files hold, as checksums: read once, then known by their sizes, inodes and times."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ser_jax.errors import UserError
from ser_jax.files.atomic import write_atomic
from ser_jax.machine.cores import count_cores

_BLOCK = 2**20
_SETTLED_S = 2.0  # a file changed again within the clock's tick would look the same


class Signature(NamedTuple):
    """What changes with a file, of which times alone can be set at will."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class _Known(NamedTuple):
    signature: Signature
    checksum: str
    settled: bool
    """Whether the file had been left alone for a while when it was read."""


_known: dict[str, _Known] = {}  # of this process, by path


def compute_checksums(paths: Sequence[Path], cache: Path) -> list[str]:
    """What each file holds, 32 hexadecimal digits; files that `cache` knows are not read again.

    A file that cannot be read has a text of its own instead; to load it gives the reason.
    """
    _load(cache)
    with ThreadPoolExecutor(count_cores()) as pool:
        return list(pool.map(_compute, paths))


def save_checksums(paths: Iterable[Path], cache: Path) -> None:
    """Keep what `compute_checksums` found; that it cannot be kept is no error."""
    known = {str(path): _known[str(path)] for path in paths if str(path) in _known}
    tree = {path: [*one.signature, one.checksum] for path, one in known.items() if one.settled}
    with contextlib.suppress(UserError):
        if tree != _read(cache):
            write_atomic(cache, json.dumps(tree))


def is_unchanged(path: Path) -> bool:
    """Whether a file is still the one of which the checksum was computed."""
    known = _known.get(str(path))
    return known is None or _sign(path) == known.signature


def _compute(path: Path) -> str:
    signature = _sign(path)
    known = _known.get(str(path))
    if signature is None:
        return "missing"
    if known is not None and known.settled and known.signature == signature:
        return known.checksum
    try:
        checksum = _read_checksum(path)
    except OSError as error:
        return f"unreadable {error.errno} {signature}"
    age_s = time.time() - max(signature.mtime_ns, signature.ctime_ns) / 1e9
    settled = age_s > _SETTLED_S and _sign(path) == signature
    _known[str(path)] = _Known(signature, checksum, settled)
    return checksum


def _read_checksum(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sign(path: Path) -> Signature | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return Signature(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _load(cache: Path) -> None:
    for path, values in _read(cache).items():
        *signature, checksum = values
        _known.setdefault(path, _Known(Signature(*signature), checksum, settled=True))


def _read(cache: Path) -> dict[str, list]:
    """What the cache holds; nothing where it is missing, cut short or of another kind."""
    try:
        tree = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(tree, dict) and all(
        isinstance(one, list) and len(one) == len(Signature._fields) + 1 for one in tree.values()
    )
    return tree if whole else {}
