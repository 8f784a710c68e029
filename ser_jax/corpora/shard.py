"""The clips of one of several processes, read from the store without the others."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.audio import find_sound
from ser_jax.config import DataConfig
from ser_jax.corpora import Corpus, trim_corpus, with_clip_length
from ser_jax.corpora.sources import hash_values
from ser_jax.corpora.store import damaged, load_kept, prepare, read
from ser_jax.errors import check
from ser_jax.files import locked, write_atomic


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
    rows = find_rows(len(index["file_names"])).tolist()
    stored = index.get("row_B", range(len(index["file_names"])))
    try:
        names, _, waves = read(folder, data, [stored[row] for row in rows])
        check(names == [index["file_names"][row] for row in rows], "not the clips of its index")
    except Exception as error:  # three libraries read it, each with errors of its own
        raise damaged(folder, error) from error
    corpus = _make_silent(data, index)
    n_samples = corpus.wave_BN.shape[1]
    for row, wave_N in zip(rows, waves, strict=True):
        sound = find_sound(wave_N, data.rate_hz, data.trim_db, data.trim_margin_s)
        kept_N = wave_N[sound][:n_samples]
        corpus.wave_BN[row, : len(kept_N)] = kept_N
    return corpus


def _make_silent(data: DataConfig, index: dict[str, Any]) -> Corpus:
    """The corpus with zeros for samples, which take no memory until they are written."""
    length_B = np.array(index["length_B"], np.int32)
    corpus = Corpus(
        name=data.title,
        rate_hz=data.rate_hz,
        labels=tuple(index["labels"]),
        wave_BN=np.zeros((len(length_B), length_B.max()), np.int16),
        length_B=length_B,
        emotion_B=np.array(index["emotion_B"], np.int32),
        actor_B=np.array(index["actor_B"], np.int32),
        attributes={key: np.array(values) for key, values in index["attributes"].items()},
        file_names=tuple(index["file_names"]),
        checksum=index["checksum"],
        speakers=tuple(index.get("speakers", ())),
    )
    if data.clip_s is None:
        return corpus
    no_samples = dataclasses.replace(corpus, wave_BN=corpus.wave_BN[:, :0])
    return with_clip_length(no_samples, data.clip_s)


def _load_index(folder: Path, data: DataConfig) -> dict[str, Any]:
    """What is known of every clip: a corpus without its samples."""
    changed = f"-{hash_values(sorted(data.labels.items()))}" if data.labels else ""
    if data.trim_db is not None:
        changed += f"-trimmed{data.trim_db:g}+{data.trim_margin_s:g}"
    path = folder / f"index{changed}.json"
    if not path.exists():
        with locked(folder):
            if not path.exists():
                corpus, row_B = load_kept(data)
                _write_index(path, trim_corpus(corpus, data), row_B)
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
