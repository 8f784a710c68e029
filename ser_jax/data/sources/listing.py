"""Clips before they are read, and the source that lists them."""

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
    """A clip that is not read yet.

    Attributes:
      file_name: unique in the corpus.
      load: reads its samples, int16 [N].
      facts: what is known of it.
      where: file or row that says so, for messages.
      path: of its file, if it has one.
      part_s: start and end in the file, in seconds, if the clip is a segment of it.
    """

    file_name: str
    load: Callable[[], np.ndarray]
    facts: Facts
    where: str
    path: Path | None = None
    part_s: tuple[float, float] | None = None


@dataclass(frozen=True)
class Listing:
    """The clips of a source, sorted by file name, and the skipped files by reason."""

    clips: list[Clip]
    skipped: dict[str, list[str]]
    """song, video, duplicates, unnamed."""
    doubles: dict[Path, Path] = dataclasses.field(default_factory=dict)
    """Files with the name and suffix of another, and the one used in their place."""


@dataclass(frozen=True)
class Source:
    """Where a corpus comes from."""

    fingerprint: str
    """Identifies what a store of the clips holds: the files' content and what is known of them."""
    list_clips: Callable[[], Listing]
    """Lists the clips; downloads them first if necessary."""
    paths: tuple[Path, ...] = ()
    """The files; empty for a download or the synthesiser."""


def hash_values(values: Any) -> str:
    """Hash of JSON values, 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
