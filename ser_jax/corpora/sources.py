"""Where clips come from: a folder, the download, the synthesiser; each as one list of clips."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.audio import load_int16
from ser_jax.config import DataConfig
from ser_jax.corpora.names import GRAMMAR, parse_name
from ser_jax.errors import UserError, check

_SUFFIXES = (".wav", ".flac", ".mp4")  # RAVDESS' videos are mp4; listed to be counted


@dataclass(frozen=True)
class Listing:
    """The clips of a source, sorted by file name, and how many files were skipped, by reason."""

    clips: list[tuple[str, Callable[[], np.ndarray]]]
    """File name, and what gives its int16 samples [N]."""
    skipped: dict[str, int]
    """song, video, duplicates, unnamed."""


@dataclass(frozen=True)
class Source:
    """Clips not yet read."""

    fingerprint: str
    """Tells one input from another, without reading the clips."""
    list_clips: Callable[[], Listing]
    """Downloads first, where the source is the download."""


def find_source(data: DataConfig) -> Source:
    """The source that `data` names.

    Raises:
      UserError: `data.root` is missing, no folder, or holds no RAVDESS speech recordings.
    """
    if data.corpus == "synthetic":
        from ser_jax.corpora import synthetic

        size = (data.synthetic_actors, data.synthetic_clips)
        fingerprint = _hash([synthetic.SYNTHETIC_VERSION, *size])
        return Source(fingerprint, lambda: _list_synthetic(data))
    if data.root is None:
        from ser_jax.corpora import download

        def list_download() -> Listing:
            root = download.ensure_ravdess(Path(data.store_dir).expanduser())
            return _list_files(_walk(root), root, data.rate_hz)

        return Source(_hash([download.RAVDESS_MD5]), list_download)
    root = Path(data.root).expanduser()
    check(
        root.is_dir(),
        f"data.root={root}: {'not a folder' if root.exists() else 'no such folder'}; give the "
        "folder that holds the RAVDESS recordings, or leave data.root out to download them",
    )
    paths = list(_walk(root))
    listing = _list_files(iter(paths), root, data.rate_hz)
    return Source(_hash([_describe(path, root) for path in paths]), lambda: listing)


def _list_synthetic(data: DataConfig) -> Listing:
    from ser_jax.corpora.synthetic import iterate_clips

    clips = iterate_clips(data.synthetic_actors, data.synthetic_clips, data.rate_hz)
    return Listing(sorted(clips, key=lambda clip: clip[0]), {})


def _list_files(paths: Iterator[Path], root: Path, rate_hz: int) -> Listing:
    skipped: Counter[str] = Counter()
    kept: dict[str, Path] = {}
    for path in paths:
        name = parse_name(path.name)
        is_video = path.suffix.lower() == ".mp4"
        if name is None:
            skipped["unnamed"] += not is_video
        elif is_video or name.kind == "video":
            skipped["video"] += 1
        elif name.kind == "song":
            skipped["song"] += 1
        elif path.stem in kept:
            skipped["duplicates"] += 1
        else:
            kept[path.stem] = path
    if not kept:
        _raise_no_clips(root, skipped)
    files = sorted(kept.values(), key=lambda path: path.name)
    return Listing([(path.name, partial(load_int16, path, rate_hz)) for path in files], skipped)


def _raise_no_clips(root: Path, skipped: Counter[str]) -> None:
    if not skipped.total():
        found = "holds no wav or flac files"
    elif skipped["song"] or skipped["video"]:
        found = f"holds no audio-only speech ({skipped['song']} song, {skipped['video']} video)"
    else:
        found = f"none of its {skipped['unnamed']} wav or flac files has a RAVDESS name"
    raise UserError(
        f"data.root={root}: {found}; {GRAMMAR}; leave data.root out to download RAVDESS"
    )


def _walk(root: Path) -> Iterator[Path]:
    """Sound files at any depth, in a fixed order; links are followed, but no folder twice."""

    def raise_unreadable(error: OSError) -> None:
        raise UserError(
            f"{error.filename}: cannot list this folder: {error.strerror}; "
            "check its permissions, or give another data.root"
        ) from error

    seen = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=raise_unreadable):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        for name in sorted(names):
            if name.lower().endswith(_SUFFIXES) and not name.startswith("._"):  # macOS' shadows
                yield Path(folder, name)


def _describe(path: Path, root: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError:  # a dangling link; reading it will say so
        return str(path.relative_to(root)), -1, -1
    return str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
