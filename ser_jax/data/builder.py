"""The tensorflow-datasets builder: FLAC clips and their labels in array_record, no TensorFlow."""

import contextlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ser_jax.data.sources.filenames import ATTRIBUTES, Facts
from ser_jax.data.sources.ravdess import EMOTIONS, INTENSITIES, STATEMENTS
from ser_jax.errors import UserError

_RAVDESS_ATTRIBUTES = ("gender", "intensity", "statement", "repetition")
_SPLIT = "clips"  # one split: the protocols are index arrays, see ser_jax/splits.py


class Clips(tfds.core.GeneratorBasedBuilder):
    """RAVDESS' clips in the order in which they are given."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, folder: Path, examples: Iterable[dict[str, Any]] = ()) -> None:
        self._examples = examples
        super().__init__(data_dir=folder, file_format="array_record")

    def write_example(self, file_name: str, flac: bytes, facts: Facts) -> dict[str, Any]:
        """An example as the features have it."""
        values = {name: getattr(facts, name) for name in ("emotion", *_RAVDESS_ATTRIBUTES)}
        return {"file_name": file_name, "flac": flac, "actor": int(facts.speaker), **values}

    def read_example(self, example: dict[str, Any]) -> tuple[str, bytes, Facts]:
        """What `write_example` was given."""
        features: Any = self.info.features
        texts = {
            name: features[name].int2str(int(example[name]))
            for name in ("emotion", *_RAVDESS_ATTRIBUTES)
        }
        facts = Facts(speaker=f"{int(example['actor']):02d}", **texts)
        return example["file_name"].decode(), example["flac"], facts

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel
        return tfds.core.DatasetInfo(
            builder=self,
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "file_name": tfds.features.Text(),
                    # features.Audio would need TensorFlow; one string is a tensor of objects.
                    "flac": tfds.features.Tensor(shape=(), dtype=np.object_),
                    "emotion": label(names=list(EMOTIONS)),
                    "gender": label(names=["female", "male"]),
                    "intensity": label(names=list(INTENSITIES)),
                    "statement": label(names=list(STATEMENTS)),
                    "repetition": label(names=["1", "2"]),
                    "actor": tfds.features.Scalar(np.int32),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self._examples)


class NamedClips(Clips):
    """Clips of any corpus, with its own words: what they mean is settled when they are read."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        texts = ("file_name", "emotion", "speaker", *ATTRIBUTES)
        return tfds.core.DatasetInfo(
            builder=self,
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {name: tfds.features.Text() for name in texts}
                | {"flac": tfds.features.Tensor(shape=(), dtype=np.object_)}
            ),
        )

    def write_example(self, file_name: str, flac: bytes, facts: Facts) -> dict[str, Any]:
        return {"file_name": file_name, "flac": flac, **vars(facts)}

    def read_example(self, example: dict[str, Any]) -> tuple[str, bytes, Facts]:
        names = ("emotion", "speaker", *ATTRIBUTES)
        facts = Facts(**{name: example[name].decode() for name in names})
        return example["file_name"].decode(), example["flac"], facts


def write_clips(
    folder: Path, clips: Iterable[tuple[str, bytes, Facts]], *, ravdess: bool = True
) -> None:
    """Write clips into `folder`: file names, FLAC and what is known.

    Args:
      folder: of the store.
      clips: in order.
      ravdess: they are RAVDESS', and their labels are kept as numbers.

    Raises:
      UserError: the folder cannot be written, for instance because the disk is full.
    """
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(
        try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what concerns downloads alone
            builder = _get_kind(ravdess)(folder)
            builder._examples = (builder.write_example(*clip) for clip in clips)
            builder.download_and_prepare(download_dir=folder / "downloads", download_config=config)
    except RuntimeError as error:  # array_record's own, with the system's reason inside
        reason = re.search(r"\w+\(\) failed: ([^;]+)", str(error))
        if reason is None:
            raise
        raise UserError(
            f"{folder.parent}: cannot write: {reason[1]}; free some space or change data.store_dir"
        ) from error


def read_clips(
    folder: Path, rows: Sequence[int] | None = None, *, ravdess: bool = True, at_once: int = 64
) -> Iterator[tuple[str, bytes, Facts]]:
    """Clips of `folder`, all or some, as `write_clips` was given them; `at_once` in memory."""
    builder: Any = _get_kind(ravdess)(folder)
    source: Any = builder.as_data_source(_SPLIT)
    wanted = range(len(source)) if rows is None else rows
    for start in range(0, len(wanted), at_once):
        for example in source.__getitems__(wanted[start : start + at_once]):
            yield builder.read_example(example)


def _get_kind(ravdess: bool) -> type[Clips]:
    return Clips if ravdess else NamedClips
