"""A store's clips, one after another, so that no more of them is in memory than is asked for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_jax.audio.reading import decode_flac
from ser_jax.config import DataConfig
from ser_jax.data.sources.filenames import Facts
from ser_jax.errors import UserError
from ser_jax.files.failures import tell_system_error
from ser_jax.machine.threads import map_in_order

_RECORDS = 64  # read at a time


class Stored(NamedTuple):
    """A clip of a store: its name, what is known of it, its samples, int16 [N]."""

    file_name: str
    facts: Facts
    wave_N: np.ndarray


def iterate_clips(
    folder: Path, data: DataConfig, rows: Sequence[int] | None = None
) -> Iterator[Stored]:
    """Clips of a store in their order, which is that of their names.

    Args:
      folder: the store.
      data: says of which kind it is, and how many threads decode.
      rows: which ones, sorted; None: all.

    Raises:
      UserError: the store is damaged.
    """
    from ser_jax.data.builder import read_clips

    def decode(clip: tuple[str, bytes, Facts]) -> Stored:
        file_name, flac, facts = clip
        return Stored(file_name, facts, decode_flac(flac))

    clips = read_clips(folder, rows, ravdess=data.has_ravdess_actors, at_once=_RECORDS)
    found = map_in_order(decode, clips, data.workers)
    while True:
        try:  # of the reading alone, not of what is done with a clip
            clip = next(found, None)
        except Exception as error:  # three libraries read it, each with errors of its own
            raise damaged(folder, error) from error
        if clip is None:
            return
        yield clip


def damaged(folder: Path, error: Exception) -> Exception:
    """What to raise where a store cannot be read: it is damaged, or the system does not let it."""
    if (told := tell_system_error(folder, error)) is not None:
        return told
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{folder}: damaged store: {reason}; delete this folder; it will be rebuilt")
