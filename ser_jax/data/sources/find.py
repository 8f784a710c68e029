"""Where clips come from: a folder, a manifest, the download or the synthesiser."""

import dataclasses
import os
from collections import defaultdict
from pathlib import Path, PurePath
from typing import get_args

from ser_jax.config import CorpusName, DataConfig
from ser_jax.config.data import name_joined
from ser_jax.data.sources.checksums import compute_checksums
from ser_jax.data.sources.filenames import GRAMMARS, Facts
from ser_jax.data.sources.listing import Clip, Listing, Source, hash_values
from ser_jax.errors import check, warn_once
from ser_jax.files.atomic import expand


def find_source(data: DataConfig) -> Source:
    """The source that `data` names.

    Raises:
      UserError: `data.root` is missing, not a folder, or holds no recordings of the corpus; a
        manifest has an error.
    """
    if data.corpus == "joined":
        return _join(data)
    if data.corpus == "manifest":
        from ser_jax.data.sources.manifest import list_manifest

        return _make_source(data, list_manifest(data))
    if data.corpus == "synthetic":
        from ser_jax.data.sources import synthetic

        size = (data.synthetic_actors, data.synthetic_clips)
        fingerprint = hash_values([synthetic.SYNTHETIC_VERSION, *size])
        return Source(fingerprint, lambda: _list_synthetic(data))
    from ser_jax.data.sources.folders import list_folder

    if data.root is None:
        from ser_jax.data.sources import download

        def list_download() -> Listing:
            root = download.ensure_ravdess(expand(data.store_dir))
            return list_folder(data, root)

        return Source(hash_values([download.RAVDESS_MD5]), list_download)
    return _make_source(data, list_folder(data, expand(data.root)))


def _make_source(data: DataConfig, listing: Listing) -> Source:
    """The source of clips in files; its fingerprint covers what the files contain."""
    paths = tuple(
        dict.fromkeys(
            [clip.path for clip in listing.clips if clip.path is not None] + [*listing.doubles]
        )
    )
    checksums = dict(zip(paths, compute_checksums(paths, find_cache(data)), strict=True))
    _warn_of_doubles(listing, checksums)
    held = [
        [clip.file_name, *vars(clip.facts).values(), clip.part_s, checksums[clip.path]]
        for clip in listing.clips
        if clip.path is not None
    ]
    return Source(hash_values([held, listing.skipped]), lambda: listing, paths)


def _warn_of_doubles(listing: Listing, checksums: dict[Path, str]) -> None:
    """Warn of files with the same name but other content: a second version of the recordings, or a
    damaged copy."""
    others = [path for path, used in listing.doubles.items() if checksums[path] != checksums[used]]
    if others:
        one = len(others) == 1
        warn_once(
            f"{len(others)} {'file has' if one else 'files have'} the name of another clip but "
            f"other content, and {'is' if one else 'are'} left out; the first: {others[0]} (used: "
            f"{listing.doubles[others[0]]}); give a folder with one version as data.root"
        )


def find_cache(data: DataConfig) -> Path:
    """The file beside the stores that caches the checksums of this corpus's files."""
    roots = [data.root, *data.roots.values()]
    places = [os.path.abspath(os.path.expanduser(root)) for root in roots if root is not None]
    name = f"checksums-{hash_values([data.corpus, *sorted(places)])}.json"
    return expand(data.store_dir) / name


def _join(data: DataConfig) -> Source:
    """The corpora of `data.roots` as one; names and speakers start with the corpus's name."""
    titles: dict[str, Source] = {}
    for name, root in sorted(data.roots.items()):
        known = name in get_args(CorpusName)
        part = dataclasses.replace(
            data, corpus=name if known else "manifest", root=root, roots={}, protocol="study",
            fold=1,
        )  # fmt: skip
        title = name_joined(name, root)
        check(
            title not in titles,
            f"data.roots.{name}={root}: another corpus is called {title} too; give this manifest "
            "a key of its own, as in {mine: FILE.csv}",
        )
        titles[title] = find_source(part)

    def list_clips() -> Listing:
        clips: list[Clip] = []
        skipped: dict[str, list[str]] = defaultdict(list)
        for title, source in titles.items():
            listing = source.list_clips()
            for kind, names in listing.skipped.items():
                skipped[kind] += [f"{title}/{name}" for name in names]
            clips += [_name_corpus(clip, title) for clip in listing.clips]
        return Listing(sorted(clips, key=lambda clip: clip.file_name), dict(skipped))

    fingerprint = hash_values([[title, titles[title].fingerprint] for title in titles])
    paths = tuple(path for source in titles.values() for path in source.paths)
    return Source(fingerprint, list_clips, paths)


def _name_corpus(clip: Clip, title: str) -> Clip:
    facts = dataclasses.replace(clip.facts, corpus=clip.facts.corpus or title)
    facts = dataclasses.replace(facts, speaker=f"{title}/{facts.speaker}")
    return clip._replace(file_name=f"{title}/{clip.file_name}", facts=facts)


def _list_synthetic(data: DataConfig) -> Listing:
    from ser_jax.data.sources.synthetic import iterate_spoken_clips

    clips = iterate_spoken_clips(data.synthetic_actors, data.synthetic_clips, data.rate_hz)
    named = [Clip(name, load, _read_ravdess(PurePath(name)), name) for name, load in clips]
    return Listing(sorted(named, key=lambda clip: clip.file_name), {})


def _read_ravdess(path: PurePath) -> Facts:
    named = GRAMMARS["ravdess"].parse(path)
    assert named is not None, path
    return named.facts
