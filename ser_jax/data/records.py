"""A store's clips as tensorflow-datasets records, FLAC and labels, without TensorFlow."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ser_jax.audio.reading import decode_flac
from ser_jax.data.sources.filenames import ATTRIBUTES, Facts
from ser_jax.errors import UserError, one_line
from ser_jax.files.failures import tell_system_error
from ser_jax.machine.threads import map_in_order

_SPLIT = "clips"  # the only split: train, validation and test are index arrays, see splits
_FACTS = ("emotion", "speaker", *ATTRIBUTES)
_AT_ONCE = 64  # records read at a time
_PER_FILE = 20_000  # records; about 700 MB of clips of four seconds at 16 kHz


class Record(NamedTuple):
    """One clip of a store, encoded."""

    file_name: str
    facts: Facts
    n_samples: int
    flac: bytes


class Stored(NamedTuple):
    """One clip of a store, decoded."""

    file_name: str
    facts: Facts
    wave_N: np.ndarray
    """int16; from `make_silence` if samples were not asked for."""


def write_records(folder: Path, records: Iterable[Record]) -> None:
    """Write records into `folder` in order, as they are produced.

    Raises:
      UserError: the folder cannot be written, for instance because the disk is full.
    """
    import tensorflow_datasets as tfds

    features = {name: tfds.features.Text() for name in ("file_name", *_FACTS)} | {
        "n_samples": tfds.features.Scalar(np.int64),
        # features.Audio needs TensorFlow, so bytes are stored as a scalar object tensor.
        "flac": tfds.features.Tensor(shape=(), dtype=np.object_),
    }
    identity = tfds.core.DatasetIdentity(
        _SPLIT, tfds.core.Version("1.0.0"), str(folder), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )
    try:
        writer: Any = tfds.core.SequentialWriter(info, _PER_FILE, file_format="array_record")
        writer.initialize_splits([_SPLIT])
        writer.add_examples({_SPLIT: (_make_example(record) for record in records)})
        writer.close_all()
    except RuntimeError as error:  # from array_record, with the system's reason in its text
        reason = re.search(r"\w+\(\) failed: ([^;]+)", str(error))
        if reason is None:
            raise
        raise UserError(
            f"{folder.parent}: cannot write: {reason[1]}; free some space or change data.store_dir"
        ) from error


def _make_example(record: Record) -> dict[str, Any]:
    file_name, facts, n_samples, flac = record
    return {"file_name": file_name, **vars(facts), "n_samples": n_samples, "flac": flac}


def read_records(folder: Path, rows: Sequence[int] | None = None) -> Iterator[Record]:
    """The records of `folder`, all or those at `rows`; only a few are in memory at a time."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    source = builder.as_data_source(_SPLIT)
    wanted = range(len(source)) if rows is None else rows
    for start in range(0, len(wanted), _AT_ONCE):
        for example in source.__getitems__(wanted[start : start + _AT_ONCE]):
            facts = Facts(**{name: example[name].decode() for name in _FACTS})
            file_name, n_samples = example["file_name"].decode(), int(example["n_samples"])
            yield Record(file_name, facts, n_samples, example["flac"])


def iterate_clips(
    folder: Path,
    rows: Sequence[int] | None = None,
    *,
    workers: int | None = None,
    with_samples: bool = True,
) -> Iterator[Stored]:
    """Clips of a store in its order, sorted by name.

    Args:
      folder: the store.
      rows: which ones, ascending; `None`: all.
      workers: decoding threads; `None`: one per core.
      with_samples: if False, nothing is decoded and all clips are silent.

    Raises:
      UserError: the store is damaged.
    """

    def decode(record: Record) -> Stored:
        wave_N = decode_flac(record.flac) if with_samples else make_silence(record.n_samples)
        return Stored(record.file_name, record.facts, wave_N)

    records = read_records(folder, rows)
    clips = map_in_order(decode, records, workers) if with_samples else map(decode, records)
    while True:
        try:  # covers the reading only, not what the caller does with a clip
            found = list(itertools.islice(clips, 1))
        except Exception as error:  # three libraries are involved, each with its own errors
            raise damaged(folder, error) from error
        if not found:
            return
        yield found[0]


def make_silence(n_samples: int) -> np.ndarray:
    """A placeholder for a clip of that length: zeros, int16 [N], that take no memory."""
    return np.broadcast_to(np.int16(0), n_samples)


def damaged(folder: Path, error: Exception) -> Exception:
    """The error to raise for a store that cannot be read: it is damaged, or the system refuses."""
    if (refused := tell_system_error(folder, error)) is not None:
        return refused
    return UserError(
        f"{folder}: damaged store: {one_line(error, 200)}; delete this folder; it will be rebuilt"
    )
