"""The clips of a folder, recognised by the file names of its corpus."""

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ser_jax.audio.reading import load_clip
from ser_jax.config import DataConfig
from ser_jax.data.sources.filenames import GRAMMARS, Grammar
from ser_jax.data.sources.listing import Clip, Listing
from ser_jax.errors import UserError, check, count_noun

_SUFFIXES = (".wav", ".flac")
_COUNTED = ".mp4"  # RAVDESS's videos: only counted
_ELSEWHERE = (".zip", ".tar", ".gz", ".rar", ".7z", ".mp3", ".ogg", ".m4a", ".aif", ".aiff", ".sph")
_SHOWN = 60  # characters of a list of file kinds


def list_folder(data: DataConfig, root: Path) -> Listing:
    """The files at any depth below `root` that follow the grammar of `data.corpus`.

    Raises:
      UserError: the folder does not exist, cannot be listed, or holds no recording of the corpus.
    """
    grammar = GRAMMARS[data.corpus]
    download_it = ", or omit data.root to download them" if data.corpus == "ravdess" else ""
    check(
        root.is_dir(),
        f"data.root={root}: {'not a folder' if root.exists() else 'no such folder'}; give the "
        f"folder that holds the {grammar.title} recordings{download_it}",
    )
    skipped: dict[str, list[str]] = defaultdict(list)
    kept: dict[str, Clip] = {}
    doubles: dict[Path, Path] = {}
    others: dict[str, int] = defaultdict(int)
    for path in list_files(root, (*_SUFFIXES, _COUNTED, *_ELSEWHERE)):
        suffix = path.suffix.lower()
        if suffix not in (*_SUFFIXES, _COUNTED):
            others[suffix] += 1
            continue
        named = grammar.parse(path)
        if suffix == _COUNTED and (named is None or named.kind != "video"):
            continue
        if named is None or named.kind != "speech":
            skipped[named.kind if named else "unnamed"].append(_name(path, root))
        elif named.name in kept:
            skipped["duplicates"].append(_name(path, root))
            used = kept[named.name].path
            if used is not None and used.suffix.lower() == suffix:  # else another encoding
                doubles[path] = used
        else:
            load = partial(load_clip, path, data.rate_hz)
            file_name = f"{named.name}{suffix}"
            kept[named.name] = Clip(file_name, load, named.facts, str(path), path)
    if not kept:
        _raise_no_clips(data, root, grammar, skipped, others)
    return Listing(sorted(kept.values(), key=lambda clip: clip.file_name), dict(skipped), doubles)


def _name(path: Path, root: Path) -> str:
    """The path of a file relative to `root`; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")


def _raise_no_clips(
    data: DataConfig,
    root: Path,
    grammar: Grammar,
    skipped: dict[str, list[str]],
    others: dict[str, int],
) -> None:
    n_song, n_video, n_unnamed = (len(skipped.get(key, ())) for key in ("song", "video", "unnamed"))
    if n_song or n_video:
        found = f"holds no audio-only speech ({n_song} song, {n_video} video)"
    elif n_unnamed:
        files = count_noun(n_unnamed, "wav or flac file")
        found = f"holds {files}, but none with a name of {grammar.title}"
    else:
        found = "holds no wav or flac files"
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        unpack = "; unpack archives first, and convert other formats to wav"
        found += f" (but {kinds[:_SHOWN]}{unpack})"
    remedy = "give another folder or data.corpus"
    if data.corpus == "ravdess":
        remedy = "omit data.root to download RAVDESS"
    raise UserError(f"data.root={root}: {found}; {grammar.expected}; {remedy}")


def list_files(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files at any depth below `root` with these suffixes, in either case, in a fixed order.

    Links are followed, but no folder is listed twice; macOS's `._` files are ignored.

    Raises:
      UserError: a folder cannot be listed.
    """

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
            if name.lower().endswith(suffixes) and not name.startswith("._"):
                yield Path(folder, name)
