"""Clips before they are read: what a source names, and how one source is told from another."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ser_jax.data.sources.filenames import Facts


class Clip(NamedTuple):
    """A clip not yet read.

    Attributes:
      file_name: unlike all others of the corpus.
      load: gives its int16 samples [N].
      facts: what is known of it.
      where: where that stands, for messages.
      path: of its file; None where it has none.
      part_s: first and last second of the file, where the clip is a part of it.
    """

    file_name: str
    load: Callable[[], np.ndarray]
    facts: Facts
    where: str
    path: Path | None = None
    part_s: tuple[float, float] | None = None


@dataclass(frozen=True)
class Listing:
    """The clips of a source, sorted by file name, and the files that were skipped, by reason."""

    clips: list[Clip]
    skipped: dict[str, list[str]]
    """song, video, duplicates, unnamed."""
    doubles: dict[Path, Path] = dataclasses.field(default_factory=dict)
    """Of files with the name and suffix of another the one that is used."""


@dataclass(frozen=True)
class Source:
    """Clips not yet read."""

    fingerprint: str
    """Of all that a store of them holds: what the files contain, and what is known of them."""
    list_clips: Callable[[], Listing]
    """Downloads first, where the source is the download."""
    paths: tuple[Path, ...] = ()
    """The files, where the source is no download."""


def hash_values(values: Any) -> str:
    """12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
