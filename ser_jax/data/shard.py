"""The clips of one of several processes, read from the store without the others."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.config import DataConfig
from ser_jax.data.assembly import check_lengths, count_samples, cut_clip
from ser_jax.data.corpus import Corpus
from ser_jax.data.sources.listing import hash_values
from ser_jax.data.store import load_numbered, prepare
from ser_jax.data.stored_clips import damaged, iterate_clips
from ser_jax.files.atomic import locked, write_atomic


def load_shard(data: DataConfig, find_rows: Callable[[int], np.ndarray]) -> Corpus:
    """The corpus with the samples of some clips; all else is known of every clip.

    What is known of the clips lies beside the store in an index, which the first that asks for it
    makes by reading the corpus once.

    Args:
      data: as for `load_corpus`.
      find_rows: from the number of clips to the numbers of those to read.

    Returns:
      A corpus whose `wave_BN` is zeros, and takes no memory, in all other rows.

    Raises:
      UserError: as `load_corpus`.
    """
    folder = prepare(data).folder
    index = _load_index(folder, data)
    corpus = _make_silent(data, index)
    rows = find_rows(len(corpus.file_names)).tolist()
    stored = [index["row_B"][row] for row in rows]
    for row, clip in zip(rows, iterate_clips(folder, data, stored), strict=True):
        if clip.file_name != corpus.file_names[row]:
            raise damaged(folder, ValueError("not the clips of its index"))
        wave_N = cut_clip(data, clip.wave_N)
        corpus.wave_BN[row, : len(wave_N)] = wave_N
    return corpus


def _make_silent(data: DataConfig, index: dict[str, Any]) -> Corpus:
    """The corpus with zeros for samples, which take no memory until they are written."""
    n_samples = count_samples(data)
    length_B = np.minimum(np.array(index["length_B"]), n_samples or np.iinfo(np.int32).max)
    check_lengths(data, length_B, index["file_names"])
    return Corpus(
        name=data.title,
        rate_hz=data.rate_hz,
        labels=tuple(index["labels"]),
        wave_BN=np.zeros((len(length_B), n_samples or length_B.max()), np.int16),
        length_B=length_B.astype(np.int32),
        emotion_B=np.array(index["emotion_B"], np.int32),
        actor_B=np.array(index["actor_B"], np.int32),
        attributes={key: np.array(values) for key, values in index["attributes"].items()},
        file_names=tuple(index["file_names"]),
        checksum=index["checksum"],
        speakers=tuple(index["speakers"]),
    )


def _load_index(folder: Path, data: DataConfig) -> dict[str, Any]:
    """What is known of every clip: a corpus without its samples."""
    changed = f"-{hash_values(sorted(data.labels.items()))}" if data.labels else ""
    if data.trim_db is not None:
        changed += f"-trimmed{data.trim_db:g}+{data.trim_margin_s:g}"
    path = folder / f"index{changed}.json"
    if not path.exists():
        with locked(folder):
            if not path.exists():
                whole = dataclasses.replace(data, clip_s=None)
                _write_index(path, *load_numbered(whole, with_samples=False))
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise damaged(folder, error) from error


def _write_index(path: Path, corpus: Corpus, row_B: np.ndarray) -> None:
    index = {
        "labels": corpus.labels,
        "length_B": corpus.length_B.tolist(),
        "emotion_B": corpus.emotion_B.tolist(),
        "actor_B": corpus.actor_B.tolist(),
        "attributes": {key: values.tolist() for key, values in corpus.attributes.items()},
        "file_names": corpus.file_names,
        "checksum": corpus.checksum,
        "speakers": corpus.speakers,
        "row_B": row_B.tolist(),
    }
    write_atomic(path, json.dumps(index))
