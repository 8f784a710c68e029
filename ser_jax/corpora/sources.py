"""Where clips come from: folders, a manifest, the download, the synthesiser; each as one list."""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from ser_jax.audio import load_int16
from ser_jax.config import DataConfig
from ser_jax.corpora.grammars import GRAMMARS, Facts, Grammar
from ser_jax.corpora.names import GRAMMAR, parse_name
from ser_jax.errors import UserError, check

_SUFFIXES = (".wav", ".flac", ".mp4")  # RAVDESS' videos are mp4; listed to be counted


class Clip(NamedTuple):
    """A clip not yet read.

    Attributes:
      file_name: unlike all others of the corpus.
      load: gives its int16 samples [N].
      facts: what is known of it.
      where: where that stands, for messages.
    """

    file_name: str
    load: Callable[[], np.ndarray]
    facts: Facts
    where: str


@dataclass(frozen=True)
class Listing:
    """The clips of a source, sorted by file name, and how many files were skipped, by reason."""

    clips: list[Clip]
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
      UserError: `data.root` is missing, no folder, or holds no recordings of the corpus; a manifest
        with an error in it.
    """
    if data.corpus == "joined":
        return _join(data)
    if data.corpus == "manifest":
        from ser_jax.corpora.manifest import find_manifest

        return find_manifest(data)
    if data.source == "tfds":
        from ser_jax.corpora.tfds_source import find_tfds

        return find_tfds(data)
    if data.corpus == "synthetic":
        from ser_jax.corpora import synthetic

        size = (data.synthetic_actors, data.synthetic_clips)
        fingerprint = hash_values([synthetic.SYNTHETIC_VERSION, *size])
        return Source(fingerprint, lambda: _list_synthetic(data))
    if data.root is None:
        from ser_jax.corpora import download

        def list_download() -> Listing:
            root = download.ensure_ravdess(Path(data.store_dir).expanduser())
            return _list_files(_walk(root), root, data.rate_hz)

        return Source(hash_values([download.RAVDESS_MD5]), list_download)
    grammar, root = GRAMMARS[data.corpus], Path(data.root).expanduser()
    download_it = ", or leave data.root out to download them" if data.corpus == "ravdess" else ""
    check(
        root.is_dir(),
        f"data.root={root}: {'not a folder' if root.exists() else 'no such folder'}; give the "
        f"folder that holds the {grammar.title} recordings{download_it}",
    )
    paths = list(_walk(root))
    if data.corpus == "ravdess":
        listing = _list_files(iter(paths), root, data.rate_hz)
    else:
        listing = _list_named(paths, root, data.rate_hz, grammar)
    return Source(hash_values([describe_file(path, root) for path in paths]), lambda: listing)


def _join(data: DataConfig) -> Source:
    """The corpora of `data.roots` as one; names and speakers begin with the corpus' name."""
    titles: dict[str, Source] = {}
    for name, root in sorted(data.roots.items()):
        part = dataclasses.replace(
            data, corpus=name, root=root, roots={}, protocol="auto", fold=1, source="folder"
        )
        titles[part.title] = find_source(part)

    def list_clips() -> Listing:
        clips: list[Clip] = []
        skipped: Counter[str] = Counter()
        for title, source in titles.items():
            listing = source.list_clips()
            skipped.update(listing.skipped)
            clips += [_name_corpus(clip, title) for clip in listing.clips]
        return Listing(sorted(clips, key=lambda clip: clip.file_name), skipped)

    fingerprint = hash_values([[title, titles[title].fingerprint] for title in titles])
    return Source(fingerprint, list_clips)


def _name_corpus(clip: Clip, title: str) -> Clip:
    facts = dataclasses.replace(clip.facts, corpus=clip.facts.corpus or title)
    facts = dataclasses.replace(facts, speaker=f"{title}/{facts.speaker}")
    return clip._replace(file_name=f"{title}/{clip.file_name}", facts=facts)


def _list_synthetic(data: DataConfig) -> Listing:
    from ser_jax.corpora.synthetic import iterate_clips

    clips = iterate_clips(data.synthetic_actors, data.synthetic_clips, data.rate_hz)
    named = [Clip(name, load, _read_ravdess(PurePath(name)), name) for name, load in clips]
    return Listing(sorted(named, key=lambda clip: clip.file_name), {})


def _read_ravdess(path: PurePath) -> Facts:
    named = GRAMMARS["ravdess"].parse(path)
    assert named is not None, path
    return named.facts


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
    clips = [
        Clip(path.name, partial(load_int16, path, rate_hz), _read_ravdess(path), str(path))
        for path in files
    ]
    return Listing(clips, skipped)


def _list_named(paths: list[Path], root: Path, rate_hz: int, grammar: Grammar) -> Listing:
    """The files that follow a grammar other than RAVDESS'."""
    skipped: Counter[str] = Counter()
    kept: dict[str, Clip] = {}
    for path in paths:
        if path.suffix.lower() == ".mp4":
            continue
        named = grammar.parse(path)
        if named is None:
            skipped["unnamed"] += 1
        elif named.name in kept:
            skipped["duplicates"] += 1
        else:
            load = partial(load_int16, path, rate_hz)
            kept[named.name] = Clip(
                f"{named.name}{path.suffix.lower()}", load, named.facts, str(path)
            )
    check(
        len(kept) > 0,
        f"data.root={root}: "
        + (
            f"none of its {skipped['unnamed']} wav or flac files has a {grammar.title} name"
            if skipped["unnamed"]
            else "holds no wav or flac files"
        )
        + f"; {grammar.expected}; give another folder or data.corpus",
    )
    return Listing(sorted(kept.values(), key=lambda clip: clip.file_name), skipped)


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


def describe_file(path: Path, root: Path) -> tuple[str, int, int]:
    """Name, size and time of change: what tells a file from another without reading it."""
    name = os.path.relpath(path, root)
    try:
        stat = path.stat()
    except OSError:  # a dangling link; reading it will say so
        return name, -1, -1
    return name, stat.st_size, stat.st_mtime_ns


def hash_values(values: Any) -> str:
    """12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
